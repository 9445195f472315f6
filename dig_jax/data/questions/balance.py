"""From many questions a choice in which no answer is more frequent than another.

Within a group all values are equally frequent, exactly; within a value the shapes and the colours
of what is asked about are as equal as what is offered allows. So neither the frequency of answers
nor an object's name says which answer is right.
"""

from __future__ import annotations

import dataclasses
from collections import Counter, defaultdict, deque
from collections.abc import Callable, Sequence

import numpy as np

from dig_jax.data.questions.asked import Asked
from dig_jax.data.questions.words import combo_parts
from dig_jax.data.scene.scene import COLORS, SHAPES


@dataclasses.dataclass(frozen=True)
class Offer:
    """A question about the pictures of pair number `pair` of what was read."""

    pair: int
    asked: Asked


def chosen(offers: Sequence[Offer], rng: np.random.Generator, per_pair: int) -> list[Offer]:
    """A balanced choice of one kind's questions, in the order of their pairs.

    per_pair   at most so many of a group about one pair

    A group ends with the last round in which each of its values found a question.
    """
    groups: dict[str, dict[str, dict[str, deque]]] = defaultdict(lambda: defaultdict(dict))
    for i in rng.permutation(len(offers)):
        group, value = offers[i].asked.cell
        groups[group][value].setdefault(offers[i].asked.combo, deque()).append(offers[i])
    picked = [one for name in sorted(groups) for one in _rounds(groups[name], per_pair)]
    return sorted(picked, key=lambda one: one.pair)


def _rounds(values: dict[str, dict[str, deque]], per_pair: int) -> list[Offer]:
    """Rounds of one question per value, until some value has none left."""
    taken, busy, told = [], Counter(), set()
    used = {value: Counter() for value in values}
    names = sorted(values)

    def is_free(offer: Offer) -> bool:
        return busy[offer.pair] < per_pair and _subject(offer) not in told

    while True:
        picks = []
        # the rarest first, while the pairs that it needs are free
        for value in sorted(names, key=lambda value: sum(map(len, values[value].values()))):
            pick = _least_used(values[value], used[value], is_free)
            if pick is None:
                return taken
            picks.append(pick)
            busy[pick.pair] += 1
            told.add(_subject(pick))
            used[value].update(combo_parts(pick.asked.combo))
        taken += picks


def _subject(offer: Offer) -> tuple:
    """What a question is about; a second one about the same would mostly repeat it."""
    return offer.pair, frozenset(offer.asked.things) or offer.asked.combo


def _least_used(
    combos: dict[str, deque], used: Counter, is_free: Callable[[Offer], bool]
) -> Offer | None:
    """A free question about the rarest shape and colour so far; those in its way are dropped."""

    def frequency(combo: str) -> tuple[int, str]:
        color, shape = combo_parts(combo)
        return len(COLORS) * used[color] + len(SHAPES) * used[shape], combo

    for combo in sorted(combos, key=frequency):
        waiting = combos[combo]
        while waiting:
            offer = waiting.popleft()
            if is_free(offer):
                return offer
    return None


def lettered(asked: Sequence[Asked], rng: np.random.Generator) -> list[Asked]:
    """The same questions with their options moved so that the right letters are equally frequent.

    Of questions with equally many options, every run of so many has each letter once, in random
    order. Of two answers it is the first one's letter. Options that the text fixes stay.
    """
    waiting: dict[int, list[int]] = defaultdict(list)
    return [_moved(one, waiting, rng) for one in asked]


def _moved(one: Asked, waiting: dict[int, list[int]], rng: np.random.Generator) -> Asked:
    count = len(one.options)
    if one.fixed or not count:
        return one
    if not waiting[count]:
        waiting[count] = [int(i) for i in rng.permutation(count)]
    place = waiting[count].pop()
    rest = [option for option in one.options if option != one.answer]
    rest = [rest[i] for i in rng.permutation(len(rest))]
    return dataclasses.replace(one, options=(*rest[:place], one.answer, *rest[place:]))
