"""DiG's reward for other trainers: format + F1 + mean IoU after one-to-one matching.

This file stands alone (Python 3.9+, numpy, scipy): `python -m dig_jax.data export` copies it
beside the data, and it equals `dig_jax.reward` with its defaults.

EasyR1:  worker.reward.reward_function=DIR/easyr1_reward.py:compute_score
         worker.reward.reward_function_kwargs={"think": "prefilled"}   for a Thinking model
TRL:     GRPOTrainer(reward_funcs=trl_reward, ...)

    overall = w_format * format + w_f1 * F1 + w_iou * mean IoU, by default in 0..3

- *Boxes* are read from the text after the last </think>, in thousandths of the image's sides: those
  of a list in the asked form; elsewhere tolerantly (in the last <answer> where there is one), where
  every list of four numbers counts.
- *Format* is 1 for nothing but a JSON list, bare or in one ```json fence, of objects
  {"bbox_2d": [x0, y0, x1, y1]} with integers in 0..1000, x0 < x1, y0 < y1, an optional string
  "label" and no other key, at most max_boxes of them, after the thought that `think` asks for, and
  no special token (<|im_start|>) anywhere but one end token at the end.
- *Matching* is one Hungarian assignment by 5 L1 + 2 (1 - GIoU) in the unit frame.
- *F1* = 2 TP / (n_pred + n_true); a match with IoU >= 0.5 is a true positive.
- *Mean IoU* = summed IoU of the matches / max(n_pred, n_true).
- *Nothing predicted and nothing true* is F1 = IoU = 1; only one of the two empty is 0. Nothing is
  predicted by an empty list that has the format alone: an answer without it in which no box can be
  read earns 0 in every part.

The true boxes are the `answer` column: pixels rounded to thousandths.
"""

from __future__ import annotations

import json
import re

import numpy as np
from scipy.optimize import linear_sum_assignment

REWARD_NAME = "dig"
REWARD_TYPE = "batch"
_SIDE = 1000  # coordinates are thousandths of the image's sides


def compute_score(
    reward_inputs: list[dict],
    think: str = "none",
    w_format: float = 1.0,
    w_f1: float = 1.0,
    w_iou: float = 1.0,
    iou_threshold: float = 0.5,
    cost_l1: float = 5.0,
    cost_giou: float = 2.0,
    max_boxes: int = 16,
    max_response_length: int = 0,
) -> list[dict]:
    """EasyR1's batch reward: one dict per answer, whatever its text.

    reward_inputs        dicts with "response", "response_length", "ground_truth": an answer and
                         the `answer` column's JSON list of {"bbox_2d": [4 numbers in 0..1000]}
    think                "none": no <think> tags may occur; "prefilled": the prompt ends in
                         <think>, so exactly one </think> and no <think>; "full": one pair,
                         opening at the start
    max_boxes            predicted boxes that take part in the matching; further ones are false
                         positives and spoil the format
    max_response_length  tokens at which an answer was cut off, which spoils the format; 0 = unknown
    ->                   overall; format, f1, iou, accuracy in 0..1. accuracy is the mean of f1 and
                         iou by their weights: what is left of overall without the format

    Raises ValueError where a ground truth is no list of boxes: that is the data's fault.
    """
    scores = []
    for row, one in enumerate(reward_inputs):
        true = _true_boxes(one["ground_truth"], row)
        cut_off = 0 < max_response_length <= one.get("response_length", 0)
        pred, n_pred, well_formed = read_answer(one["response"], think, max_boxes)
        form = float(well_formed and not cut_off)
        f1, iou = match(pred, n_pred, true, iou_threshold, cost_l1, cost_giou)
        if not (n_pred or form):
            f1 = iou = 0.0  # unreadable: it must not earn what an empty list does
        found, weight = w_f1 * f1 + w_iou * iou, w_f1 + w_iou
        scores.append(
            {
                "overall": w_format * form + found,
                "format": form,
                "f1": f1,
                "iou": iou,
                "accuracy": found / weight if weight else 0.0,
            }
        )
    return scores


def trl_reward(completions: list, answer: list[str], **columns: object) -> list[float]:
    """TRL's reward function: `overall` of every completion, text or conversation."""
    rows = [
        {"response": _text_of(completion), "ground_truth": truth}
        for completion, truth in zip(completions, answer)  # noqa: B905 (Python 3.9 has no strict)
    ]
    return [score["overall"] for score in compute_score(rows)]


def _text_of(completion: object) -> str:
    if isinstance(completion, str):
        return completion
    content = completion[-1]["content"]
    if isinstance(content, str):
        return content
    return "".join(part.get("text") or "" for part in content)


def _true_boxes(text: str, row: int) -> np.ndarray:
    """f32[n, 4] in the unit frame."""
    try:
        rows = [item["bbox_2d"] for item in json.loads(text)]
        boxes = np.array(rows, np.float64).reshape(-1, 4)
    except (ValueError, TypeError, KeyError) as error:
        raise ValueError(
            f"ground_truth={text!r} of row {row} is no JSON list of bbox_2d boxes ({error!r}); "
            'give the `answer` column, "[]" for an identical pair'
        ) from error
    return (boxes / _SIDE).astype(np.float32)


def read_answer(text: str, think: str, max_boxes: int) -> tuple[np.ndarray, int, bool]:
    """Boxes of one answer f32[n, 4] (unit frame, n <= max_boxes), how many it names, its form."""
    text = text.rstrip()
    for end in ("<|im_end|>", "<|endoftext|>"):
        if text.endswith(end):  # one: a second was written before the stop
            text = text[: -len(end)]
            break
    answer, think_ok = _split_thought(text, think)
    clean = "<|" not in text or not _SPECIAL.search(text)
    corners = _asked_boxes(answer)
    if corners is None:
        tagged = answer.rpartition("<answer>")[2].partition("</answer>")[0]
        corners, count = _named_boxes(tagged, max_boxes)
        well_formed = False
    else:
        count = len(corners)
        well_formed = think_ok and clean and count <= max_boxes and all(map(_is_right, corners))
    pairs = np.array(corners[:max_boxes], np.float64).reshape(-1, 2, 2).clip(0, _SIDE)
    boxes = (np.sort(pairs, axis=1).reshape(-1, 4) / _SIDE).astype(np.float32)
    return boxes, count, well_formed


_SPECIAL = re.compile(r"<\|\w+\|>", re.ASCII)  # a token such as <|im_start|>, written out


def _split_thought(text: str, think: str) -> tuple[str, bool]:
    """The text after the thought, and whether the tags are as `think` wants them."""
    opened, closed = text.count("<think>"), text.count("</think>")
    rules = {
        "none": opened == closed == 0,
        "prefilled": opened == 0 and closed == 1,
        "full": opened == closed == 1 and text.lstrip().startswith("<think>"),
    }
    if think not in rules:
        raise ValueError(f"think={think!r} is unknown; use one of {', '.join(rules)}")
    if think == "prefilled" and not closed:
        return "", False  # the thought never ended
    answer = text.rpartition("</think>")[2]
    return answer.partition("<think>")[0], rules[think]


# A list of four numbers, or a quoted value to step over. Neither can be read in two ways, so a
# failed try backs out in linear time.
_NUMBER = r"""["']?([+-]?(?:\d+(?:\.\d*)?|\.\d+)(?:[eE][+-]?\d+)?)["']?"""
_NAMED = re.compile(
    r"\[\s*" + r"\s*,\s*".join([_NUMBER] * 4) + r"\s*\]" + r'|:\s*"(?:[^"\\]|\\.)*"',
    re.ASCII | re.DOTALL,
)
_BOX_KEYS = tuple(quote + key for quote in "\"'" for key in ("bbox_2d", "bbox", "box"))


def _named_boxes(answer: str, max_boxes: int) -> tuple[list, int]:
    """The tolerant reading: corners of the first max_boxes boxes, and how many there are in all."""
    rows, count = [], 0
    for found in _NAMED.finditer(answer):
        if found[1] is None or _is_under_other_key(answer, found.start()):
            continue
        count += 1
        if count <= max_boxes:
            rows.append([float(number) for number in found.groups()])
    return rows, count


def _is_under_other_key(answer: str, start: int) -> bool:
    """Whether the list opening at `start` is the value of a quoted key that names no box."""
    before = answer[max(0, start - 32) : start].rstrip()
    if not before.endswith(":"):
        return False
    name = before[:-1].rstrip()
    return name.endswith(('"', "'")) and not name[:-1].endswith(_BOX_KEYS)


class _Object(tuple):
    """A JSON object as its (key, value) pairs, so that a doubled key is not lost."""


def _bounded_int(digits: str) -> int:
    # int() refuses very long digits; anything this long is out of range anyway
    return int(digits) if len(digits) < 12 else (-1 if digits.startswith("-") else _SIDE + 1)


_DECODER = json.JSONDecoder(object_pairs_hook=_Object, parse_int=_bounded_int)


def _asked_boxes(answer: str) -> list | None:
    """Corners of a list of nothing but boxes in the form asked for; None for any other answer."""
    body = answer.strip()
    if body.startswith("```json") and body.endswith("```") and len(body) >= 10:
        body = body[7:-3].strip()
    if not body.startswith("["):
        return None
    try:
        items, end = _DECODER.raw_decode(body)
    except (ValueError, RecursionError):
        return None
    if end < len(body) or not all(map(_is_box, items)):
        return None
    return [dict(item)["bbox_2d"] for item in items]


def _is_box(item: object) -> bool:
    fields = dict(item) if isinstance(item, _Object) else {}
    box = fields.get("bbox_2d")
    if type(box) is not list or len(box) != 4 or any(type(v) is not int for v in box):
        return False
    known = len(fields) == len(item) and fields.keys() <= {"bbox_2d", "label"}
    return known and type(fields.get("label", "")) is str


def _is_right(box: list) -> bool:
    inside = min(box) >= 0 and max(box) <= _SIDE
    return inside and box[0] < box[2] and box[1] < box[3]


def match(
    pred: np.ndarray,
    n_pred: int,
    true: np.ndarray,
    iou_threshold: float = 0.5,
    cost_l1: float = 5.0,
    cost_giou: float = 2.0,
) -> tuple[float, float]:
    """(F1, mean IoU) of predicted against true boxes.

    pred     f32[Q, 4]   unit frame, x0 <= x1, y0 <= y1
    n_pred   boxes named; those beyond Q are false positives
    true     f32[M, 4]
    """
    n_true = len(true)
    if n_pred + n_true == 0:
        return 1.0, 1.0
    iou, giou, l1 = _pairwise(pred, true)
    dearest = 4 * cost_l1 + 2 * cost_giou
    cost = (cost_l1 * l1 + cost_giou * (1 - giou)) / dearest
    rows, columns = linear_sum_assignment(cost)
    matched = iou[rows, columns]
    hits = int((matched >= np.float32(iou_threshold)).sum())
    return 2 * hits / (n_pred + n_true), float(matched.sum()) / max(n_pred, n_true)


def _pairwise(pred: np.ndarray, true: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """IoU, GIoU and L1 of every predicted with every true box, f32[Q, M] each."""
    a, b = pred[:, None, :], true[None, :, :]
    shared = _area(np.maximum(a[..., :2], b[..., :2]), np.minimum(a[..., 2:], b[..., 2:]))
    hull = _area(np.minimum(a[..., :2], b[..., :2]), np.maximum(a[..., 2:], b[..., 2:]))
    union = _area(a[..., :2], a[..., 2:]) + _area(b[..., :2], b[..., 2:]) - shared
    iou = _ratio(shared, union)
    return iou, iou + _ratio(union, hull) - 1, abs(a - b).sum(axis=-1)


def _area(low: np.ndarray, high: np.ndarray) -> np.ndarray:
    # each side is clipped on its own: two negative sides would multiply to a positive area
    sides = np.clip(high - low, 0, None)
    return sides[..., 0] * sides[..., 1]


def _ratio(part: np.ndarray, whole: np.ndarray) -> np.ndarray:
    some = whole > 0
    return np.where(some, part / np.where(some, whole, np.float32(1)), np.float32(0))
