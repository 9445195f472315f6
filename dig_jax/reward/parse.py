"""Read boxes out of whatever the model wrote, and say what is wrong with it.

Two separate questions, answered together:

- *Which boxes does the answer name?* Tolerant: fences, `<answer>` tags, prose, floats, swapped
  corners and cut-off lists are all read. Everything named in the answer counts, wherever it
  stands, so that offering several candidate lists is paid for as false positives.
- *Is it exactly the form we asked for?* Strict: see `parse`. The verdict names the first
  thing that is wrong.

Where the answer is a list of nothing but boxes in the form asked for, the strict reading gives the
boxes too, so what is called ok is what was read. Elsewhere the tolerant one does.

Bad text is a value here, never an exception, and the time taken is linear in its length.
"""

import enum
import json
import re
from dataclasses import dataclass

import numpy as np

from dig_jax.boxes import QWEN_SIDE, unit_from_qwen

READ_CAP = 256  # boxes read from one text where the caller does not say


class Verdict(enum.StrEnum):
    """What is wrong first, in the order in which it is looked for."""

    OK = "ok"
    EMPTY_TEXT = "empty_text"  # nothing but white space
    SPECIAL_TOKEN = "special_token"  # <|im_start|> and the like before the end
    BAD_THINK = "bad_think"  # <think> tags missing, doubled or where none belong
    NO_JSON = "no_json"  # no bracket in the answer
    UNCLOSED = "unclosed"  # a bracket is never closed: usually cut off
    BAD_JSON = "bad_json"  # brackets balance, but JSON it is not
    EXTRA_TEXT = "extra_text"  # something before or after the JSON: prose, tags, a second list
    NOT_A_LIST = "not_a_list"  # JSON, but not a list at the top
    BAD_ITEM = "bad_item"  # an entry is not {"bbox_2d": [4 integers]} with an optional label
    OUT_OF_RANGE = "out_of_range"  # a coordinate outside 0..1000; read as clipped
    INVERTED = "inverted"  # x0 > x1 or y0 > y1; read as swapped
    FLAT = "flat"  # x0 == x1 or y0 == y1; counted, overlaps nothing
    TOO_MANY = "too_many"  # more boxes than max_boxes
    NOT_ENDED = "not_ended"  # well formed, but the answer ran out of tokens before its end


@dataclass(frozen=True, eq=False)
class Parsed:
    """boxes_unit f32[n, 4], ordered corners in 0..1, at most max_boxes, in reading order."""

    boxes_unit: np.ndarray
    verdict: Verdict
    n_boxes: int  # boxes named in the answer, those beyond max_boxes included

    @property
    def ok(self) -> bool:
        """The format reward: exactly the form that was asked for."""
        return self.verdict is Verdict.OK

    @property
    def readable(self) -> bool:
        """A box was read, or an empty list in the form asked for: what else it is earns nothing."""
        return self.n_boxes > 0 or self.ok


def parse(
    text: str, *, think: str = "none", ended: bool = True, max_boxes: int = READ_CAP
) -> Parsed:
    """Boxes and verdict of one decoded answer; never raises, whatever the text.

    text       decoded answer without the prompt; a single <|im_end|> or <|endoftext|> at the end
               is ignored
    think      "none"       no <think> tags may occur
               "prefilled"  the prompt ends in <think>, so exactly one </think> and no <think>;
                            without it everything is thought and names no box
               "full"       one <think> ... </think> pair, opening at the start
    ended      the model stopped by itself; False where the token limit cut it off
    max_boxes  boxes kept; further ones are counted in n_boxes only

    ok means: the think rule holds, no <|special|> token is written out, and the rest is nothing
    but a JSON list, bare or in one ```json fence, of objects {"bbox_2d": [x0, y0, x1, y1]} with
    integers in 0..1000, x0 < x1, y0 < y1, an optional string "label" and no other key; at most
    max_boxes of them; ended.

    Boxes come from the text after the last </think>. Where it is a list of {"bbox_2d": [4
    integers]}, they are those; elsewhere, in the last <answer> if such tags stand there, every list
    of four numbers (or strings of digits) counts, except under a quoted key that is none of
    bbox_2d, bbox, box, and inside quoted values.
    """
    text = _without_end(text)
    answer, think_ok = split_thought(text, think)
    verdict, corners = _judge(answer)
    if corners is None:
        corners, n_boxes = _named_boxes(_last_tagged(answer), max_boxes)
    else:
        corners, n_boxes = corners[:max_boxes], len(corners)
    if not text.strip():
        verdict = Verdict.EMPTY_TEXT
    elif holds_special(text):
        verdict = Verdict.SPECIAL_TOKEN
    elif not think_ok:
        verdict = Verdict.BAD_THINK
    if verdict is Verdict.OK and n_boxes > max_boxes:
        verdict = Verdict.TOO_MANY
    if verdict is Verdict.OK and not ended:
        verdict = Verdict.NOT_ENDED
    return Parsed(_ordered(corners), verdict, n_boxes)


def _without_end(text: str) -> str:
    """The text less one end token: a second one was written before the stop and is the answer's."""
    text = text.rstrip()
    end = next(filter(text.endswith, ("<|im_end|>", "<|endoftext|>")), "")
    return text.removesuffix(end)


_SPECIAL = re.compile(r"<\|\w++\|>", re.ASCII)


def holds_special(text: str) -> bool:
    """Whether a token such as <|im_start|> is written out, in a thought or a label too."""
    return "<|" in text and _SPECIAL.search(text) is not None


def _ordered(corners: list[list[float]]) -> np.ndarray:
    """f32[n, 4] in the unit frame of n boxes in thousandths: clipped, corners put in order."""
    pairs = np.array(corners, np.float64).reshape(-1, 2, 2).clip(0, QWEN_SIDE)
    return unit_from_qwen(np.sort(pairs, axis=1).reshape(-1, 4))


def split_thought(text: str, think: str) -> tuple[str, bool]:
    """The text after the thought, and whether the tags are as `think` wants them."""
    opened, closed = text.count("<think>"), text.count("</think>")
    ok = {
        "none": opened == closed == 0,
        "prefilled": opened == 0 and closed == 1,
        "full": opened == closed == 1 and text.lstrip().startswith("<think>"),
    }[think]
    if think == "prefilled" and not closed:
        return "", ok
    answer = text.rpartition("</think>")[2]
    return answer.partition("<think>")[0], ok  # a thought that never ends hides the rest


def _last_tagged(answer: str) -> str:
    return answer.rpartition("<answer>")[2].partition("</answer>")[0]


# A list of four numbers, or a quoted value to step over. Possessive repeats: no backtracking, so
# time stays linear. A quoted value ends at the next bare quote, hence before the next start.
# The two optional parts of a number are not possessive, for Python 3.11 would take "200e" for a
# number; each adds one retry, which fails at the next character.
_NUMBER = r"""["']?+([+-]?+(?:\d++(?:\.\d*+)?|\.\d++)(?:[eE][+-]?+\d++)?)["']?+"""
_NAMED = re.compile(
    r"\[\s*+" + r"\s*+,\s*+".join([_NUMBER] * 4) + r"\s*+\]" + r'|:\s*+"(?:[^"\\]|\\.)*+"',
    re.ASCII | re.DOTALL,
)
_BOX_KEYS = tuple(quote + key for quote in "\"'" for key in ("bbox_2d", "bbox", "box"))


def _named_boxes(answer: str, max_boxes: int) -> tuple[list[list[float]], int]:
    """The tolerant reading: corners of the first max_boxes boxes, and how many there are in all."""
    rows, count = [], 0
    for match in _NAMED.finditer(answer):
        if match[1] is None or _under_other_key(answer, match.start()):
            continue
        count += 1
        if count <= max_boxes:
            rows.append([float(number) for number in match.groups()])
    return rows, count


def _under_other_key(answer: str, start: int) -> bool:
    """Whether the list opening at `start` is the value of a quoted key that names no box."""
    before = answer[max(0, start - 32) : start].rstrip()
    if not before.endswith(":"):
        return False
    name = before[:-1].rstrip()
    if not name.endswith(('"', "'")):
        return False  # prose: 'Here they are: [1, 2, 3, 4]'
    return not name[:-1].endswith(_BOX_KEYS)


class _Object(tuple):
    """A JSON object as its (key, value) pairs, so that a doubled key is not lost."""


def _bounded_int(digits: str) -> int:
    # int() refuses beyond 4300 digits; anything this long is out of range anyway
    return int(digits) if len(digits) < 12 else (-1 if digits.startswith("-") else QWEN_SIDE + 1)


_DECODER = json.JSONDecoder(object_pairs_hook=_Object, parse_int=_bounded_int)


def _judge(answer: str) -> tuple[Verdict, list[list[int]] | None]:
    """The strict reading of an answer without its thought: verdict, and every box's corners.

    None for the corners where any entry is something else than a box in the form asked for.
    """
    body = answer.strip()
    if body.startswith("```json") and body.endswith("```") and len(body) >= 10:
        body = body[7:-3].strip()
    starts = [at for at in (body.find("["), body.find("{")) if at >= 0]
    if not starts:
        return Verdict.NO_JSON, None
    try:
        value, end = _DECODER.raw_decode(body, min(starts))
    except (ValueError, RecursionError):  # RecursionError: the C scanner guards its own stack
        opened = body.count("[") + body.count("{") > body.count("]") + body.count("}")
        return (Verdict.UNCLOSED if opened else Verdict.BAD_JSON), None
    if min(starts) > 0 or end < len(body):
        return Verdict.EXTRA_TEXT, None
    if type(value) is not list:
        return Verdict.NOT_A_LIST, None
    found = [_judge_item(item) for item in value]
    verdict = next((each for each in found if each is not Verdict.OK), Verdict.OK)
    if Verdict.BAD_ITEM in found:
        return verdict, None
    return verdict, [dict(item)["bbox_2d"] for item in value]


def _judge_item(item: object) -> Verdict:
    fields = dict(item) if isinstance(item, _Object) else {}
    box = fields.get("bbox_2d")
    known = fields.keys() <= {"bbox_2d", "label"} and isinstance(fields.get("label", ""), str)
    if not known or not isinstance(item, _Object) or len(fields) != len(item):
        return Verdict.BAD_ITEM
    if type(box) is not list or len(box) != 4 or any(type(v) is not int for v in box):
        return Verdict.BAD_ITEM
    if min(box) < 0 or max(box) > QWEN_SIDE:
        return Verdict.OUT_OF_RANGE
    if box[0] > box[2] or box[1] > box[3]:
        return Verdict.INVERTED
    return Verdict.FLAT if box[0] == box[2] or box[1] == box[3] else Verdict.OK
