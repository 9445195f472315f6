"""Left, right, behind, in front: as statements that are true or false, and as questions."""

from __future__ import annotations

import numpy as np

from dig_jax.data.questions.asked import Asked, Scene, pairs_of
from dig_jax.data.questions.sight import Seen, is_behind, is_left
from dig_jax.data.questions.words import name

OPPOSITE = {
    "left of": "right of",
    "right of": "left of",
    "behind": "in front of",
    "in front of": "behind",
}
TRUE, FALSE = "1", "0"
_EACH = 6  # pairs of things of one picture

RELATION = (
    "Considering the relative positions of the {0} and the {1} in the image provided, where "
    "is the {0} located with respect to the {1}?"
)
POSITION = "Is the {0} on the left or right side of the {1}?"


def holding(one: Seen, other: Seen, width: int) -> list[str]:
    """The relations in which `one` surely stands to `other`; the opposite ones surely do not."""
    tests = {
        "left of": is_left(one, other, width),
        "right of": is_left(other, one, width),
        "behind": is_behind(one, other),
        "in front of": is_behind(other, one),
    }
    return [relation for relation, holds in tests.items() if holds]


def statements(scene: Scene, rng: np.random.Generator) -> list[Asked]:
    """A true and a false statement of pairs of things."""
    found = []
    for one, other, relation, names in _related(scene, rng, tuple(OPPOSITE)):
        for said, label in ((relation, TRUE), (OPPOSITE[relation], FALSE)):
            text = f"The {names[0]} is {said} the {names[1]}."
            cell = ("", f"{said} {label}")
            found.append(_question("statement", scene.side, text, label, (one, other), cell))
    return found


def relations(scene: Scene, rng: np.random.Generator) -> list[Asked]:
    """Where one thing is with respect to another: left or right."""
    return _left_or_right(scene, rng, "relation", RELATION)


def positions(scene: Scene, rng: np.random.Generator) -> list[Asked]:
    """On which side of another a thing is."""
    return _left_or_right(scene, rng, "position", POSITION)


def _left_or_right(scene: Scene, rng: np.random.Generator, kind: str, text: str) -> list[Asked]:
    found = []
    for one, other, relation, names in _related(scene, rng, ("left of", "right of")):
        answer = relation.removesuffix(" of")
        things = (one, other)
        cell = ("", answer)
        asked = _question(kind, scene.side, text.format(*names), answer, things, cell)
        found.append(asked)
    return found


def _related(
    scene: Scene, rng: np.random.Generator, relations: tuple[str, ...]
) -> list[tuple[Seen, Seen, str, tuple[str, str]]]:
    """Pairs of things that have names and stand in one of these relations."""
    sight, found = scene.sight, []
    for one, other in pairs_of(sight.clear, rng):
        holds = [r for r in holding(one, other, sight.width) if r in relations]
        names = name(one, sight, rng), name(other, sight, rng)
        if holds and None not in names:
            found.append((one, other, holds[rng.integers(len(holds))], names))
    return found[: 2 * _EACH]


def _question(
    kind: str, side: str, text: str, answer: str, things: tuple[Seen, Seen], cell: tuple[str, str]
) -> Asked:
    return Asked(
        kind=kind,
        pictures=(side,),
        text=text,
        answers=(answer,),
        things=tuple(one.thing.id for one in things),
        combo=things[0].thing.combo,
        cell=cell,
        options=() if kind == "statement" else ("left", "right"),
    )
