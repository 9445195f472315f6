"""Scores that are weighted sums of ratios of sums, and their bootstrap intervals over clusters.

Accuracy is correct answers over answers; F1 is 2 tp over 2 tp + fp + fn; the accuracy of pairs has
one entry per pair; HallusionBench's mean is a third of each of three accuracies. So one bootstrap
serves all: draw clusters, whatever shares a picture or a question, with replacement, and sum again.
"""

from typing import NamedTuple

import numpy as np

LEVEL = (0.025, 0.975)  # quantiles of a 95 % interval
_BLOCK = 256  # resamples summed at a time: bounds the memory at any number of clusters


class Ratio(NamedTuple):
    """sum(above) / sum(below), of N entries.

    above, below   f64[N]
    cluster        i64[N]   which cluster an entry is drawn with, counted from 0; entries of all
                            ratios of a benchmark share one numbering
    """

    above: np.ndarray
    below: np.ndarray
    cluster: np.ndarray


Score = tuple[tuple[float, Ratio], ...]  # (weight, ratio): the score is the weighted sum


def ratio(above, below, cluster) -> Ratio:
    """A Ratio of sequences; a number for `below` stands for every entry.

    Raises ValueError where the lengths differ.
    """
    above = np.asarray(above, np.float64)
    below = np.broadcast_to(np.asarray(below, np.float64), above.shape)
    cluster = np.asarray(cluster, np.int64)
    if above.ndim != 1 or cluster.shape != above.shape:
        raise ValueError(f"above {above.shape} and cluster {cluster.shape} are not the same [N]")
    return Ratio(above, below, cluster)


def value(score: Score) -> float:
    """The score itself; a ratio over nothing (no entries, F1 of no yes at all) counts as 0."""
    terms = ((weight, part.above.sum(), part.below.sum()) for weight, part in score)
    return float(sum(weight * above / below for weight, above, below in terms if below))


def cluster_count(*scores: Score) -> int:
    """C: clusters are numbered 0 to C - 1; those without an entry count, too."""
    parts = [part.cluster for score in scores for _, part in score if part.cluster.size]
    return 1 + max((int(cluster.max()) for cluster in parts), default=-1)


def multiplicities(clusters: int, resamples: int, seed: int) -> np.ndarray:
    """u16[R, C]: how often each cluster was drawn, C draws with replacement per resample.

    Every caller with the same three numbers gets the same draws: that makes comparisons paired.
    """
    rng = np.random.default_rng(seed)
    counts = np.empty((resamples, clusters), np.uint16)
    for row in counts:
        row[:] = np.bincount(rng.integers(0, clusters, clusters), minlength=clusters)
    return counts


def resampled(score: Score, counts: np.ndarray) -> np.ndarray:
    """The score of every resample.

    counts   [R, C]   as of `multiplicities`; C at least `cluster_count(score)`
    ->       f64[R]   NaN where a ratio has nothing below it: the resample cannot tell

    A ratio that has nothing below it in the whole sample either is 0, as in `value`.
    """
    resamples, clusters = counts.shape
    total = np.zeros(resamples)
    for weight, part in score:
        if not part.below.sum():
            continue
        sums = np.stack([_by_cluster(side, part.cluster, clusters) for side in part[:2]], axis=-1)
        blocks = [counts[at : at + _BLOCK] @ sums for at in range(0, resamples, _BLOCK)]
        above, below = np.concatenate([*blocks, np.empty((0, 2))]).T
        with np.errstate(divide="ignore", invalid="ignore"):
            total += weight * np.where(below == 0, np.nan, above / below)
    return total


def interval(score: Score, resamples: int, seed: int) -> list[float]:
    """[value, low, high]: the score with its 95 % percentile bootstrap interval over clusters.

    Resamples that cannot tell (`resampled`) are left out; the interval is the value itself where
    resamples is 0. Where no resample differs (nothing or all is right, all clusters are alike, or
    there is one), the draws know nothing of other clusters, and a point would be no interval: each
    end is then as far from the value as Clopper and Pearson's is of so many clusters that are all
    right, or all wrong, in parts of what is left on that side. Of one cluster that is nearly the
    whole scale, of none all of it.
    """
    number = value(score)
    if not resamples:
        return [number, number, number]
    clusters = cluster_count(score)
    draws = resampled(score, multiplicities(clusters, resamples, seed)) if clusters > 1 else None
    if draws is not None and not _all_alike(draws):
        return [number, *limits(draws, number)]
    most = sum(weight for weight, _ in score)
    if not 0 <= number <= most or not all(_is_share(part) for _, part in score):
        return [number, number, number]
    reach = unseen_share(score)
    return [number, number - reach * number, number + reach * (most - number)]


def unseen_share(*scores: Score) -> float:
    """The share that other clusters may have, where those of some scores are all alike: at 95 %,
    of as many as have something below their ratios; 1 where none has."""
    told = [np.unique(part.cluster[part.below > 0]).size for score in scores for _, part in score]
    fewest = min(told, default=0)
    return 1 - LEVEL[0] ** (1 / fewest) if fewest else 1.0


def _all_alike(draws: np.ndarray) -> bool:
    """Whether no draw that can tell differs from the others, but for rounding."""
    draws = draws[np.isfinite(draws)]
    return not draws.size or np.ptp(draws) <= 1e-12 * max(1.0, abs(draws[0]))


def _is_share(part: Ratio) -> bool:
    """Whether a ratio is of some things among others."""
    return bool((part.above >= 0).all() and (part.above <= part.below).all())


def limits(draws: np.ndarray, number: float) -> list[float]:
    """[low, high] of resampled values f64[R], those that cannot tell left out; else the number."""
    draws = draws[np.isfinite(draws)]
    if not draws.size:
        return [number, number]
    return [float(each) for each in np.quantile(draws, LEVEL)]


def _by_cluster(entries: np.ndarray, cluster: np.ndarray, clusters: int) -> np.ndarray:
    return np.bincount(cluster, weights=entries, minlength=clusters)
