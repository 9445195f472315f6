"""Advantages: the published formulas by hand, and what must hold for all of them."""

import dataclasses

import jax
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from dig_jax.config import GrpoConfig
from dig_jax.learner.advantage import flat_groups, group_advantage

KINDS = ("group", "batch", "none", "leave_one_out")
EVERY = pytest.mark.parametrize("kind", KINDS)
jitted = jax.jit(group_advantage, static_argnums=0)


def of(reward, **choices):
    return jitted(GrpoConfig(**choices), np.float32(reward))


@EVERY
@pytest.mark.parametrize("size", [2, 3, 5, 7, 8, 16])
def test_a_flat_group_has_exactly_no_advantage(kind, size):
    """In float32 the mean of five times 0.1 is not 0.1: (r - mean) / std would be noise."""
    values = [0.1, 1 / 3, 0.7, 2.3, 1e-3, -0.1, 0.0]
    reward = np.float32([*(np.full(size, v) for v in values), np.arange(size)])
    advantage, flat = of(reward, advantage=kind)
    np.testing.assert_array_equal(flat, [True] * len(values) + [False])
    np.testing.assert_array_equal(advantage[:-1], np.zeros((len(values), size)))
    assert (advantage[-1] != 0).sum() >= size - 1


REWARD = [[0.0, 0.0, 3.0], [1.0, 2.0, 3.0]]
BY_HAND = {
    # spreads sqrt(3) and 1 with ddof 1, sqrt(2) and sqrt(2/3) with ddof 0
    ("group", 1): [[-(3**-0.5), -(3**-0.5), 2 * 3**-0.5], [-1, 0, 1]],
    ("group", 0): [[-(2**-0.5), -(2**-0.5), 2**0.5], [-(1.5**0.5), 0, 1.5**0.5]],
    # the six rewards have mean 1.5 and squared deviations summing to 9.5
    ("batch", 1): np.array([[-1, -1, 2], [-1, 0, 1]]) / (9.5 / 5) ** 0.5,
    ("batch", 0): np.array([[-1, -1, 2], [-1, 0, 1]]) / (9.5 / 6) ** 0.5,
    ("none", 1): [[-1, -1, 2], [-1, 0, 1]],
    # of the others: 1.5, 1.5, 0 and 2.5, 2, 1.5
    ("leave_one_out", 1): [[-1.5, -1.5, 3], [-1.5, 0, 1.5]],
}


@pytest.mark.parametrize(("kind", "ddof"), BY_HAND)
def test_advantages_by_hand(kind, ddof):
    advantage, flat = of(REWARD, advantage=kind, ddof=ddof)
    # eps 1e-6 beside a spread of 0.8 or more: relative error 1.3e-6
    np.testing.assert_allclose(advantage, BY_HAND[kind, ddof], rtol=3e-6, atol=1e-6)
    assert not flat.any()


def test_parts_are_normalised_each_on_its_own_by_hand():
    """GDPO: the rewards above, and a second part that is flat in the first pair; weights 1, 2."""
    parts = np.stack([REWARD, [[7.0, 7, 7], [0, 0, 3]]], axis=-1)
    cfg = GrpoConfig(advantage="parts")
    found, flat = group_advantage(cfg, jax.numpy.asarray(parts, np.float32), (1.0, 2.0))
    root = 3**-0.5
    value = np.array([[-root, -root, 2 * root], [-1 - 2 * root, -2 * root, 1 + 4 * root]])
    np.testing.assert_allclose(found, value / value.std(ddof=1), rtol=3e-6)
    assert not flat.any()


def test_a_group_is_flat_in_parts_where_all_parts_are():
    """Equal sums of parts that differ are not flat, which is what parts are for."""
    parts = np.float32([[[1, 0], [0, 1], [1, 0]], [[2, 3], [2, 3], [2, 3]]])
    found, flat = group_advantage(GrpoConfig(advantage="parts"), jax.numpy.asarray(parts), (1, 3))
    assert flat.tolist() == [False, True]
    np.testing.assert_array_equal(found[1], 0)
    assert (np.abs(found[0]) > 0.1).all()


@EVERY
@given(
    st.lists(st.lists(st.integers(0, 12), min_size=4, max_size=4), min_size=2, max_size=2),
    st.integers(-5, 5),
    st.permutations(range(4)),
)
@settings(max_examples=60, deadline=None)
def test_a_shift_changes_nothing_and_answers_may_come_in_any_order(kind, rows, shift, order):
    """Rewards are quarters, so that float32 holds them and their sums exactly."""
    reward = np.float32(rows) / 4
    advantage = np.asarray(of(reward, advantage=kind)[0])
    moved = np.asarray(of(reward + np.float32(shift), advantage=kind)[0])
    # means and squares of numbers up to 8: a few ulp, over spreads of 0.1 at the least
    np.testing.assert_allclose(moved, advantage, atol=2e-5)
    np.testing.assert_allclose(advantage.sum(-1), 0, atol=1e-5)
    mixed = np.asarray(of(reward[:, list(order)], advantage=kind)[0])
    np.testing.assert_allclose(mixed, advantage[:, list(order)], atol=2e-5)


def test_only_the_group_scale_makes_all_groups_equally_loud():
    quiet = np.float32([[0.0, 0.1], [0.0, 1.0]])
    group = of(quiet, advantage="group")[0]
    np.testing.assert_allclose(group[0], group[1], rtol=2e-5)  # eps 1e-6 of a spread of 0.07
    for kind in KINDS[1:]:
        scale = of(quiet, advantage=kind)[0]
        np.testing.assert_allclose(scale[1], 10 * scale[0], rtol=1e-5)


def test_min_spread_widens_what_is_flat():
    reward = np.float32([[0.0, 0.25], [0.0, 0.75]])
    np.testing.assert_array_equal(flat_groups(reward, 0.25), [True, False])
    advantage, flat = of(reward, min_spread=0.25)
    np.testing.assert_array_equal(flat, [True, False])
    np.testing.assert_array_equal(advantage[0], 0)


def test_a_filter_on_the_mean_would_keep_flat_groups():
    """The spread is what decides: a group of equal middling rewards says nothing."""
    reward = np.float32([[0.5, 0.5, 0.5], [0.0, 0.0, 1.0]])
    assert ((0.01 < reward.mean(-1)) & (reward.mean(-1) < 0.99)).all()
    np.testing.assert_array_equal(flat_groups(reward, 0.0), [True, False])


def test_every_choice_of_the_config_is_known():
    field = next(f for f in dataclasses.fields(GrpoConfig) if f.name == "advantage")
    assert field.type.__args__ == (*KINDS, "parts")
