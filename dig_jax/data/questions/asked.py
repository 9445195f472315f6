"""One question with its answer, before it takes the form of any benchmark."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from dig_jax.data import records
from dig_jax.data.questions.sight import Seen, Sight, look_at
from dig_jax.data.scene.scene import COLORS, SHAPES, plan_from_json

# All objects; half of them, from the first on, have all colours and shapes.
VOCABULARY = tuple(
    f"{color} {SHAPES[(number + turn) % len(SHAPES)]}"
    for turn in range(len(SHAPES))
    for number, color in enumerate(COLORS)
)


@dataclass(frozen=True)
class Scene:
    """What questions are asked about: the two pictures of a pair and what they show."""

    a: Sight
    b: Sight
    side: str  # "a" or "b": the picture that a question about one picture is about
    types: tuple[tuple[int, str], ...]  # (id, type) of every difference of the pair
    is_aligned: bool  # one camera and one noise for both pictures
    vocabulary: tuple[str, ...]  # "color shape" of the corpus, the most frequent first

    @property
    def sight(self) -> Sight:
        return self.a if self.side == "a" else self.b


@dataclass(frozen=True)
class Asked:
    """A question with its answer on each of one or two pictures.

    kind       a name of `kinds.KINDS`
    pictures   of a picture its side: "a"; of two side by side both: "ab"
    text       without the options
    answers    one per picture: "yes", an option, a relation; "" where it is a box
    options    in the order in which they are offered
    box_px     half-open pixels of what a referring expression means
    names      the expressions
    things     ids of the things that it is about, the one that answers first
    combo      "color shape" of the first; balanced over a suite
    cell       (group, value): all values of a group are equally frequent in a suite
    fixed      the options stand in the text's order and are not shuffled
    """

    kind: str
    pictures: tuple[str, ...]
    text: str
    answers: tuple[str, ...]
    things: tuple[int, ...]
    combo: str
    cell: tuple[str, str]
    options: tuple[str, ...] = ()
    box_px: tuple[int, int, int, int] | None = None
    names: tuple[str, ...] = ()
    fixed: bool = False

    @property
    def answer(self) -> str:
        return self.answers[0]

    @property
    def letters(self) -> tuple[str, ...]:
        """The right option on each picture, "A" for the first."""
        return tuple(chr(ord("A") + self.options.index(answer)) for answer in self.answers)


def scene_of(pair: records.Pair, side: str, vocabulary: tuple[str, ...] = VOCABULARY) -> Scene:
    """What a rendered pair shows; raises ValueError where it has no plan or no masks."""
    if pair.mask_a is None or pair.mask_b is None or "camera" not in pair.meta:
        raise ValueError(
            "the pair has no plan or no masks, as imported ones; ask about rendered splits only"
        )
    plan = plan_from_json(pair.meta)
    sights = look_at(plan, "a", pair.mask_a), look_at(plan, "b", pair.mask_b)
    types = tuple((change.id, change.type) for change in plan.changes)
    return Scene(*sights, side, types, plan.is_aligned, vocabulary)


def pairs_of(things: tuple[Seen, ...], rng: np.random.Generator) -> list[tuple[Seen, Seen]]:
    """All ordered pairs of two things, in random order."""
    pairs = [(one, other) for one in things for other in things if one is not other]
    return [pairs[i] for i in rng.permutation(len(pairs))]
