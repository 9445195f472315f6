"""The fewest words that mean one thing of a picture and no other."""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Sequence

import numpy as np

from dig_jax.data.questions.sight import NEARER, Seen, Sight, differs, is_left, is_nearer

ADJECTIVES = ("size", "color", "material")  # in the order in which they are said
NOUN = "object"  # where the shape is not told
_EXTREME = 0.06  # of the picture's width, between the leftmost of some things and the next


def combo_parts(combo: str) -> tuple[str, str]:
    """("red", "cube") of "red cube"."""
    color, _, shape = combo.partition(" ")
    return color, shape


def phrase(seen: Seen, attributes: Sequence[str]) -> str:
    """ "large red cube" for size, color and shape; "red object" for color alone."""
    told = [getattr(seen.thing, name) for name in ADJECTIVES if name in attributes]
    return " ".join([*told, seen.thing.shape if "shape" in attributes else NOUN])


def namesakes(seen: Seen, sight: Sight, attributes: Sequence[str]) -> list[Seen]:
    """Other things that a viewer could take these words of `seen` to mean."""
    return [
        other
        for other in sight.seen
        if other is not seen
        and other.pixels
        and not any(differs(other, seen, name) for name in attributes)
    ]


def names(seen: Seen, sight: Sight, without: str = "") -> list[tuple[str, ...]]:
    """The sets of attributes that mean this clear thing alone, of the fewest words.

    without   an attribute that must not be told, as it is what is asked

    Empty where no set does. A shape is told wherever it may be: a noun there is anyway.
    """
    told = [name for name in ADJECTIVES if name != without]
    noun = () if without == "shape" else ("shape",)
    for count in range(len(told) + 1):
        sets = [(*some, *noun) for some in itertools.combinations(told, count)]
        unique = [some for some in sets if some and not namesakes(seen, sight, some)]
        if unique:
            return unique
    return []


def name(seen: Seen, sight: Sight, rng: np.random.Generator, without: str = "") -> str | None:
    """One of the shortest names of a clear thing, None where it has none."""
    found = names(seen, sight, without)
    return phrase(seen, found[rng.integers(len(found))]) if found else None


def by_place(seen: Seen, sight: Sight) -> Iterator[str]:
    """The names by a place among namesakes, of the fewest words: "leftmost cube".

    Two places of a thing are two names; a thing that words alone can tell in fewer words has none.
    """
    for count in range(len(ADJECTIVES) + 1):
        found = []
        for some in itertools.combinations(ADJECTIVES, count):
            words = (*some, "shape")
            others = namesakes(seen, sight, words)
            if not others:
                return
            if not any(_is_alike(seen, other, words) for other in others):
                continue  # to be the leftmost it takes two
            found += [place.format(phrase(seen, words)) for place in _places(seen, others, sight)]
        if found:
            yield from found
            return


def _is_alike(one: Seen, other: Seen, attributes: Sequence[str]) -> bool:
    return all(getattr(one.thing, a) == getattr(other.thing, a) for a in attributes)


def _places(seen: Seen, others: list[Seen], sight: Sight) -> Iterator[str]:
    """Where a thing is the outermost of its namesakes, by a margin."""
    width = sight.width
    if all(is_left(seen, other, width, _EXTREME) for other in others):
        yield "leftmost {}"
    if all(is_left(other, seen, width, _EXTREME) for other in others):
        yield "rightmost {}"
    if all(is_nearer(seen, other, NEARER) for other in others):
        yield "{} closest to the camera"
    if all(is_nearer(other, seen, NEARER) for other in others):
        yield "{} farthest from the camera"
