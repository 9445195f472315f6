"""One index to one certified pair: plan, render, check, try again.

The renderer is an argument, so this is testable without Blender, and the result is a pure
function of (config, draw, idx) whoever runs it and in whatever order.
"""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field

import numpy as np

from dig_jax.common import typed
from dig_jax.data.records import Pair, pixel_hashes
from dig_jax.data.scene.differences import draw_task, propose
from dig_jax.data.scene.draws import Draw
from dig_jax.data.scene.labels import Picture, certify
from dig_jax.data.scene.look import SceneConfig
from dig_jax.data.scene.scene import Plan, Rejected, Shot, plan_from_json, plan_to_json
from dig_jax.data.scene.visibility import foresee

# what to take a picture of -> (image u8[Y,X,3], mask u8[Y,X] thing ids)
Renderer = Callable[[Shot], tuple[np.ndarray, np.ndarray]]


class Exhausted(RuntimeError):
    """No scene of an index was accepted; `dropped` counts the reasons."""

    def __init__(self, message: str, dropped: Counter):
        super().__init__(message)
        self.dropped = dropped


@dataclass(frozen=True)
class Planned:
    """The first scene of an index that the planner accepts, and why others were dropped."""

    plan: Plan
    dropped: Counter = field(default_factory=Counter)
    cpu_s: float = field(default=0.0, compare=False)  # spent on it


@dataclass(frozen=True)
class Request:
    """Which pair is wanted; `planned` where `plan_pair` ended, if it ran before."""

    draw: Draw
    idx: int
    planned: Planned | None = None


def request_to_json(request: Request) -> dict:
    """A JSON-ready dict; `request_from_json` restores an equal Request."""
    planned = request.planned
    return {
        "draw": typed.to_plain(request.draw),
        "idx": request.idx,
        "planned": planned and planned_to_json(planned),
    }


def request_from_json(fields: dict) -> Request:
    """A Request from `request_to_json`'s dict, also after a trip through JSON text."""
    planned = fields["planned"]
    draw = typed.from_plain(Draw, fields["draw"], "draw")
    return Request(draw, fields["idx"], planned and planned_from_json(planned))


def planned_to_json(planned: Planned) -> dict:
    """A JSON-ready dict; `planned_from_json` restores an equal Planned."""
    dropped = dict(planned.dropped)
    return {"plan": plan_to_json(planned.plan), "dropped": dropped, "cpu_s": planned.cpu_s}


def planned_from_json(fields: dict) -> Planned:
    """A Planned from `planned_to_json`'s dict, also after a trip through JSON text."""
    plan, dropped = plan_from_json(fields["plan"]), Counter(fields["dropped"])
    return Planned(plan, dropped, fields["cpu_s"])


def plan_pair(config: SceneConfig, draw: Draw, idx: int, first: int = 0) -> Planned:
    """The first acceptable scene from attempt `first` on; NumPy only, some milliseconds.

    Raises Exhausted after `config.attempts` scenes in all.
    """
    start = time.process_time()
    types = draw_task(config, draw, idx)
    dropped: Counter = Counter()
    for attempt in range(first, config.attempts):
        try:
            plan = propose(config, draw, idx, attempt, types)
            return Planned(plan, dropped, round(time.process_time() - start, 4))
        except Rejected as rejected:
            dropped[rejected.reason] += 1
    raise _exhausted(config, draw, idx, types, dropped)


def make_pair(config: SceneConfig, request: Request, render: Renderer) -> tuple[Pair, Counter]:
    """The pair of an index, and how often and why scenes were dropped on the way.

    The pair is the same whether or not the request carries a plan.

    `mask_mismatch` in the counter deserves attention: it means that camera or geometry of the
    renderer and of the planner have drifted apart.
    """
    draw, idx, planned = request.draw, request.idx, request.planned
    dropped: Counter = Counter()
    first = 0
    while True:
        try:
            planned = planned or plan_pair(config, draw, idx, first)
        except Exhausted as error:
            types = draw_task(config, draw, idx)
            raise _exhausted(config, draw, idx, types, dropped + error.dropped) from None
        dropped += planned.dropped
        try:
            return _take(config, planned.plan, render), dropped
        except Rejected as rejected:
            dropped[rejected.reason] += 1
        first, planned = planned.plan.attempt + 1, None


def _take(config: SceneConfig, plan: Plan, render: Renderer) -> Pair:
    """Render a plan and certify it; raises Rejected."""
    a, b = Picture(*render(plan.shot("a"))), Picture(*render(plan.shot("b")))
    twin = None if plan.is_aligned else Picture(*render(plan.shot("twin")))
    forecast = foresee(plan, config.width, config.height)
    differences, residual = certify(config, plan, (a, b), twin, forecast)
    meta = {
        **plan_to_json(plan),
        "renderer": config.renderer,
        "width": config.width,
        "height": config.height,
        "samples": config.samples,
        "differences": differences,
        "residual": residual,
        "certified_on": "pair" if twin is None else "twin",
    }
    pair = Pair(a.image, b.image, a.mask, b.mask, meta)
    meta["pixels"] = pixel_hashes(pair)
    return pair


def _exhausted(config: SceneConfig, draw: Draw, idx: int, types, dropped: Counter) -> Exhausted:
    text = (
        f"split={draw.split} idx={idx} types={','.join(types) or 'none'}: none of "
        f"{config.attempts} scenes was accepted ({dict(dropped)}); "
        "loosen the scene settings or raise look.attempts"
    )
    return Exhausted(text, dropped)
