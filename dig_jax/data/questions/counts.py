"""How many cubes, how many metal objects: 1 to 4, so that a guess is right once in four times."""

from __future__ import annotations

import numpy as np

from dig_jax.data.questions.asked import Asked, Scene
from dig_jax.data.questions.sight import Sight
from dig_jax.data.questions.words import NOUN

NUMBERS = ("1", "2", "3", "4")  # the options of every question
COUNTED = ("shape", "material")  # by colour there are hardly ever four


def asked(scene: Scene, rng: np.random.Generator) -> list[Asked]:
    """Every shape and material of which a picture surely shows 1 to 4."""
    found = []
    for attribute in COUNTED:
        values = {getattr(one.thing, attribute) for one in scene.sight.seen}
        for value in sorted(values):
            ids = counted(scene.sight, attribute, value)
            if ids is not None and str(len(ids)) in NUMBERS:
                found.append(_question(scene, attribute, value, ids))
    return found


def counted(sight: Sight, attribute: str, value: str) -> tuple[int, ...] | None:
    """Ids of the things that have a value; None where some thing does not show whether it has."""
    if not all(one.shows(attribute) for one in sight.seen):
        return None
    return tuple(one.thing.id for one in sight.seen if getattr(one.thing, attribute) == value)


def _question(scene: Scene, attribute: str, value: str, ids: tuple[int, ...]) -> Asked:
    first = next(one.thing for one in scene.sight.seen if one.thing.id == ids[0])
    what = f"{value}s" if attribute == "shape" else f"{value} {NOUN}s"
    return Asked(
        kind="count",
        pictures=(scene.side,),
        text=f"How many {what} are in the image?",
        answers=(str(len(ids)),),
        things=ids,
        combo=first.combo,
        cell=(attribute, str(len(ids))),
        options=NUMBERS,
    )
