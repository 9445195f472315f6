"""Real Blender renders, by workers: labels hold what changed, and bytes repeat."""

import importlib.util
import os
import signal
import sys
from pathlib import Path

import numpy as np
import pytest

from dig_jax.data.records import decode
from dig_jax.data.render.certificates import problems
from dig_jax.data.render.produce import Request
from dig_jax.data.render.supervise import render_pairs
from dig_jax.data.scene.draws import Draw, SplitSpec
from dig_jax.data.scene.labels import grow, pixel_difference
from dig_jax.data.scene.look import SceneConfig
from dig_jax.data.scene.scene import plan_from_json

pytestmark = [
    pytest.mark.bpy,
    pytest.mark.skipif(importlib.util.find_spec("bpy") is None, reason="no bpy on this Python"),
]
CONFIG = SceneConfig(width=64, height=48, samples=4, max_mask_mismatch=0.02)
SAME = Draw("test_same", 0, 0, 0)
NOISE = Draw("test_noise", 0, 1, 1, noise="independent")
JITTER = Draw("test_jitter", 0, 1, 1, camera_jitter_b=0.1)
ODD = [Request(draw, 100 + n) for n, draw in enumerate((SAME, NOISE, JITTER))]
REQUESTS = [Request(Draw("test", 0, 1, 4), idx) for idx in range(5)]


@pytest.fixture(scope="module")
def made():
    return {one.idx: one for one in render_pairs(CONFIG, [*REQUESTS, *ODD], workers=2)}


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


def test_identical_pairs_are_identical(made):
    pair = decode(made[100].record)
    np.testing.assert_array_equal(pair.image_a, pair.image_b)
    assert pair.meta["differences"] == []
    assert pair.meta["residual"]["max"] == 0


@pytest.mark.parametrize("idx", [101, 102])
def test_a_misaligned_pair_differs_everywhere_and_is_certified_on_its_twin(made, idx):
    """Noise touches a good part of the pixels; the certificates were measured without it."""
    pair = decode(made[idx].record)
    assert pair.meta["certified_on"] == "twin"
    untouched = ~np.isin(pair.mask_a, plan_from_json(pair.meta).changed_ids)
    delta = pixel_difference(pair.image_a, pair.image_b)[untouched]
    assert (delta > 0).mean() > 0.2
    assert pair.meta["residual"]["mean"] < delta.mean()
    assert pair.meta["differences"][0]["changed_frac"] >= CONFIG.min_changed


def test_a_moved_camera_moves_the_mask(made):
    pair = decode(made[102].record)
    kept = [t.id for t in plan_from_json(pair.meta).a][:1]
    assert (np.isin(pair.mask_a, kept) != np.isin(pair.mask_b, kept)).any()


def test_every_certificate_holds_when_measured_again(made):
    specs = [SplitSpec(request.draw, pairs=200) for request in [*REQUESTS, *ODD]]
    for spec, request in zip(specs, [*REQUESTS, *ODD], strict=True):
        assert problems(CONFIG, spec, request.idx, made[request.idx].record) == []


@pytest.mark.slow
def test_kill_9_of_a_blender_worker_changes_no_byte(made):
    """A second worker takes over: the first is killed as soon as it has given one pair."""
    again = {}
    for one in render_pairs(CONFIG, REQUESTS[:3], workers=1):
        if not again:
            (worker,) = children()
            os.kill(worker, signal.SIGKILL)
        again[one.idx] = one.record
    assert again == {idx: made[idx].record for idx in range(3)}


def children():
    """Pids of the render workers that this process has started."""
    pids = Path(f"/proc/self/task/{os.getpid()}/children").read_text().split()
    lines = {int(pid): Path(f"/proc/{pid}/cmdline").read_bytes() for pid in pids}
    return [pid for pid, line in lines.items() if b"dig_jax.data.render.blender" in line]


def test_this_process_never_sees_blender(made):
    assert "bpy" not in sys.modules
    assert all(one.renderer.startswith("5.") for one in made.values())
