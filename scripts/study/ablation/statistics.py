"""Means over seeds and held-out pairs, with intervals that cover the choice of both.

Every seed of every arm answers the same pairs, so scores form a table [seeds, pairs]. A resample
draws pairs with replacement once for all seeds and arms, and seeds with replacement within each
arm (a crossed bootstrap); its statistic is the mean of the drawn cells. Of S seeds it draws S - 1:
the mean of S - 1 draws has expected variance s^2 / S, with s^2 the unbiased variance between
seeds, where S draws would give (S - 1) / S of that and intervals too short by a fifth at S = 3.
With one seed the interval covers the choice of pairs alone.
"""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np


class Interval(NamedTuple):
    """A mean with the 2.5 % and 97.5 % quantiles of its resamples."""

    mean: float
    low: float
    high: float

    def __str__(self) -> str:
        return f"{self.mean:.3f} [{self.low:.3f}, {self.high:.3f}]"


def mean_interval(scores: np.ndarray, *, resamples: int, seed: int = 0) -> Interval:
    """Mean over seeds and pairs.

    scores   f64[S, N]   of S seeds on the same N pairs
    """
    drawn = resampled_means(scores, resamples=resamples, seed=seed, arm=0)
    return _interval(scores.mean(), drawn)


def difference_interval(
    scores: np.ndarray, reference: np.ndarray, *, resamples: int, seed: int = 0
) -> Interval:
    """Mean of `scores` minus mean of `reference`, on the same pairs, each with its own seeds.

    scores      f64[S, N]
    reference   f64[R, N]
    """
    if scores.shape[1] != reference.shape[1]:
        raise ValueError(
            f"{scores.shape[1]} and {reference.shape[1]} pairs cannot be compared; evaluate both "
            f"on one split"
        )
    ours = resampled_means(scores, resamples=resamples, seed=seed, arm=0)
    theirs = resampled_means(reference, resamples=resamples, seed=seed, arm=1)
    return _interval(scores.mean() - reference.mean(), ours - theirs)


def resampled_means(scores: np.ndarray, *, resamples: int, seed: int, arm: int) -> np.ndarray:
    """f64[resamples]: the mean over the drawn pairs of the drawn seeds.

    scores   f64[S, N], S, N >= 1
    seed     of the pairs' draws: equal seeds draw equal pairs, whatever the arm
    arm      tells arms' draws of seeds apart
    """
    if scores.ndim != 2 or 0 in scores.shape:
        raise ValueError(f"scores have shape {scores.shape}; give [seeds, pairs], none of them 0")
    seeds, pairs = scores.shape
    draws = np.random.default_rng((seed, 0)).integers(0, pairs, (resamples, pairs))
    means = np.stack([row[draws].mean(-1) for row in scores])  # [S, resamples]
    if seeds == 1:
        return means[0]
    rng = np.random.default_rng((seed, 1, arm))
    chosen = rng.integers(0, seeds, (resamples, seeds - 1))
    return means[chosen, np.arange(resamples)[:, None]].mean(-1)


def scores_of(exams: Sequence[list[dict]], metric: str, n_true: int | None = None) -> np.ndarray:
    """f64[S, N]: a metric of every pair, one line per seed.

    exams    the `rows` of eval_<name>.json of each seed
    n_true   only pairs with so many true differences; None = all

    Raises ValueError when the seeds did not answer the same pairs.
    """
    rows = [[r for r in rows if n_true in (None, r["n_true"])] for rows in exams]
    ids = {tuple(row["pair_id"] for row in some) for some in rows}
    if len(ids) != 1:
        raise ValueError("seeds were evaluated on different pairs; evaluate them again")
    return np.array([[row[metric] for row in some] for some in rows], np.float64)


def _interval(mean: float, drawn: np.ndarray) -> Interval:
    low, high = np.quantile(drawn, [0.025, 0.975])
    return Interval(float(mean), float(low), float(high))
