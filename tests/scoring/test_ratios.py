"""Ratios of sums: hand-worked values, and a bootstrap that draws clusters whole."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from dig_jax.scoring.ratios import (
    cluster_count,
    interval,
    multiplicities,
    ratio,
    resampled,
    value,
)


def accuracy(correct, cluster):
    return ((1.0, ratio(correct, 1, cluster)),)


def test_a_score_is_the_weighted_sum_of_its_ratios():
    """F1 of 2 tp, 1 fp, 1 fn is 4/6; a third of it and two thirds of accuracy 1/2."""
    f1 = ratio([2, 2, 0, 0], [2, 2, 1, 1], [0, 1, 2, 3])
    half = ratio([1, 0], 1, [0, 1])
    assert value(((1 / 3, f1), (2 / 3, half))) == pytest.approx(4 / 18 + 1 / 3)


def test_a_ratio_of_nothing_is_zero():
    nothing = ratio([0, 0], [0, 0], [0, 1])
    assert value(((1.0, nothing),)) == 0.0
    for empty in (nothing, ratio([], 1, [])):  # nothing is known of it, and no point is told
        assert interval(((1.0, empty),), 50, 0) == [0.0, 0.0, 1.0]
        assert interval(((1.0, empty),), 0, 0) == [0.0, 0.0, 0.0]


def test_where_all_clusters_are_alike_an_interval_is_no_point():
    """Twenty questions of one picture, or ten pairs each half right: no draw differs."""
    reach = 1 - 0.025 ** (1 / 10)
    pairs = accuracy([1.0, 0.0] * 10, np.arange(20) // 2)
    assert interval(pairs, 200, 0) == pytest.approx([0.5, 0.5 - 0.5 * reach, 0.5 + 0.5 * reach])
    for right in (0, 5, 20):
        share = right / 20
        one = accuracy((np.arange(20) < right).astype(float), np.zeros(20, int))
        wide = [share, share * 0.025, share + 0.975 * (1 - share)]
        assert interval(one, 200, 0) == pytest.approx(wide)
    (part,) = (part for _, part in one)
    assert interval(((2000.0, part),), 200, 0) == pytest.approx([2000, 50, 2000])


def test_a_resample_is_the_score_of_the_clusters_that_it_drew():
    """Each resample equals the value of the entries, repeated as often as drawn."""
    rng = np.random.default_rng(0)
    above, below = rng.random(40), 1 + rng.random(40)
    cluster = rng.integers(0, 7, 40)
    counts = multiplicities(7, 300, 1)
    found = resampled(
        ((2.0, ratio(above, below, cluster)), (1.0, ratio(above, 1, cluster))), counts
    )
    for row, got in zip(counts, found, strict=True):
        times = row[cluster]
        want = 2 * (above @ times) / (below @ times) + (above @ times) / times.sum()
        assert got == pytest.approx(want, rel=1e-12)


def test_draws_are_of_all_clusters_and_repeat():
    counts = multiplicities(11, 64, 5)
    assert (counts.sum(1) == 11).all()
    assert (counts == multiplicities(11, 64, 5)).all()
    assert (counts != multiplicities(11, 64, 6)).any()


def test_questions_of_one_picture_do_not_narrow_the_interval():
    """Ten questions that always agree are one observation, whichever way they are counted."""
    rng = np.random.default_rng(2)
    pictures = rng.integers(0, 2, 60).astype(float)
    once = interval(accuracy(pictures, np.arange(60)), 500, 0)
    tenfold = interval(accuracy(np.repeat(pictures, 10), np.repeat(np.arange(60), 10)), 500, 0)
    apart = interval(accuracy(np.repeat(pictures, 10), np.arange(600)), 500, 0)
    assert tenfold == pytest.approx(once, abs=1e-12)
    assert apart[2] - apart[1] < 0.5 * (once[2] - once[1])


def test_the_interval_of_an_accuracy_is_as_wide_as_theory_says():
    """V*: 191 questions at 80 %: 1.96 sqrt(.8 * .2 / 191) = .0567 on each side."""
    correct = (np.arange(191) < 153).astype(float)
    number, low, high = interval(accuracy(correct, np.arange(191)), 4000, 0)
    assert number == pytest.approx(153 / 191)
    assert (high - low) / 2 == pytest.approx(0.0567, rel=0.08)


def test_a_resample_that_misses_a_category_is_left_out():
    """One picture in a category: without it there is no accuracy to add, and none is made up."""
    rare = ratio([1.0], 1, [0])
    rest = ratio([0.0] + [1.0] * 8, 1, np.arange(1, 10))
    score = ((0.5, rare), (0.5, rest))
    draws = resampled(score, multiplicities(10, 400, 0))
    assert np.isnan(draws).any()
    told = np.quantile(draws[np.isfinite(draws)], (0.025, 0.975))
    assert interval(score, 400, 0)[1:] == pytest.approx(told)


def test_of_nothing_or_all_right_the_open_end_is_clopper_and_pearsons():
    """20 of 20: a share p is believed where p^20 is .025 or more; a mirror of 0 of 20. Clusters
    count, not questions; a weight scales."""
    reach = 1 - 0.025 ** (1 / 20)
    assert reach == pytest.approx(0.1684, abs=1e-4)  # of published tables
    all_right, none = (accuracy([x] * 40, np.arange(40) // 2) for x in (1.0, 0.0))
    assert interval(all_right, 100, 0) == pytest.approx([1, 1 - reach, 1])
    assert interval(none, 100, 0) == pytest.approx([0, 0, reach])
    (part,) = (part for _, part in none)
    assert interval(((2000.0, part),), 100, 0) == pytest.approx([0, 0, 2000 * reach])
    one_wrong = accuracy([0.0] + [1.0] * 19, np.arange(20))
    assert interval(one_wrong, 4000, 0)[1] == pytest.approx(0.85)  # 3 wrong of B(20, .05): 2.5 %
    some = ((1.0, ratio([1.0] * 5 + [0.0] * 15, [1.0] * 5 + [0.0] * 15, np.arange(20))),)
    assert interval(some, 100, 0) == pytest.approx([1, 0.025 ** (1 / 5), 1])  # 5 of 20 can tell


@settings(deadline=None, max_examples=40)
@given(st.lists(st.integers(0, 1), min_size=1, max_size=30), st.integers(0, 2**31))
def test_the_value_lies_in_the_range_of_its_resamples(correct, seed):
    score = accuracy(correct, np.arange(len(correct)))
    number, low, high = interval(score, 50, seed)
    assert 0 <= low <= high <= 1
    assert number == pytest.approx(np.mean(correct))
    assert cluster_count(score) == len(correct)


def test_entries_and_clusters_must_be_as_many():
    with pytest.raises(ValueError, match="not the same"):
        ratio([1, 0], 1, [0])
