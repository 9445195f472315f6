"""What a question about a rendered scene asks for: dense labels, from its words and its answer."""

import re
from collections.abc import Sequence

import numpy as np

from dig_jax.benchmarks.question import Question
from dig_jax.benchmarks.values import LETTERS
from dig_jax.learner.asked import Asked
from dig_jax.learner.cells import THINGS, UNKNOWN
from dig_jax.lessons.cells import LOOKS, bins_of

_WORDS = {**LOOKS, "size": ("medium", "large")}  # in the order of THINGS
_WORD = re.compile(r"[a-z]+")


def labels_of(question: Question) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """words i32[4], meant i32[4] and bins i32[4], as `learner.asked.Asked` has them.

    Words are read before the options. A word of a kind is known where the question has no other of
    its kind: of two cubes nothing is told. The thing that is meant looks as the words say, where it
    is boxed or where the answer is yes. Where the answer is a look that the question does not name,
    it has that one too.
    """
    said = set(_WORD.findall(question.prompt.partition("Options:")[0].lower()))
    words = np.array([_only(values, said) for values in _WORDS.values()])
    nothing, nowhere = np.full(len(THINGS), UNKNOWN), np.full(4, UNKNOWN)
    if question.kind == "box":
        return words, words, bins_of(np.array(question.target) / 1000)
    if question.kind == "yes_no":
        return words, words if question.target == "yes" else nothing, nowhere
    answer = question.options[LETTERS.index(question.target)].lower()
    looks = np.array([_only(values, {answer} - said) for values in _WORDS.values()])
    is_look = (looks != UNKNOWN).any()
    return words, np.where(looks == UNKNOWN, words, looks) if is_look else nothing, nowhere


def stack_asked(questions: Sequence[Question]) -> Asked:
    """Asked of B questions."""
    columns = zip(*map(labels_of, questions), strict=True)
    return Asked(*(np.stack(column).astype(np.int32) for column in columns))


def _only(values: Sequence[str], said: set[str]) -> int:
    found = [n for n, value in enumerate(values) if said & {value, f"{value}s"}]
    return found[0] if len(found) == 1 else UNKNOWN
