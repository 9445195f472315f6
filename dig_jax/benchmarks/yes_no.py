"""Yes or no: the one of the two words that stands in an answer."""

import re

from dig_jax.benchmarks.reading import AMBIGUOUS, NONE, Reading, agreed, declared, plain

_WORD = re.compile(r"\w+(?:'\w+)*")


def read_yes_no(text: str) -> Reading:
    """ "yes" where that word stands in the answer and "no" does not, "no" the other way round.

    In whatever case, markdown or full-width characters; part of a longer word is no word. Where
    <answer> or \\boxed{} marks the answer, only what is marked is read.
    """
    text = plain(text)
    how, contents = declared(text)
    if contents:
        return agreed([_word(each) for each in contents], how)
    return _word(text)


def _word(text: str) -> Reading:
    said = {"yes", "no"} & {word.lower() for word in _WORD.findall(text)}
    if len(said) == 2:
        return AMBIGUOUS
    return Reading(said.pop(), "word") if said else NONE
