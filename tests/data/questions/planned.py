"""Pairs of plans that are not rendered: their masks are the planner's, their pictures blank."""

import functools

import numpy as np

from dig_jax.data import records
from dig_jax.data.questions.asked import VOCABULARY, scene_of
from dig_jax.data.questions.balance import Offer
from dig_jax.data.questions.kinds import KINDS
from dig_jax.data.render.produce import plan_pair
from dig_jax.data.scene.draws import Draw
from dig_jax.data.scene.look import SceneConfig
from dig_jax.data.scene.scene import Plan, plan_to_json
from dig_jax.data.scene.visibility import foresee

LOOK = SceneConfig(width=128, height=96)
PLANS = 160


def pair_of(plan: Plan, size=(LOOK.width, LOOK.height)) -> records.Pair:
    """A record's content; two pictures that tell themselves apart by a pixel."""
    forecast = foresee(plan, *size)
    blank = [np.full((*forecast.mask_a.shape, 3), level, np.uint8) for level in (0, 1)]
    for image in blank:
        image[0, 0] = plan.idx // 256, plan.idx % 256, image[0, 0, 0]
    meta = {**plan_to_json(plan), "width": size[0], "height": size[1], "differences": []}
    pair = records.Pair(*blank, forecast.mask_a, forecast.mask_b, meta)
    meta["pixels"] = records.pixel_hashes(pair)
    return pair


def plan_of(idx: int, **draw) -> Plan:
    return plan_pair(LOOK, Draw("test_mixed", **{"k_low": 1, "k_high": 4, **draw}), idx).plan


@functools.cache
def planned(idx: int) -> records.Pair:
    """Number idx of PLANS; every second has a camera of B's own."""
    return pair_of(plan_of(idx, seed=idx % 2, camera_jitter_b=0.1 * (idx % 2)))


def pairs() -> list[records.Pair]:
    return [planned(idx) for idx in range(PLANS)]


@functools.cache
def offers(kind: str) -> tuple[Offer, ...]:
    """All questions of a kind about all pairs."""
    found = []
    for index in range(PLANS):
        rng = np.random.default_rng([1, index])
        found += [Offer(index, asked) for asked in KINDS[kind](_scene(index), rng)]
    return tuple(found)


@functools.cache
def _scene(index: int):
    return scene_of(planned(index), "ab"[index % 2], VOCABULARY)
