"""The index table: exact shares, one permutation per epoch, the step as its only state."""

import pickle

import numpy as np
import pytest

from dig_jax.config import Config, CurriculumConfig, DataConfig, GrpoConfig, Stage
from dig_jax.data.feed.curriculum import Curriculum, draw_quota, index_table, stage_of

STAGES = (
    Stage(until=5, weights={"single": 1.0}),
    Stage(until=9, weights={"single": 0.3, "dual": 0.7}),
    Stage(until=20, weights={"single": 0.0, "dual": 0.35, "mixed": 0.65}),
)
SIZES = {"single": 7, "dual": 16, "mixed": 1000}


def config(**changes):
    return Config(
        **{
            "steps": 20,
            "pairs_per_step": 6,
            "seed": 3,
            "curriculum": CurriculumConfig(stages=STAGES),
            "grpo": GrpoConfig(),
            **changes,
        }
    )


@pytest.mark.parametrize("trial", range(40))
def test_every_prefix_holds_each_share_to_less_than_one_draw(trial):
    rng = np.random.default_rng(trial)
    weights = rng.random(rng.integers(2, 12)) ** rng.integers(1, 5)
    weights[0] *= trial % 3 > 0
    picks = draw_quota(400, weights)
    had = np.cumsum(picks[:, None] == np.arange(len(weights)), axis=0)
    due = np.arange(1, 401)[:, None] * weights / weights.sum()
    assert np.abs(had - due).max() < 1
    assert weights[0] > 0 or 0 not in picks


def test_equal_weights_alternate():
    picks = draw_quota(6, np.array([1.0, 1.0]))
    assert sorted(picks[:2]) == sorted(picks[2:4]) == sorted(picks[4:]) == [0, 1]


def test_stages_draw_only_their_own_buckets():
    bucket = index_table(config(), SIZES).bucket.reshape(20, 6)
    assert set(bucket[:5].ravel()) == {0}
    assert set(bucket[5:9].ravel()) == {0, 1}
    assert set(bucket[9:].ravel()) == {1, 2}


def test_each_epoch_of_a_bucket_holds_every_pair_once():
    """An epoch goes on across a stage change: 7 singles, drawn in stages 0 and 1."""
    table = index_table(config(), SIZES)
    singles = table.offset[table.bucket == 0]
    epochs = [singles[i : i + 7] for i in range(0, len(singles) - 6, 7)]
    assert len(epochs) >= 4
    assert all(sorted(epoch) == list(range(7)) for epoch in epochs)
    assert any(list(epoch) != list(epochs[0]) for epoch in epochs[1:])


def test_the_seed_decides_the_order_and_nothing_else():
    one, again, other = (index_table(config(seed=s), SIZES) for s in (3, 3, 4))
    np.testing.assert_array_equal(one.offset, again.offset)
    np.testing.assert_array_equal(one.bucket, other.bucket)
    assert (one.offset != other.offset).any()


def test_a_longer_run_begins_as_the_shorter_one():
    """Steps can be extended in the last stage without moving the draws already made."""
    longer = (*STAGES[:2], Stage(until=30, weights=STAGES[2].weights))
    short = index_table(config(), SIZES)
    long = index_table(config(steps=30, curriculum=CurriculumConfig(stages=longer)), SIZES)
    np.testing.assert_array_equal(short.bucket, long.bucket[: len(short.bucket)])
    np.testing.assert_array_equal(short.offset, long.offset[: len(short.offset)])


def test_a_bucket_that_is_never_drawn_may_be_missing():
    stages = (Stage(until=20, weights={"single": 1.0, "dual": 0.0}),)
    cfg = config(curriculum=CurriculumConfig(stages=stages))
    assert set(index_table(cfg, {"single": 3}).bucket) == {0}


def test_a_drawn_bucket_without_pairs_is_named_with_the_remedy():
    with pytest.raises(ValueError, match=r"bucket 'dual', which has 0; .*dig_jax.data render"):
        index_table(config(), {"single": 3, "mixed": 3})
    index_table(config(), {"single": 3, "dual": 1, "mixed": 3})


def test_the_selection_map_is_the_table_and_can_be_pickled():
    table = index_table(config(), SIZES)
    chosen = pickle.loads(pickle.dumps(Curriculum(table)))
    assert len(chosen) == 120
    assert [chosen[i] for i in range(120)] == list(zip(*map(np.ndarray.tolist, table), strict=True))


def test_stage_of_reads_until_as_the_first_step_outside():
    assert [stage_of(STAGES, step) for step in (0, 4, 5, 8, 9, 19, 50)] == [0, 0, 1, 1, 2, 2, 2]


def test_the_default_config_names_its_buckets():
    assert Config().data.buckets == DataConfig().buckets == ("single", "dual", "mixed")
