"""Drawing again where a group says nothing, and what is left when a step goes wrong."""

import json
from dataclasses import replace

import jax.numpy as jnp
import numpy as np
import pytest

from dig_jax.boxes import BoxSet
from dig_jax.config import Config
from dig_jax.data.feed.batch import Batch
from dig_jax.reward.parse import parse
from dig_jax.reward.reward import Reward
from dig_jax.run.experience import Experience, draw_until_spread
from dig_jax.run.guard import stop_if_not_finite
from dig_jax.sampler.rollout import Rollout

PAIRS, GROUP, TOKENS = 3, 2, 4


def drawn(number: int, total) -> Experience:
    """A draw whose every part says which draw it is."""
    shape = (PAIRS, GROUP, TOKENS)
    rollout = Rollout(
        tokens=np.full(shape, number, np.int32), valid=np.ones(shape, bool),
        ended=np.ones(shape[:2], bool), logp=np.full(shape, -float(number), np.float32),
    )  # fmt: skip
    truth = BoxSet(boxes=np.zeros((PAIRS, 1, 4), np.float32), valid=np.ones((PAIRS, 1), bool))
    batch = Batch(
        images=(), truth=truth, kind=np.zeros((PAIRS, 1), np.int32),
        pair_id=np.arange(PAIRS, dtype=np.int32) + 10 * number,
        bucket=np.zeros(PAIRS, np.int32), real=np.ones(PAIRS, bool),
    )  # fmt: skip
    total = np.float32(total)
    return Experience(
        images=np.full((PAIRS, 2, 2, 2, 3), number, np.uint8), rollout=rollout, host=rollout,
        batch=batch, texts=[[f"draw {number}"] * GROUP] * PAIRS,
        reward=Reward(total=total, parts={"f1": total / 2}),
        parsed=[[parse("[]")] * GROUP] * PAIRS,
    )  # fmt: skip


FLAT, SPREAD = [1.0, 1.0], [0.0, 1.0]
FIRST = [SPREAD, FLAT, FLAT]


def test_flat_groups_alone_are_replaced_in_all_their_parts():
    later = {1: [FLAT, SPREAD, FLAT], 2: [SPREAD, FLAT, SPREAD]}
    mixed, tries = draw_until_spread(
        drawn(0, FIRST), lambda n: drawn(n, later[n]), tries=5, min_spread=0.0
    )
    assert tries == 2, "it stops when no group is flat"
    np.testing.assert_array_equal(mixed.batch.pair_id, [0, 11, 22])
    assert [row[0] for row in mixed.texts] == ["draw 0", "draw 1", "draw 2"]
    for part in (mixed.images, mixed.rollout.tokens, mixed.host.tokens):
        np.testing.assert_array_equal(np.asarray(part)[:, 0].ravel()[:: part[0, 0].size], [0, 1, 2])
    np.testing.assert_array_equal(mixed.reward.total, [SPREAD] * 3)
    np.testing.assert_array_equal(mixed.reward.parts["f1"], np.array([SPREAD] * 3) / 2)


def test_tries_are_bounded_and_what_is_still_flat_stays():
    asked = []

    def again(number):
        asked.append(number)
        return drawn(number, [FLAT] * PAIRS)

    mixed, tries = draw_until_spread(drawn(0, FIRST), again, tries=3, min_spread=0.0)
    assert asked == [1, 2, 3]
    assert tries == 3
    np.testing.assert_array_equal(mixed.reward.total[0], SPREAD)
    np.testing.assert_array_equal(mixed.reward.total[1:], [FLAT] * 2)


def test_nothing_is_drawn_again_unless_asked():
    def never(number):
        raise AssertionError(number)

    first = drawn(0, FIRST)
    assert draw_until_spread(first, never, tries=0, min_spread=0.0) == (first, 0)
    full = drawn(0, [SPREAD] * PAIRS)
    assert draw_until_spread(full, never, tries=4, min_spread=0.0) == (full, 0)


# ---- a step that is not finite


def answers(value):
    return {"advantage": jnp.full((PAIRS, GROUP), value), "policy": jnp.zeros((1, PAIRS, GROUP))}


def test_a_finite_step_leaves_nothing_behind(tmp_path):
    cfg = replace(Config(), run_dir=str(tmp_path))
    stop_if_not_finite(cfg, 3, drawn(1, FIRST), {"finite": 1.0, "loss": 0.5}, answers(0.0))
    assert not list(tmp_path.iterdir())


def test_a_step_that_is_not_finite_stops_with_its_pairs_texts_and_losses(tmp_path):
    cfg = replace(Config(), run_dir=str(tmp_path))
    metrics = {"finite": np.float32(0), "loss": np.float32("nan"), "grad_norm": np.float32(1)}
    with pytest.raises(FloatingPointError, match=r"step 7: loss not finite; nothing was updated"):
        stop_if_not_finite(cfg, 7, drawn(1, FIRST), metrics, answers(np.inf))
    dump = json.loads((tmp_path / "not_finite" / "step_000007.json").read_text())
    assert dump["pair_id"] == [10, 11, 12]
    assert dump["bucket"] == ["single"] * PAIRS
    assert dump["texts"] == [["draw 1"] * GROUP] * PAIRS
    assert dump["reward"] == FIRST
    assert dump["metrics"]["loss"] == "nan"
    assert dump["answers"]["advantage"] == [["inf"] * GROUP] * PAIRS
    assert np.shape(dump["answers"]["policy"]) == (1, PAIRS, GROUP)
