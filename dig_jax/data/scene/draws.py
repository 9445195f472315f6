"""What the pairs of a split are drawn from, and how many there are."""

from __future__ import annotations

import difflib
from dataclasses import dataclass
from typing import Literal

from dig_jax.common import typed
from dig_jax.common.fields import SEED, number

THINGS = 100  # of a scene
# A split's id enters every random seed, so no two splits share a scene at equal --seed.
# Evaluation splits live in their own range; ids are never reused or renumbered.
SPLIT_IDS = {
    "base": 1,
    "single": 2,
    "dual": 3,
    "mixed": 4,
    "test": 99,
    "dev": 1001,
    "heldout": 1002,
    "test_single": 1003,
    "test_dual": 1004,
    "test_mixed": 1005,
    "test_novel": 1006,
    "test_same": 1007,
    "test_noise": 1008,
    "test_jitter": 1009,
}


@dataclass(frozen=True)
class Draw:
    """What the pairs of a split are drawn from; equal draws and looks give equal pairs."""

    split: str  # a name of SPLIT_IDS: part of every seed
    seed: int = number(0, least=0, most=SEED)
    k_low: int = number(1, least=0, most=THINGS)  # differences, uniform on k_low..k_high (2)
    k_high: int = number(1, least=0, most=THINGS)
    combos: Literal["all", "seen", "novel"] = "all"  # colour x shape of the things (1)
    noise: Literal["shared", "independent"] = "shared"  # of the two images' renders
    camera_jitter_b: float = number(0.0, least=0, most=10)  # units that B's camera is off (3)

    # (1) seen: none of the look's held-out combos is ever shown; novel: every changed thing is
    #     one of them in image A (an added one in B), all other things are seen ones.
    # (2) Per pair; 0 = an identical pair.
    # (3) At most, on each axis.

    def __post_init__(self):
        typed.check_fields(self, "draw")
        split_id(self.split)
        low, high = self.k_low, self.k_high
        ok = low <= high
        typed.require(ok, "draw.k_low", low, f"is above k_high={high}", f"use {high} or less")


@dataclass(frozen=True)
class SplitSpec:
    """What a split holds; equal specs and looks give equal shards."""

    draw: Draw
    pairs: int = number(least=1, most=10**7)
    shard_pairs: int = number(64, least=1, most=10**6)  # records of one file

    def __post_init__(self):
        typed.check_fields(self, self.draw.split)

    @property
    def split(self) -> str:
        return self.draw.split

    @property
    def shard_count(self) -> int:
        return -(-self.pairs // self.shard_pairs)

    def shard_range(self, shard: int) -> range:
        """The indices in one shard."""
        first = shard * self.shard_pairs
        return range(first, min(first + self.shard_pairs, self.pairs))

    def shards(self, part: tuple[int, int] = (0, 1)) -> range:
        """The shards of one of `count` equal parts: index, index + count, ..."""
        index, count = part
        if not 0 <= index < count:
            raise ValueError(
                f"shards={index}/{count}: the first number must be 0..{count - 1}, as array "
                "schedulers count"
            )
        return range(index, self.shard_count, count)


def split_id(split: str) -> int:
    """The number that enters the seeds of a split."""
    if split not in SPLIT_IDS:
        near = difflib.get_close_matches(split, SPLIT_IDS, n=1) or ["single"]
        raise ValueError(
            f"split={split!r} is unknown; the nearest is {near[0]}, choose one of "
            f"{', '.join(SPLIT_IDS)}"
        )
    return SPLIT_IDS[split]
