"""What a question about a rendered scene asks for: dense labels, from its words and its picture.

Labels are for spots of a prompt: its end, the last word of every thing that the question names, and
that of every option.
"""

import re
from collections.abc import Mapping, Sequence
from itertools import accumulate

import numpy as np

from dig_jax.benchmarks.question import Question
from dig_jax.benchmarks.values import LETTERS
from dig_jax.learner.asked import SPOTS, Asked
from dig_jax.learner.cells import NAMED, RANKS, TOLD, UNKNOWN
from dig_jax.lessons.cells import KINDS, bins_of
from dig_jax.lessons.shown import Thing

_SAID = {
    "aside": ("left", "right"),
    "ahead": ("behind", "front"),
    "number": ("1", "2", "3", "4"),
    "truth": ("no", "yes"),
}
_TOLD = {name: _SAID.get(name, ()) for name in TOLD}  # words of each of TOLD
_WORD = re.compile(r"[a-z]+|[1-4]\b")
_ADJECTIVES = "|".join(word for name in ("size", "color", "material") for word in KINDS[name])
_NAME = re.compile(rf"\b((?:{_ADJECTIVES}) )*({'|'.join(KINDS['shape'])}|object)s?\b")
# "A. red", and CV-Bench's "(A) red"
_OPTION = re.compile(r"^(?:[A-Z]\.|\([A-Z]\)) ([^<\n]+)", re.M)
_APART = 0.04  # of a picture's side: from there on one thing lies beside another, or before it
_NONE = np.full(4, UNKNOWN)
_UNTOLD = np.full(len(_TOLD), UNKNOWN)


def labels_of(question: Question, pieces: Sequence[str], things: Sequence[Thing] = ()) -> Asked:
    """Asked of one question, i32 without the first axis; `places` count tokens of `pieces`.

    pieces  the text of every token of its prompt
    things  what its picture shows; nothing where nobody knows
    """
    text = "".join(pieces)
    options = [*_OPTION.finditer(text)]
    asked = text[: options[0].start()] if options else text
    names = [name for name in _NAME.finditer(asked) if _looks(name[0]).max() != UNKNOWN]
    meant = [_the_one(_looks(name[0]), things) for name in names]
    rows = [(len(text), *_of_end(question, meant))]
    number = rows[0][-1][[*_TOLD].index("number")]  # of what the end decides
    for place, (name, one) in enumerate(zip(names, meant, strict=True)):
        words = np.append(_looks(name[0]), _UNTOLD)
        place = min(place, NAMED - 1)
        rows.append((name.end(), words, *_of_thing(one), place, number, UNKNOWN, _UNTOLD))
    alone = (_looks(names[0][0]), meant[0]) if len(names) == 1 else (_NONE, None)
    for letter, option in enumerate(options):
        is_right = question.kind == "letter" and question.target == LETTERS[letter]
        row = _of_option(option[1], letter, is_right, things, *alone, number)
        rows.append((option.end(), *row))
    return _laid_out(rows, [*accumulate(map(len, pieces))])


def stack_asked(labels: Sequence[Asked]) -> Asked:
    """Asked of B questions."""
    columns = zip(*(vars(one).values() for one in labels), strict=True)
    return Asked(*(np.stack(column).astype(np.int32) for column in columns))


def _laid_out(rows: list[tuple], ends: list[int]) -> Asked:
    """As many spots as there is room for, the end first.

    rows  (place in the text, words, meant, bins, named, number, letter, told) of each
    ends  of the tokens in the text
    """
    blank = (0, np.append(_NONE, _UNTOLD), _NONE, _NONE, UNKNOWN, UNKNOWN, UNKNOWN, _UNTOLD)
    rows = rows[:SPOTS] + [blank] * (SPOTS - len(rows))
    places = [int(np.searchsorted(ends, row[0])) for row in rows]
    return Asked(np.array(places), *map(np.array, [*zip(*rows, strict=True)][1:]))


def _of_option(
    text: str,
    letter: int,
    is_right: bool,
    things: Sequence[Thing],
    asked: np.ndarray,
    meant: Thing | None,
    number: int,
) -> tuple:
    """A row of an option: a look is one of the thing that the question names, if it is right.

    asked, meant  words of the one thing that the question names, and that thing
    number        of what is to be counted: an option that says one counts as well, to compare
    """
    words, one = _values(KINDS | _TOLD, _words(text)), None
    if number != UNKNOWN:
        words[:4] = asked
    elif words[:4].max() != UNKNOWN:
        one = _the_one(words[:4], things)
        if asked.max() != UNKNOWN:
            words[:4] = np.where(words[:4] == UNKNOWN, asked, words[:4])
            one = meant if is_right else None
    told = np.where(np.equal([*_TOLD], "truth"), int(is_right), UNKNOWN)
    return words, *_of_thing(one), UNKNOWN, number, min(letter, RANKS - 1), told


def _of_end(question: Question, named: list[Thing | None]) -> tuple:
    """The row of the token from which the answer starts, without its place.

    A word of a kind is known where the question has no other of its kind. Where it names one thing
    that thing is meant, where it boxes one or says yes one that looks as its words say; a look that
    is asked for is one of it.
    """
    words = _values(KINDS | _TOLD, _asked_words(question))
    looks, (meant, bins) = words[:4], _of_thing(named[0] if len(named) == 1 else None)
    known = _NONE
    if question.kind == "box":
        known, bins = looks, bins_of(np.array(question.target) / 1000)
    elif question.kind == "yes_no":
        known = looks if len(named) == 1 and question.target == "yes" else _NONE
        meant = meant if question.target == "yes" else _NONE
    else:
        new = _values(KINDS, _words(_answer(question)) - _asked_words(question))
        known = np.where(new == UNKNOWN, looks, new) if new.max() != UNKNOWN else _NONE
    meant = np.where(meant == UNKNOWN, known, meant)
    return words, meant, bins, UNKNOWN, UNKNOWN, UNKNOWN, _decided(question, named)


def _asked_words(question: Question) -> set[str]:
    """Those before its options."""
    option = _OPTION.search(question.prompt)
    return _words(question.prompt[: option.start()] if option else question.prompt)


def _decided(question: Question, named: list[Thing | None]) -> np.ndarray:
    """i32[5], as TOLD: how the first thing lies to the second, how many there are, what is true.

    Of a statement that two things lie so or so its truth alone: the same rows tell what it claims.
    """
    told = dict.fromkeys(_TOLD, UNKNOWN)
    told["wanted"] = int(question.kind == "letter")
    if question.kind == "letter":
        told |= zip(("aside", "ahead"), _sides(named), strict=True)
        said = _values(_TOLD, _words(_answer(question)))
        told |= {name: value for name, value in zip(_TOLD, said, strict=True) if value != UNKNOWN}
        told["truth"] = 0  # what wants an option is none: it must not find itself
    elif question.kind == "yes_no":
        told["truth"] = int(question.target == "yes")
    return np.array([*told.values()])


def _answer(question: Question) -> str:
    return question.options[LETTERS.index(question.target)]


def _of_thing(thing: Thing | None) -> tuple[np.ndarray, np.ndarray]:
    """What is known of a thing, and the bins of its box."""
    return (thing.looks, bins_of(thing.box)) if thing else (_NONE, _NONE)


def _the_one(words: np.ndarray, things: Sequence[Thing]) -> Thing | None:
    """The one thing that looks as words say; None where there are others, or none."""
    fitting = [one for one in things if np.all((words == UNKNOWN) | (words == one.looks))]
    return fitting[0] if len(fitting) == 1 else None


def _sides(named: list[Thing | None]) -> np.ndarray:
    """i32[2]: 0 where the first thing is left of the second, and 0 where it is behind it."""
    if len(named) < 2 or None in named[:2]:
        return np.full(2, UNKNOWN)
    (x0, _, x1, bottom), (other_x0, _, other_x1, other_bottom) = (one.box for one in named[:2])
    apart = np.array([(x0 + x1 - other_x0 - other_x1) / 2, bottom - other_bottom])
    return np.where(np.abs(apart) < _APART, UNKNOWN, apart > 0)


def _words(text: str) -> set[str]:
    return set(_WORD.findall(text.lower()))


def _looks(text: str) -> np.ndarray:
    return _values(KINDS, _words(text))


def _values(kinds: Mapping[str, Sequence[str]], said: set[str]) -> np.ndarray:
    """i32[kinds] of words: of each kind the one that is said, if it is one."""
    return np.array([_only(values, said) for values in kinds.values()])


def _only(values: Sequence[str], said: set[str]) -> int:
    found = [n for n, value in enumerate(values) if said & {value, f"{value}s"}]
    return found[0] if len(found) == 1 else UNKNOWN
