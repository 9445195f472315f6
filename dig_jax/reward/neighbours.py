"""The neighbours' rewards, for comparison on the same answers.

The geometry of each is a NumPy function of one answer,
`(pred_px f32[n, 4], true_px f32[m, 4], surplus=0) -> float`, `surplus` being boxes that the answer
names beyond those in pred_px: they count as predicted and match nothing. Constants are the
published ones. Where a neighbour's code or paper leaves something open or does something that
cannot apply here, the docstring says so; so it does of the format terms, of which only those whose
rule is published to the letter are here. `reward.functions` makes rewards of a `Sample` of them.
"""

import re

import numpy as np

from dig_jax.boxes import pairwise_iou, pairwise_l1
from dig_jax.reward.matching import assign_on_host


def perception_r1(pred_px: np.ndarray, true_px: np.ndarray, surplus: int = 0) -> float:
    """Perception-R1 (arXiv 2504.07954): IoU itself is the utility the assignment maximises.

    Summed IoU of the matched pairs / m, in [0, 1]; nothing true: 1 if nothing is predicted, else
    0. The released code scores a single box only, so the matching follows the paper's text;
    its extra terms for detection (F1, missed boxes) are not part of this. Surplus boxes are free.
    Its format term is left out: the released pattern accepts any text that begins with "<".
    """
    if not len(true_px):
        return float(not len(pred_px) and not surplus)
    iou = pairwise_iou(*_boxes(pred_px, true_px))
    return float(_matched(iou, assign_on_host(1.0 - iou)).sum() / len(true_px))


def vlm_r1_weighted(pred_px: np.ndarray, true_px: np.ndarray, surplus: int = 0) -> dict[str, float]:
    """VLM-R1's weighted detection score: 0.7 position + 0.3 completeness, no assignment problem.

    ->  reward, and its two parts: position, completeness; each in [0, 1]

    Greedy: the pair of largest IoU first, until it falls below 0.5. Position = summed IoU / m,
    completeness = 1 - (missed / m + false / n) / 2. Both empty: 1, one empty: 0. Its label term
    has weight 0 as published and our boxes have one label. Its IoU subtracts a pixel from each
    overlap; plain IoU here, equal for overlaps above one pixel.
    """
    n, m = len(pred_px) + surplus, len(true_px)
    if not n or not m:
        return dict.fromkeys(("reward", "position", "completeness"), float(n == m))
    iou = pairwise_iou(*_boxes(pred_px, true_px))
    taken = []
    while iou.size and iou.max() >= 0.5:
        i, j = np.unravel_index(iou.argmax(), iou.shape)
        taken.append(iou[i, j])
        iou = np.delete(np.delete(iou, i, axis=0), j, axis=1)
    missed, false = 1 - len(taken) / m, 1 - len(taken) / n
    position, completeness = float(sum(taken) / m), 1 - (missed + false) / 2
    reward = 0.7 * position + 0.3 * completeness
    return {"reward": reward, "position": position, "completeness": completeness}


# COCO's evaluation: ten IoU thresholds, precision read at 101 recalls
_COCO_IOU = np.linspace(0.5, 0.95, 10)
_COCO_RECALL = np.linspace(0.0, 1.0, 101)


def vlm_r1_ap(pred_px: np.ndarray, true_px: np.ndarray, surplus: int = 0) -> dict[str, float]:
    """VLM-R1's other detection score: COCO mAP@[.5:.95] of the one answer x a length factor.

    ->  reward = ap x length, and both: ap, length = min(1, m / n); each in [0, 1]

    Every box has score 1, so COCO's order is the answer's: a false box costs precision only where
    right ones follow it, and surplus ones, which come last, cost length alone. One category, as
    our boxes have one label. The ap is that of pycocotools. Both empty: 1; one
    empty: 0 (COCO leaves that undefined).
    """
    n, m = len(pred_px) + surplus, len(true_px)
    if not n or not m:
        return dict.fromkeys(("reward", "ap", "length"), float(n == m))
    iou = pairwise_iou(*_boxes(pred_px, true_px))
    ap = float(np.mean([_average_precision(_coco_hits(iou, least), m) for least in _COCO_IOU]))
    length = min(1.0, m / n)
    return {"reward": ap * length, "ap": ap, "length": length}


def _coco_hits(iou: np.ndarray, least: float) -> np.ndarray:
    """bool[n]: each box in turn takes the free true box it overlaps most, the last of equals."""
    free = np.ones(iou.shape[1], bool)
    hits = np.zeros(len(iou), bool)
    for box, row in enumerate(iou):
        row = np.where(free & (row >= least), row, -1.0)
        best = len(row) - 1 - row[::-1].argmax()
        if row[best] >= 0:
            hits[box], free[best] = True, False
    return hits


def _average_precision(hits: np.ndarray, m: int) -> float:
    found = hits.cumsum()
    precision = found / np.arange(1, len(hits) + 1)
    envelope = np.maximum.accumulate(precision[::-1])[::-1]  # the best at this recall or above
    at = np.searchsorted(found / m, _COCO_RECALL, side="left")
    return float(np.append(envelope, 0.0)[at].mean())


_THOUGHT_THEN_ANSWER = re.compile(r"</think>\s*+<answer>")
_INTEGER_BOX = re.compile(r"\[\d++,\s*+\d++,\s*+\d++,\s*+\d++\]")


def vlm_r1_format(text: str) -> float:
    """VLM-R1's format reward for grounding (`rec`), 1 or 0; its detection tasks have others.

    1 where somewhere `<think>`, then `</think>` with `<answer>` right after it, "{", a list of
    four integers, "}" and `</answer>` follow one another. Where the prompt ends in `<think>` the
    answer does not open one, and this is 0 for every answer, as it is in the original.
    """
    at = text.find("<think>")
    if at < 0 or not (answer := _THOUGHT_THEN_ANSWER.search(text, at)):
        return 0.0
    brace = text.find("{", answer.end())
    if brace < 0 or not (box := _INTEGER_BOX.search(text, brace)):
        return 0.0
    close = text.find("}", box.end())
    return float(close >= 0 and text.find("</answer>", close) >= 0)


def vision_reasoner(pred_px: np.ndarray, true_px: np.ndarray, surplus: int = 0) -> float:
    """VisionReasoner's accuracy term: thresholds counted per pair, then the best assignment.

    A pair scores 1 for IoU > 0.5 plus 1 for a mean corner distance < 10 px; the summed scores of
    the assignment that maximises them / max(n, m), in [0, 2]. Its third point needs a predicted
    point per object, which our answers do not have. Thresholds are absolute pixels, areas count
    the last pixel in (+1), both as published. Nothing on either side: 0. Its three further terms
    (thinking format, format per item, no repetition) are left out.
    """
    n, m = len(pred_px) + surplus, len(true_px)
    if not n or not m:
        return 0.0
    pred, true = _boxes(pred_px, true_px)
    closed = np.array([0.0, 0.0, 1.0, 1.0])
    score = (pairwise_iou(pred + closed, true + closed) > 0.5) * 1.0
    score += pairwise_l1(pred, true) / 4 < 10
    return float(_matched(score, assign_on_host(2.0 - score)).sum() / max(n, m))


def _boxes(pred_px, true_px):
    return (np.asarray(x, np.float64).reshape(-1, 4) for x in (pred_px, true_px))


def _matched(score, match):
    rows = np.flatnonzero(match >= 0)
    return score[rows, match[rows]]
