"""Is there a red cube? Objects that are there, and three tracks of objects that are not.

random        any object of the corpus that the picture lacks
popular       one of the more frequent half of them
adversarial   one of which the picture shows the colour on one thing and the shape on another

In the originals of photographs adversarial objects are those that often occur together with what
is shown. In scenes drawn at random that says nothing, so the temptation is in the picture. What
is there is asked about with the same objects as what is not, so that a question gives nothing away.
"""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

from dig_jax.data.questions.asked import Asked, Scene
from dig_jax.data.questions.sight import Sight
from dig_jax.data.questions.words import combo_parts

TRACKS = ("random", "popular", "adversarial")
_EACH = 6  # objects of a track and answer that one picture offers


def asked(scene: Scene, rng: np.random.Generator) -> list[Asked]:
    """Objects that a picture shows and lacks, some of each track."""
    sight = scene.sight
    shown = {one.thing.combo: one.thing.id for one in sight.clear}
    lacking = [combo for combo in scene.vocabulary if is_absent(combo, sight)]
    popular = scene.vocabulary[: -(-len(scene.vocabulary) // 2)]
    of_track = {
        "random": (list(shown), lacking),
        "popular": ([c for c in shown if c in popular], [c for c in lacking if c in popular]),
        "adversarial": (list(shown), [c for c in lacking if is_tempting(c, sight)]),
    }
    found = []
    for track in TRACKS:
        for answer, combos in zip(("yes", "no"), of_track[track], strict=True):
            for combo in _some(combos, rng):
                things = (shown[combo],) if answer == "yes" else ()
                found.append(_question(scene.side, track, answer, combo, things))
    return found


def is_absent(combo: str, sight: Sight) -> bool:
    """Whether a viewer sees of every thing that it is not this object."""
    color, shape = combo_parts(combo)
    return all(
        (one.is_colored and one.thing.color != color) or (one.is_clear and one.thing.shape != shape)
        for one in sight.seen
    )


def is_tempting(combo: str, sight: Sight) -> bool:
    """Whether its colour and its shape are both to be seen."""
    color, shape = combo_parts(combo)
    colors = {one.thing.color for one in sight.clear}
    return color in colors and shape in {one.thing.shape for one in sight.clear}


def _some(combos: list[str], rng: np.random.Generator) -> Iterator[str]:
    yield from (combos[i] for i in rng.permutation(len(combos))[:_EACH])


def _question(side: str, track: str, answer: str, combo: str, things: tuple[int, ...]) -> Asked:
    return Asked(
        kind="existence",
        pictures=(side,),
        text=f"Is there a {combo} in the image?",
        answers=(answer,),
        things=things,
        combo=combo,
        cell=(track, answer),
    )
