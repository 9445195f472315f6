"""The named rewards, each a function of one `Sample`: what `reward.function` may be.

    reward(sample: Sample) -> float | dict[str, float]

A dict holds "reward" and whatever else is worth logging. Your own function has the same signature;
docs/rewards.md shows one. All of these are NumPy, one answer at a time. Training with "dig"
does not call `dig` but the jitted `reward.score_boxes`, which gives the same.
"""

import functools
from collections.abc import Callable

import numpy as np

from dig_jax.boxes import pairwise_iou
from dig_jax.config import REWARD_FUNCTIONS, RewardConfig
from dig_jax.reward import neighbours
from dig_jax.reward.matching import assign_on_host
from dig_jax.reward.reward import matching_cost
from dig_jax.reward.sample import Sample


def readable_only(function: Callable) -> Callable:
    """The function, with 0 for an answer that cannot be read, in every entry of its dict.

    For functions that are never negative. Some of the published formulas pay 1 for no box where
    none is true, and so for an answer in which none can be read.
    """

    @functools.wraps(function)
    def reward(sample: Sample, *args, **kwargs):
        value = function(sample, *args, **kwargs)
        if sample.readable:
            return value
        return dict.fromkeys(value, 0.0) if isinstance(value, dict) else 0.0

    return reward


@readable_only
def dig(sample: Sample, cfg: RewardConfig = RewardConfig()) -> dict[str, float]:  # noqa: B008 frozen
    """DiG's reward: `reward.score_boxes` for one answer, to build on.

    ->  reward in [0, w_format + w_f1 + w_iou], and its parts format, f1, iou in [0, 1]
    """
    pred, true = sample.boxes, sample.truth
    n_pred, n_true = len(pred) + sample.surplus, len(true)
    iou = pairwise_iou(pred, true)
    match = assign_on_host(matching_cost(cfg, pred, true))
    rows = np.flatnonzero(match >= 0)
    matched = iou[rows, match[rows]]
    hits = int((matched >= np.float32(cfg.iou_threshold)).sum())
    whole = {"max": max(n_pred, n_true), "matched": len(rows), "true": n_true}
    parts = {
        "format": float(sample.parsed.ok),
        "f1": _share(2 * hits, n_pred + n_true),
        "iou": _share(float(matched.sum()), whole[cfg.iou_denominator]),
    }
    if not n_pred + n_true:
        parts |= dict.fromkeys(("f1", "iou"), float(cfg.empty_is_perfect))
    reward = cfg.w_format * parts["format"] + cfg.w_f1 * parts["f1"] + cfg.w_iou * parts["iou"]
    return {"reward": reward, **parts}


def _share(part: float, whole: int) -> float:
    return part / whole if whole else 0.0


@readable_only
def perception_r1(sample: Sample) -> float:
    """`neighbours.perception_r1` in pixels of the records' images; in [0, 1]."""
    return neighbours.perception_r1(sample.boxes_px, sample.truth_px, sample.surplus)


@readable_only
def vlm_r1_weighted(sample: Sample) -> dict[str, float]:
    """`neighbours.vlm_r1_weighted`; beside it format, the rule for grounding, not part of it."""
    score = neighbours.vlm_r1_weighted(sample.boxes_px, sample.truth_px, sample.surplus)
    return score | {"format": neighbours.vlm_r1_format(sample.text)}


@readable_only
def vlm_r1_ap(sample: Sample) -> dict[str, float]:
    """`neighbours.vlm_r1_ap`; beside it format, the rule for grounding, not part of it."""
    score = neighbours.vlm_r1_ap(sample.boxes_px, sample.truth_px, sample.surplus)
    return score | {"format": neighbours.vlm_r1_format(sample.text)}


@readable_only
def vision_reasoner(sample: Sample) -> float:
    """`neighbours.vision_reasoner` in pixels of the records' images; in [0, 2]."""
    return neighbours.vision_reasoner(sample.boxes_px, sample.truth_px, sample.surplus)


NAMED = {
    function.__name__: function
    for function in (dig, perception_r1, vlm_r1_weighted, vlm_r1_ap, vision_reasoner)
}
assert tuple(NAMED) == REWARD_FUNCTIONS, "config lists what is here"
