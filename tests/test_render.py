"""Real Blender renders, by workers: labels hold what changed, and bytes repeat."""

import importlib.util
import sys

import numpy as np
import pytest

from dig_jax.data.draws import Draw
from dig_jax.data.labels import grow, pixel_difference
from dig_jax.data.look import SceneConfig
from dig_jax.data.produce import Request
from dig_jax.data.records import decode
from dig_jax.data.scene import plan_from_json
from dig_jax.data.supervise import render_pairs

pytestmark = [
    pytest.mark.bpy,
    pytest.mark.skipif(importlib.util.find_spec("bpy") is None, reason="no bpy on this Python"),
]
CONFIG = SceneConfig(width=64, height=48, samples=4, max_mask_mismatch=0.02)
REQUESTS = [Request(Draw("test", 0, 1, 4), idx) for idx in range(5)]


@pytest.fixture(scope="module")
def made():
    return {one.idx: one for one in render_pairs(CONFIG, REQUESTS, workers=2)}


@pytest.fixture(scope="module")
def pairs(made):
    return [decode(made[request.idx].record) for request in REQUESTS]


def test_renders_what_was_asked(pairs):
    for pair in pairs:
        assert pair.image_a.shape == pair.image_b.shape == (48, 64, 3)
        assert pair.image_a.std() > 5, "a flat image"
        assert len(pair.meta["differences"]) == pair.meta["k"]


def test_masks_show_the_planned_things(pairs):
    for pair in pairs:
        plan = plan_from_json(pair.meta)
        assert set(np.unique(pair.mask_a)) == {0} | {thing.id for thing in plan.a}
        assert set(np.unique(pair.mask_b)) == {0} | {thing.id for thing in plan.b}


def test_labels_enclose_what_changed_and_little_else_did(pairs):
    """Strong differences lie in the labels, or are shadows: a small share of the image."""
    for pair in pairs:
        delta = pixel_difference(pair.image_a, pair.image_b)
        inside = np.zeros(delta.shape, bool)
        for x0, y0, x1, y1 in pair.boxes_px.astype(int):
            inside[y0:y1, x0:x1] = True
            assert (delta[y0:y1, x0:x1] > CONFIG.diff_level).any()
        assert ((delta > CONFIG.residual_level) & ~inside).mean() < 0.02


def test_unchanged_things_look_unchanged(pairs):
    """Same seed, camera and lights: only shadows and mirror images may touch the other things."""
    for pair in pairs:
        plan = plan_from_json(pair.meta)
        changed = np.isin(pair.mask_a, plan.changed_ids) | np.isin(pair.mask_b, plan.changed_ids)
        kept = (pair.mask_a == pair.mask_b) & (pair.mask_a > 0) & ~grow(changed, 1)
        delta = pixel_difference(pair.image_a, pair.image_b)[kept]
        assert kept.any()
        assert np.median(delta) <= 2


def test_rendering_again_gives_the_same_bytes(made):
    """Another worker, another order, one worker instead of two."""
    again = list(render_pairs(CONFIG, REQUESTS[:1:-1], workers=1))
    assert len(again) == 3
    for one in again:
        assert one.record == made[one.idx].record


def test_this_process_never_sees_blender(made):
    assert "bpy" not in sys.modules
    assert all(one.renderer.startswith("5.") for one in made.values())
