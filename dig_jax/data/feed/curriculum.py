"""The curriculum is a function of the index: which bucket, which pair, for every draw of a run.

One table is computed once from (stages, steps, seed). Draw `i` belongs to step `i // B`; nothing
is remembered between draws, so the step alone says where the data stand.
"""

from collections.abc import Mapping, Sequence
from typing import NamedTuple

import grain
import numpy as np

from dig_jax.config import Config, Stage


class IndexTable(NamedTuple):
    """bucket, offset i32[steps*B]: the pair of every draw, in order."""

    bucket: np.ndarray
    offset: np.ndarray


class Curriculum(grain.transforms.DatasetSelectionMap):
    """An `IndexTable` as Grain wants it: index -> (dataset, index within it)."""

    def __init__(self, table: IndexTable):
        self._table = table

    def __len__(self) -> int:
        return len(self._table.bucket)

    def __getitem__(self, index: int) -> tuple[int, int]:
        return int(self._table.bucket[index]), int(self._table.offset[index])


def stage_of(stages: Sequence[Stage], step: int) -> int:
    """Index of the stage that `step` belongs to; the last stage for steps beyond the end."""
    untils = [stage.until for stage in stages]
    return min(int(np.searchsorted(untils, step, side="right")), len(untils) - 1)


def index_table(cfg: Config, sizes: Mapping[str, int], attempt: int = 0) -> IndexTable:
    """The pair of each of the steps * B draws of a run.

    sizes    pairs available in each bucket, >= 1 for every bucket a stage draws from
    attempt  other orders of the same pairs, 1 and up, for steps that draw again

    Within a stage every prefix holds each bucket's share to less than one pair; a bucket's
    pairs come as one seeded permutation per epoch, carried over from stage to stage.
    Raises ValueError naming a bucket without pairs.
    """
    bucket = _buckets_in_order(cfg)
    offset = np.zeros_like(bucket)
    seed = cfg.seed + (attempt << 64)  # far from any seed that a user may give
    for number, name in enumerate(cfg.data.buckets):
        draws = np.flatnonzero(bucket == number)
        if len(draws) and sizes.get(name, 0) < 1:
            raise ValueError(
                f"curriculum draws {len(draws)} pairs from bucket {name!r}, which has "
                f"{sizes.get(name, 0)}; make some with `python -m dig_jax.data render` or set "
                f"its weight to 0"
            )
        offset[draws] = _epochs(len(draws), sizes.get(name, 0), seed=(seed, number))
    return IndexTable(bucket, offset)


def draw_quota(count: int, weights: np.ndarray) -> np.ndarray:
    """i32[count]: indices whose prefixes hold each weight's share to less than one draw.

    weights   f64[buckets]   >= 0, not all zero; a zero weight is never drawn

    Each draw goes to the bucket whose next pair is due first, among those not yet ahead of
    their share (Tijdeman's chairman assignment, which stays below 1 in every prefix; taking
    the bucket furthest behind reached 1.016 in 300 random trials with 2 to 11 buckets).
    """
    share = np.asarray(weights, np.float64) / np.sum(weights)
    had = np.zeros(len(share), np.int64)
    picks = np.empty(count, np.int32)
    for n in range(count):
        is_open = had < share * (n + 1)
        due = np.divide(had + 1, share, out=np.full(len(share), np.inf), where=is_open)
        picks[n] = np.argmin(due)
        had[picks[n]] += 1
    return picks


def _buckets_in_order(cfg: Config) -> np.ndarray:
    parts, first = [], 0
    for stage in cfg.curriculum.stages:
        weights = [stage.weights.get(name, 0.0) for name in cfg.data.buckets]
        parts.append(draw_quota((stage.until - first) * cfg.pairs_per_step, np.array(weights)))
        first = stage.until
    return np.concatenate(parts)


def _epochs(count: int, size: int, *, seed: tuple[int, int]) -> np.ndarray:
    """i32[count]: permutations of range(size), one per epoch, cut to `count`."""
    if not count:
        return np.zeros(0, np.int32)
    epochs = range(-(-count // size))
    orders = [np.random.default_rng((*seed, epoch)).permutation(size) for epoch in epochs]
    return np.concatenate(orders)[:count].astype(np.int32)
