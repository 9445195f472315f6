"""Scored answers as rows: a pair's boxes, which found which, and every metric."""

import numpy as np

from dig_jax.boxes import pairwise_iou
from dig_jax.config import RewardConfig
from dig_jax.data.feed.batch import KINDS, Batch
from dig_jax.reward.matching import assign_on_host
from dig_jax.reward.reward import matching_cost


def answer_rows(cfg: RewardConfig, batch: Batch, texts, parsed, reward) -> list[dict]:
    """One row per real pair of a scored batch: means over its answers, and the first answer.

    text, verdict, boxes and `shown` (its own scores) belong to the first of the group. `found`
    is, for each true box, the share of the answers that matched it with IoU >= iou_threshold,
    `kinds` its type; `empty` the share of well-formed answers without a box.
    """
    empty = reward.parts["format"] * (reward.parts["n_pred"] == 0)
    scores = {**reward.parts, "reward": reward.total, "empty": empty}
    rows = []
    for i in np.flatnonzero(batch.real):
        true = batch.truth.boxes[i][batch.truth.valid[i]]
        means = {name: float(part[i].mean()) for name, part in scores.items()}
        rows.append(
            {
                "pair_id": int(batch.pair_id[i]),
                "n_true": len(true),
                "text": texts[i][0],
                "verdict": str(parsed[i][0].verdict),
                **matched_boxes(cfg, parsed[i][0].boxes_unit, true),
                "kinds": [KINDS[k] for k in batch.kind[i][batch.truth.valid[i]]],
                "found": found_boxes(cfg, [p.boxes_unit for p in parsed[i]], true),
                **means,
                "shown": {name: float(part[i, 0]) for name, part in scores.items()},
            }
        )
    return rows


def partners(cfg: RewardConfig, pred: np.ndarray, true: np.ndarray) -> tuple[list, list]:
    """For each predicted box its true partner (-1: none), and the IoU with it (0: none).

    The partners are the reward's: the cheapest assignment under its matching cost.
    """
    iou = np.asarray(pairwise_iou(pred, true)).reshape(len(pred), len(true))
    match = np.full(len(pred), -1)
    if iou.size:
        match = assign_on_host(np.asarray(matching_cost(cfg, pred, true)))
    return match.tolist(), [float(iou[q, m]) if m >= 0 else 0.0 for q, m in enumerate(match)]


def found_boxes(cfg: RewardConfig, answers: list[np.ndarray], true: np.ndarray) -> list[float]:
    """For each true box the share of the answers that found it; boxes in the unit frame."""
    found = np.zeros(len(true))
    for pred in answers:
        for m, iou in zip(*partners(cfg, pred, true), strict=True):
            if m >= 0 and np.float32(iou) >= np.float32(cfg.iou_threshold):
                found[m] += 1
    return (found / len(answers)).tolist()


def matched_boxes(cfg: RewardConfig, pred: np.ndarray, true: np.ndarray) -> dict:
    """Boxes as lists, and the `partners` of the predicted ones."""
    match, shared = partners(cfg, pred, true)
    return {
        "pred": np.round(np.float64(pred), 4).tolist(),
        "true": np.round(np.float64(true), 4).tolist(),
        "match": match,
        "match_iou": [round(x, 4) for x in shared],
    }
