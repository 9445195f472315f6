"""All questions that the pairs of some splits offer, read a shard at a time."""

from __future__ import annotations

import itertools
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from dig_jax.common.progress import progress
from dig_jax.data import records
from dig_jax.data.questions import apart
from dig_jax.data.questions.asked import scene_of
from dig_jax.data.questions.balance import Offer
from dig_jax.data.questions.kinds import KINDS
from dig_jax.data.scene.draws import split_id


@dataclass(frozen=True)
class Place:
    """Where a pair is."""

    split: str
    shard: Path
    number: int  # in its shard
    idx: int  # in its split

    @property
    def name(self) -> str:
        return f"{self.split}-{self.idx:06d}"


@dataclass(frozen=True)
class Corpus:
    """The pairs that questions are asked about.

    vocabulary  "color shape" of all that they show, the most frequent first
    pictures    digests of their pictures, see `apart.digests`
    """

    places: tuple[Place, ...]
    vocabulary: tuple[str, ...]
    pictures: frozenset[str]


def survey(root: Path, splits: list[str], pairs: int | None) -> Corpus:
    """What the splits of a root hold; at most so many pairs of each.

    Raises ValueError for a pair that is not a rendered one, and as `records.open_split`.
    """
    places, combos, pictures = [], Counter(), set()
    for split in splits:
        for place, record in itertools.islice(_records(root / split), pairs):
            meta = records.decode_meta(record)
            if "camera" not in meta:
                raise ValueError(
                    f"{place.shard} record {place.number} was imported and has no plan; ask about "
                    "splits that `python -m dig_jax.data render` made"
                )
            combos.update(f"{thing['color']} {thing['shape']}" for thing in meta["a"])
            pictures.update(apart.digests(meta))
            places.append(place)
    ranked = sorted(combos, key=lambda combo: (-combos[combo], combo))
    return Corpus(tuple(places), tuple(ranked), frozenset(pictures))


def offers(corpus: Corpus, seed: int) -> dict[str, list[Offer]]:
    """Of every kind all questions that any pair offers.

    Half of the pairs are asked about their picture A, half about B; which, and all else that is
    drawn, follows from the seed and the pair's split and index.
    """
    found: dict[str, list[Offer]] = {kind: [] for kind in KINDS}
    total = len(corpus.places)
    with progress("questions", "pairs") as report:
        for index, (place, record) in enumerate(read(corpus.places)):
            rng = np.random.default_rng([seed, split_id(place.split), place.idx])
            try:
                scene = scene_of(records.decode(record), "ab"[index % 2], corpus.vocabulary)
            except ValueError as error:
                raise ValueError(f"{place.shard} record {place.number}: {error}") from error
            for kind, questions in KINDS.items():
                found[kind] += [Offer(index, asked) for asked in questions(scene, rng)]
            report(index + 1, total, "")
    return found


def read(places: tuple[Place, ...]) -> Iterator[tuple[Place, bytes]]:
    """The records of these places, which are in order, one shard in memory at a time."""
    for shard, group in itertools.groupby(places, key=lambda place: place.shard):
        stored = records.read_shard(shard)
        yield from ((place, stored[place.number]) for place in group)


def _records(folder: Path) -> Iterator[tuple[Place, bytes]]:
    index = itertools.count()
    for shard in records.open_split(folder):
        for number, record in enumerate(records.read_shard(shard)):
            yield Place(folder.name, shard, number, next(index)), record
