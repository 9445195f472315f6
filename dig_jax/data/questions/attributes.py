"""What colour, material or shape one thing has, which is named without it."""

from __future__ import annotations

import numpy as np

from dig_jax.data.questions.asked import Asked, Scene
from dig_jax.data.questions.sight import Seen, Sight
from dig_jax.data.questions.words import name
from dig_jax.data.scene.scene import COLORS, MATERIALS, SHAPES

VALUES = {"color": tuple(COLORS), "material": MATERIALS, "shape": SHAPES}
_OPTIONS = 4


def asked(scene: Scene, rng: np.random.Generator) -> list[Asked]:
    """Every attribute of every clear thing that the others name alone."""
    found = []
    for one in scene.sight.clear:
        for attribute in VALUES:
            text = name(one, scene.sight, rng, without=attribute)
            if text:
                found.append(_question(scene, one, attribute, text, rng))
    return found


def choices(sight: Sight, attribute: str, value: str, rng: np.random.Generator) -> tuple[str, ...]:
    """At most four values in random order: the right one, and rather such as others show."""
    shown = {getattr(one.thing, attribute) for one in sight.clear}
    rest = [other for other in VALUES[attribute] if other != value]
    rest = [rest[i] for i in rng.permutation(len(rest))]
    rest.sort(key=lambda other: other not in shown)
    few = [value, *rest[: _OPTIONS - 1]]
    return tuple(few[i] for i in rng.permutation(len(few)))


def _question(
    scene: Scene, one: Seen, attribute: str, text: str, rng: np.random.Generator
) -> Asked:
    value = getattr(one.thing, attribute)
    return Asked(
        kind="attribute",
        pictures=(scene.side,),
        text=f"What is the {attribute} of the {text}?",
        answers=(value,),
        things=(one.thing.id,),
        combo=one.thing.combo,
        cell=(attribute, value),
        options=choices(scene.sight, attribute, value, rng),
    )
