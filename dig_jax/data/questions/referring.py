"""Expressions that mean one thing of a picture, with the box of what is visible of it."""

from __future__ import annotations

import numpy as np

from dig_jax.data.questions.asked import Asked, Scene
from dig_jax.data.questions.words import by_place, name

TEXT = "Locate what the expression means."  # a benchmark has its own way to ask


def asked(scene: Scene, rng: np.random.Generator) -> list[Asked]:
    """Every clear thing that some words mean alone.

    Its names are one of the shortest by what it looks like and, among things that look alike,
    one of the shortest that tell its place too.
    """
    found = []
    for one in scene.sight.clear:
        placed = list(by_place(one, scene.sight))
        names = [name(one, scene.sight, rng), placed[rng.integers(len(placed))] if placed else None]
        told = tuple(text for text in names if text)
        if told:
            found.append(
                Asked(
                    kind="referring",
                    pictures=(scene.side,),
                    text=TEXT,
                    answers=("",),
                    things=(one.thing.id,),
                    combo=one.thing.combo,
                    cell=("", ""),
                    box_px=one.box_px,
                    names=told,
                )
            )
    return found
