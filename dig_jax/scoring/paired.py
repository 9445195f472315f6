"""Two sides answered the same questions: how large is the difference, and is it more than noise?

All of it compares sums over clusters (`ratios`): what is drawn together is swapped together. With
contributions u of the clusters, which sum to the difference, a permutation under "both sides are
the same" has the variance sum(u^2), and the smallest difference that a two-sided test at 5 % finds
with a power of 80 % solves

    d = z(.975) sqrt(V) + z(.8) sqrt(V - d^2 / C),    V = max(sum(u^2), d sum(u^2) / sum(|u|))

over C clusters. For questions that stand alone it is the formula of McNemar's test: u is 1/N where
only the second side is right, -1/N where only the first is, so V is the discordant share over N.
A difference takes at least as many flips as it is large, which the second term of V says. Where
no cluster moved, nothing is known of the flips, and every cluster is taken to flip: the worst case.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from dig_jax.scoring.ratios import (
    Score,
    cluster_count,
    limits,
    multiplicities,
    resampled,
    unseen_share,
    value,
)

ALPHA = 0.05
_Z_TEST, _Z_POWER = 1.959964, 0.841621  # normal quantiles of 1 - 5 % / 2 and of a power of 80 %
_FEWEST = 6  # clusters: of fewer, even one-sided flips have p > 5 % (2 / 2^5)
_ALL_SWAPS = 13  # clusters that moved: up to so many, every one of the 2^n swaps is looked at
_BLOCK = 256  # swaps summed at a time: bounds the memory at any number of clusters
_SAME = 1e-9  # of the largest difference that there can be: closer than this is a tie


class Paired(NamedTuple):
    """A comparison of two sides; differences are second - first.

    low, high   95 % bootstrap interval of the difference: both sides by the same draws; of one
                cluster nearly the whole scale
    test        "McNemar" (exact), "exact permutation" (all swaps) or "permutation" (drawn ones)
    p           two-sided
    clusters    how many are drawn or swapped
    moved       those whose sums are not the same on both sides
    could_show  smallest difference that could be shown, in the score's units, before any correction
                for several benchmarks; infinite where no difference could
    """

    first: float
    second: float
    difference: float
    low: float
    high: float
    test: str
    p: float
    clusters: int
    moved: int
    could_show: float


def paired(first: Score, second: Score, *, resamples: int, seed: int) -> Paired:
    """Compares two scores of one rule over the same clusters.

    resamples   bootstrap draws, and permutations where they are not all looked at

    Swapping the sides negates the difference and its interval and keeps p. Raises ValueError where
    the scores are not of one rule.
    """
    _check(first, second)
    clusters = cluster_count(first, second)
    one, two = value(first), value(second)
    low = high = two - one
    if clusters > 1 and resamples:
        counts = multiplicities(clusters, resamples, seed)
        low, high = limits(resampled(second, counts) - resampled(first, counts), two - one)
    elif resamples:  # one cluster, whose resamples are all itself: nothing is known of others
        most, reach = sum(abs(weight) for weight, _ in first), unseen_share(first, second)
        low, high = low - reach * (most + low), high + reach * (most - high)
    ours, theirs = cluster_sums(first, clusters), cluster_sums(second, clusters)
    moved = int(np.any(ours != theirs, axis=(1, 2)).sum())
    outcome = _single_questions(first, second)
    if outcome is None:
        test = "exact permutation" if moved <= _ALL_SWAPS else "permutation"
        p = swap_p(_weights(first), ours, theirs, swaps=resamples, seed=seed)
    else:
        test, p = "McNemar", mcnemar(*outcome)
    shown = smallest_shown(_weights(first), ours, theirs)
    return Paired(one, two, two - one, low, high, test, p, clusters, moved, shown)


def cluster_sums(score: Score, clusters: int) -> np.ndarray:
    """f64[C, K, 2]: above and below of each of K ratios, summed in each cluster."""
    sums = np.zeros((clusters, len(score), 2))
    for k, (_, part) in enumerate(score):
        for side, entries in enumerate(part[:2]):
            sums[:, k, side] = np.bincount(part.cluster, weights=entries, minlength=clusters)
    return sums


def mcnemar(gained: int, lost: int) -> float:
    """Two-sided exact p of so many flips each way: each way is as likely as the other."""
    flips, fewer = gained + lost, min(gained, lost)
    ways, total = 1, 0
    for k in range(fewer + 1):
        total += ways
        ways = ways * (flips - k) // (k + 1)
    return min(1.0, 2 * total / 2**flips)


def swap_p(
    weights: np.ndarray, first: np.ndarray, second: np.ndarray, *, swaps: int, seed: int
) -> float:
    """Two-sided p of the difference when the sides of each cluster may be swapped.

    weights         f64[K]
    first, second   f64[C, K, 2]   of `cluster_sums`
    swaps           how many are drawn where there are too many to look at all

    Drawn swaps count the observed one too, so p is never 0 and never too small on average.
    """
    delta = second - first
    delta = delta[np.any(delta != 0, axis=(1, 2))]
    moved = len(delta)
    if not moved:
        return 1.0
    totals = first.sum(0), second.sum(0)
    least = abs(_difference(weights, *totals)) - _SAME * np.abs(weights).sum()
    exact = moved <= _ALL_SWAPS
    rng, count = np.random.default_rng(seed), 2**moved if exact else swaps
    extreme = 0
    for start in range(0, count, _BLOCK):
        size = min(_BLOCK, count - start)
        if exact:
            chosen = (np.arange(start, start + size)[:, None] >> np.arange(moved)) & 1
        else:
            chosen = rng.integers(0, 2, (size, moved), np.int8)
        shift = np.tensordot(chosen.astype(np.float64), delta, axes=1)
        found = _difference(weights, totals[0] + shift, totals[1] - shift)
        extreme += int((np.abs(found) >= least).sum())
    return extreme / count if exact else (extreme + 1) / (count + 1)


def smallest_shown(weights: np.ndarray, first: np.ndarray, second: np.ndarray) -> float:
    """The smallest difference that so many clusters could show, as the module says.

    Arguments as of `swap_p`. Infinite where it would be more than all there is.
    """
    clusters = len(first)
    if clusters < _FEWEST:
        return math.inf
    each = np.abs(contributions(weights, first, second))
    if not each.any():
        each = _largest_contributions(weights, (first + second) / 2)
    if not each.any():  # nothing is scored
        return math.inf
    spread = 1 - (_Z_TEST**2 - _Z_POWER**2) / clusters
    factor = _Z_TEST + _Z_POWER * math.sqrt(max(spread, 0.0))
    factor /= 1 + _Z_POWER**2 / clusters
    squares = float((each**2).sum())
    shown = max(factor * math.sqrt(squares), factor**2 * squares / float(each.sum()))
    return shown if shown <= np.abs(weights).sum() else math.inf


def contributions(weights: np.ndarray, first: np.ndarray, second: np.ndarray) -> np.ndarray:
    """f64[C]: what each cluster adds to the difference, to first order about the sides' middle."""
    middle, delta = (first + second).sum(0) / 2, second - first
    above, below = middle[:, 0], np.where(middle[:, 1] == 0, np.inf, middle[:, 1])
    return ((delta[..., 0] - above / below * delta[..., 1]) / below) @ weights


def _largest_contributions(weights: np.ndarray, middle: np.ndarray) -> np.ndarray:
    """f64[C]: a cluster's, if all of it were right on one side and wrong on the other."""
    below = middle[..., 1].sum(0)
    return (middle[..., 1] / np.where(below == 0, np.inf, below)) @ np.abs(weights)


def holm(ps: Sequence[float]) -> list[float]:
    """Holm's p values: as many tests were made as there are; in the order given."""
    order, found, least = np.argsort(ps, kind="stable"), [0.0] * len(ps), 0.0
    for rank, at in enumerate(order):
        least = max(least, min(1.0, (len(ps) - rank) * ps[at]))
        found[at] = least
    return found


def _weights(score: Score) -> np.ndarray:
    return np.array([weight for weight, _ in score], np.float64)


def _check(first: Score, second: Score) -> None:
    if [weight for weight, _ in first] != [weight for weight, _ in second]:
        raise ValueError(
            f"the sides are scored by two rules: {len(first)} and {len(second)} weighted ratios"
        )


def _difference(weights: np.ndarray, first: np.ndarray, second: np.ndarray) -> np.ndarray:
    """Second score - first of summed sides f64[..., K, 2]; nothing below counts as 0."""
    ratios = [
        side[..., 0] / np.where(side[..., 1] == 0, np.inf, side[..., 1]) for side in (first, second)
    ]
    return (ratios[1] - ratios[0]) @ weights


def _single_questions(first: Score, second: Score) -> tuple[int, int] | None:
    """(gained, lost) of an accuracy over clusters of one 0/1 entry each; None for any other."""
    if len(first) != 1:
        return None
    parts = first[0][1], second[0][1]
    for part in parts:
        single = len(np.unique(part.cluster)) == len(part.cluster)
        if not (single and (part.below == 1).all() and np.isin(part.above, (0, 1)).all()):
            return None
    if not np.array_equal(*(np.sort(part.cluster) for part in parts)):
        return None
    ours, theirs = (part.above[np.argsort(part.cluster)] for part in parts)
    return int((theirs > ours).sum()), int((theirs < ours).sum())
