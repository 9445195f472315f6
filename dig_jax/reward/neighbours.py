"""The neighbours' matching rewards, for comparison on the same answers.

Each is a NumPy function of one answer, `(pred_px f32[n, 4], true_px f32[m, 4]) -> float`, without
the neighbour's format terms. Their constants are the published ones. Where a neighbour's code or
paper leaves something open or does something that cannot apply here, the docstring says so.
"""

import numpy as np

from dig_jax.boxes import pairwise_iou, pairwise_l1
from dig_jax.reward.matching import assign_on_host


def perception_r1(pred_px: np.ndarray, true_px: np.ndarray) -> float:
    """Perception-R1 (arXiv 2504.07954): IoU itself is the utility the assignment maximises.

    Summed IoU of the matched pairs / m, in [0, 1]; nothing true: 1 if nothing is predicted, else
    0. The released code scores a single box only, so the matching follows the paper's text;
    its extra terms for detection (F1, missed boxes) are not part of this. Surplus boxes are free.
    """
    if not len(true_px):
        return float(not len(pred_px))
    iou = pairwise_iou(*_boxes(pred_px, true_px))
    return float(_matched(iou, assign_on_host(1.0 - iou)).sum() / len(true_px))


def vlm_r1(pred_px: np.ndarray, true_px: np.ndarray) -> float:
    """VLM-R1's weighted detection score: 0.7 position + 0.3 completeness, no assignment problem.

    Greedy: the pair of largest IoU first, until it falls below 0.5. Position = summed IoU / m,
    completeness = 1 - (missed / m + false / n) / 2. Both empty: 1, one empty: 0. Its label term
    has weight 0 as published and our boxes have one label. Its IoU subtracts a pixel from each
    overlap; plain IoU here, equal for overlaps above one pixel.
    """
    n, m = len(pred_px), len(true_px)
    if not n or not m:
        return float(n == m)
    iou = pairwise_iou(*_boxes(pred_px, true_px))
    taken = []
    while iou.size and iou.max() >= 0.5:
        i, j = np.unravel_index(iou.argmax(), iou.shape)
        taken.append(iou[i, j])
        iou = np.delete(np.delete(iou, i, axis=0), j, axis=1)
    missed, false = 1 - len(taken) / m, 1 - len(taken) / n
    return float(0.7 * sum(taken) / m + 0.3 * (1 - (missed + false) / 2))


def vision_reasoner(pred_px: np.ndarray, true_px: np.ndarray) -> float:
    """VisionReasoner's accuracy term: thresholds counted per pair, then the best assignment.

    A pair scores 1 for IoU > 0.5 plus 1 for a mean corner distance < 10 px; the summed scores of
    the assignment that maximises them / max(n, m), in [0, 2]. Its third point needs a predicted
    point per object, which our answers do not have. Thresholds are absolute pixels, areas count
    the last pixel in (+1), both as published. Nothing on either side: 0.
    """
    n, m = len(pred_px), len(true_px)
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
