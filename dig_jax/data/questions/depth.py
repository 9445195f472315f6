"""Which of two things is nearer to the camera, and which of two is nearer to a third."""

from __future__ import annotations

import numpy as np

from dig_jax.data.questions.asked import Asked, Scene, pairs_of
from dig_jax.data.questions.sight import Seen, gap, is_nearer
from dig_jax.data.questions.words import name

RATIO = 1.3  # times the smaller distance, and NEARER units more, is a larger one
_APART = 0.6  # scene units
_EACH = 8  # questions of one picture

DEPTH = "Which object is closer to the camera taking this photo, the {0} or the {1}?"
DISTANCE = (
    "Estimate the real-world distances between objects in this image. "
    "Which object is closer to the {2}, the {0} or the {1}?"
)


def depth(scene: Scene, rng: np.random.Generator) -> list[Asked]:
    """Pairs of things of which one is nearer to the camera by a margin."""
    found = []
    for near, far in pairs_of(scene.sight.clear, rng):
        names = name(near, scene.sight, rng), name(far, scene.sight, rng)
        if None in names or not is_nearer(near, far):
            continue
        found += [_ordered("depth", scene.side, DEPTH, names, (near, far), k) for k in (0, 1)]
    return found[: 2 * _EACH]


def distance(scene: Scene, rng: np.random.Generator) -> list[Asked]:
    """A thing and two others, one of which is nearer to it by a margin."""
    found, clear = [], scene.sight.clear
    for near, far in pairs_of(clear, rng):
        for third in clear:
            if third in (near, far) or not is_closer(near, far, third):
                continue
            names = tuple(name(one, scene.sight, rng) for one in (near, far, third))
            if None in names:
                continue
            text = DISTANCE.format("{}", "{}", names[2])
            things = (near, far, third)
            found += [_ordered("distance", scene.side, text, names, things, k) for k in (0, 1)]
            break  # one third thing per pair is enough
    return found[: 2 * _EACH]


def is_closer(near: Seen, far: Seen, third: Seen) -> bool:
    """Whether `near` is the closer one to `third`, between their middles, by a margin."""
    small, large = gap(near, third), gap(far, third)
    return large >= RATIO * small and large >= small + _APART


def _ordered(
    kind: str, side: str, text: str, names: tuple, things: tuple[Seen, ...], place: int
) -> Asked:
    """The question whose right option, the first of `names`, is number `place`."""
    options = (names[0], names[1]) if place == 0 else (names[1], names[0])
    return Asked(
        kind=kind,
        pictures=(side,),
        text=text.format(*options),
        answers=(names[0],),
        things=tuple(one.thing.id for one in things),
        combo=things[0].thing.combo,
        cell=("", "AB"[place]),
        options=options,
        fixed=True,
    )
