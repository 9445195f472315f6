"""All kinds of questions, and those of one record: what a supervised trainer asks."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Sequence

import numpy as np

from dig_jax.common import typed
from dig_jax.data import records
from dig_jax.data.questions import (
    attributes,
    counts,
    depth,
    existence,
    referring,
    sides,
    twins,
)
from dig_jax.data.questions.asked import VOCABULARY, Asked, Scene, scene_of

# kind -> all questions of it that a scene offers
KINDS: dict[str, Callable[[Scene, np.random.Generator], list[Asked]]] = {
    "referring": referring.asked,
    "existence": existence.asked,
    "count": counts.asked,
    "relation": sides.relations,
    "depth": depth.depth,
    "distance": depth.distance,
    "statement": sides.statements,
    "attribute": attributes.asked,
    "position": sides.positions,
    "twins": twins.asked,
}


def questions_of(
    pair: records.Pair,
    rng: np.random.Generator,
    kinds: Sequence[str] = tuple(KINDS),
    vocabulary: tuple[str, ...] = VOCABULARY,
) -> list[Asked]:
    """One question of each kind about a rendered pair, in the order of `kinds`, where it has any.

    vocabulary   objects that existence asks about, the most frequent first

    A value of what is balanced ("yes", a relation, a number) is drawn before the question, so
    that all values of a kind are about equally frequent over many pairs; so are the options'
    orders. Equal arguments give equal questions. Raises ValueError for an unknown kind and for a
    pair without plan or masks.
    """
    for kind in kinds:
        typed.require(kind in KINDS, "kinds", kind, "is unknown", f"use {', '.join(KINDS)}")
    scene = scene_of(pair, "ab"[rng.integers(2)], vocabulary)
    found = (_drawn(KINDS[kind](scene, rng), rng) for kind in kinds)
    return [shuffled(one, rng) for one in found if one]


def shuffled(asked: Asked, rng: np.random.Generator) -> Asked:
    """The question with its options in another order, where the text does not fix theirs."""
    if asked.fixed:
        return asked
    order = rng.permutation(len(asked.options))
    return dataclasses.replace(asked, options=tuple(asked.options[i] for i in order))


def _drawn(offers: list[Asked], rng: np.random.Generator) -> Asked | None:
    """A question of a cell, uniform over cells and then over its questions."""
    cells = sorted({one.cell for one in offers})
    if not cells:
        return None
    cell = cells[rng.integers(len(cells))]
    of_cell = [one for one in offers if one.cell == cell]
    return of_cell[rng.integers(len(of_cell))]
