"""One index to one certified pair: plan, render, check, try again.

The renderer is an argument, so this is testable without Blender, and the result is a pure
function of (config, seed, split, idx, k range) whoever runs it and in whatever order.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from dig_jax.data.differences import draw_task, propose
from dig_jax.data.labels import certify
from dig_jax.data.records import Pair
from dig_jax.data.scene import Plan, Rejected, SceneConfig, Thing, plan_to_json

# (plan, the things of one of its images) -> (image u8[Y,X,3], mask u8[Y,X])
Renderer = Callable[[Plan, tuple[Thing, ...]], tuple[np.ndarray, np.ndarray]]


class Exhausted(RuntimeError):
    """No scene of an index was accepted; the message carries the counted reasons."""


@dataclass(frozen=True)
class Request:
    """Which pair is wanted."""

    seed: int
    split: str
    idx: int
    k_low: int
    k_high: int


def make_pair(config: SceneConfig, request: Request, render: Renderer) -> tuple[Pair, Counter]:
    """The pair of an index, and how often and why scenes were dropped on the way.

    `mask_mismatch` in the counter deserves attention: it means that camera or geometry of the
    renderer and of the planner have drifted apart.
    """
    types = draw_task(request.seed, request.split, request.idx, request.k_low, request.k_high)
    dropped: Counter = Counter()
    for attempt in range(config.attempts):
        try:
            plan, forecast = propose(
                config, request.seed, request.split, request.idx, attempt, types
            )
            image_a, mask_a = render(plan, plan.a)
            image_b, mask_b = render(plan, plan.b)
            differences, residual = certify(
                config,
                plan,
                (image_a, image_b),
                (mask_a, mask_b),
                (forecast.mask_a, forecast.mask_b),
                (forecast.amodal_a, forecast.amodal_b),
            )
        except Rejected as rejected:
            dropped[rejected.reason] += 1
            continue
        meta = {
            **plan_to_json(plan),
            "width": config.width,
            "height": config.height,
            "samples": config.samples,
            "differences": differences,
            "residual": residual,
        }
        return Pair(image_a, image_b, mask_a, mask_b, meta), dropped
    raise Exhausted(
        f"split={request.split} idx={request.idx} types={','.join(types)}: none of "
        f"{config.attempts} scenes was accepted ({dict(dropped)}); "
        "loosen the scene settings or raise attempts"
    )
