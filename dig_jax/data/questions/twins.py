"""Two nearly equal pictures, one question, two answers: what changed, and whether anything did."""

from __future__ import annotations

import numpy as np

from dig_jax.data.questions.asked import Asked, Scene
from dig_jax.data.questions.existence import is_absent
from dig_jax.data.questions.sight import Seen
from dig_jax.data.questions.words import names, phrase

SAME = ("yes", "no")
_WHOLE = "Do the left and the right half of the image show the same scene, without any difference?"
_ATTRIBUTES = ("color", "material", "shape")


def asked(scene: Scene, rng: np.random.Generator) -> list[Asked]:
    """Of every difference the question that it answers, and one about the pair as a whole."""
    found = []
    for thing_id, kind in scene.types:
        before, after = (_seen(sight.clear, thing_id) for sight in (scene.a, scene.b))
        if kind in _ATTRIBUTES and before and after:
            found += _changed(scene, before, after, kind, rng)
        elif kind in ("add", "remove") and (before or after):
            found += _presence(scene, before, after)
    if scene.types and scene.is_aligned:
        found.append(_whole(scene, rng))
    return found


def _seen(things: tuple[Seen, ...], thing_id: int) -> Seen | None:
    return next((one for one in things if one.thing.id == thing_id), None)


def _changed(
    scene: Scene, before: Seen, after: Seen, attribute: str, rng: np.random.Generator
) -> list[Asked]:
    """What colour it has: the same words must mean it alone in both pictures."""
    shared = [
        some
        for some in names(before, scene.a, attribute)
        if some in names(after, scene.b, attribute)
    ]
    if not shared:
        return []
    text = phrase(before, shared[rng.integers(len(shared))])
    values = tuple(getattr(one.thing, attribute) for one in (before, after))
    question = f"What is the {attribute} of the {text}?"
    return [_pair(question, values, values, (before,), attribute)]


def _presence(scene: Scene, before: Seen | None, after: Seen | None) -> list[Asked]:
    """Whether an object is there that one picture shows and the other lacks."""
    one = before or after
    lacking = scene.b if before else scene.a
    if not is_absent(one.thing.combo, lacking):
        return []
    answers = SAME if before else SAME[::-1]
    text = f"Is there a {one.thing.combo} in the image?"
    return [_pair(text, answers, SAME, (one,), "presence")]


def _whole(scene: Scene, rng: np.random.Generator) -> Asked:
    """Whether two pictures side by side show the same: a picture beside itself, and the pair."""
    twice = scene.side * 2
    both = "ab" if rng.random() < 0.5 else "ba"
    ids = tuple(thing_id for thing_id, _ in scene.types)
    things = {one.thing.id: one.thing for one in (*scene.a.seen, *scene.b.seen)}
    return Asked(
        kind="twins",
        pictures=(twice, both),
        text=_WHOLE,
        answers=SAME,
        things=ids,
        combo=things[ids[0]].combo,
        cell=("whole", ""),
        options=SAME,
    )


def _pair(
    text: str,
    answers: tuple[str, str],
    options: tuple[str, str],
    things: tuple[Seen, ...],
    what: str,
) -> Asked:
    return Asked(
        kind="twins",
        pictures=("a", "b"),
        text=text,
        answers=answers,
        things=tuple(one.thing.id for one in things),
        combo=things[0].thing.combo,
        cell=(what, ""),
        options=options,
    )
