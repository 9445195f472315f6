"""The letter of one option, read in an answer.

In this order, each named in the reading's `how`:

tag, boxed    <answer>X</answer>, then \\boxed{X}: only what they mark is read; they must agree
letter        one option's letter stands alone, at most three words before the end
answer is     "answer is X", "answer: X", "correct option is X": all of them name the same letter,
              and no other letter follows in the same sentence, but in its reasons
leading       the answer begins with "X.", "(X)", "X:" and names no other letter
option text   exactly one option's text stands in an answer that is not longer than twice all texts

Two different letters without any of those marks are ambiguous, whatever else is said. A letter
stands alone in upper case; in lower case only as "(b)", first as "b.", in "answer is b." or as all
that is said. An option's own text is no letter, even if it begins with "A"; neither is the "A" of
"A dog", though it makes a "B" ambiguous.
"""

import re
from bisect import bisect_right
from functools import lru_cache
from string import ascii_uppercase
from typing import NamedTuple

from dig_jax.benchmarks.reading import AMBIGUOUS, NONE, Reading, agreed, declared, plain

_WINDOW = 3  # words after a letter that ends an answer
_FILLER = "▪"  # stands for a character of an option's text: part of no word
_BEFORE, _AFTER = r"(?<!\w)(?<!\w['.\-])", r"(?!\w|['.\-]\w)"  # a word's ends; not of "A-frame"
# "A" before a word in lower case is an article, unless that word goes on about an option
_ARTICLE = re.compile(
    r"A[ \t]++(?!(?:is|was|are|and|or|because|since|as|but|for|seems|appears|looks|shows|matches|"
    r"would|which|if|the|not)\b)[a-z]"
)
# Ends what a sentence answers: its end, unless the next one goes on ("C. Or maybe B?"), or reasons
_STOP = re.compile(
    r"[.!?\n](?!\W*+(?:or|and|but|no|wait|maybe|perhaps|actually|alternatively)\b)"
    r"|\b(?:because|since)\b",
    re.IGNORECASE,
)


class _Rules(NamedTuple):
    """Patterns for one number of options; in each the one group that matched is a letter."""

    whole: re.Pattern
    alone: re.Pattern
    stated: re.Pattern
    leading: re.Pattern


@lru_cache
def _rules(letters: str) -> _Rules:
    small = letters.lower()
    named = r"\b(?:answer|(?:correct|right|best|final)\s+(?:option|choice))"
    verb = r"(?:\s+(?:is|was|should\s+be|must\s+be|would\s+be)\s*+:?|\s*:)\s*+"
    return _Rules(
        whole=re.compile(rf"\W*([{letters}{small}])\W*"),
        alone=re.compile(rf"{_BEFORE}([{letters}]){_AFTER}|(?<!\w)\(([{small}])\)"),
        stated=re.compile(
            rf"(?i:{named}{verb}(?:(?:option|choice)\s+)?)[\"'(\[]*"
            rf"(?:([{letters}]){_AFTER}|([{small}])(?=[.,:;)\]\"'!]|\s*\Z|\s*\n))"
        ),
        leading=re.compile(
            rf"\s*(?:[(\[]([{letters}{small}])[)\]]|([{letters}{small}])\s*[.):](?!\w\b))"
        ),
    )


def read_letter(text: str, options: tuple[str, ...]) -> Reading:
    """The letter that an answer gives, as the module says.

    options   texts of A, B, ...; empty: A to D, whose texts are not known
    """
    text = plain(text)
    texts = tuple(plain(option).strip() for option in options)
    how, contents = declared(text)
    if contents:
        return agreed([_read(each, texts) for each in contents], how)
    return _read(text, texts)


def _read(text: str, texts: tuple[str, ...]) -> Reading:
    rules = _rules(ascii_uppercase[: len(texts) or 4])
    whole = rules.whole.fullmatch(text)
    if whole:
        return Reading(_letter(whole), "letter")
    shown = _masked(text, texts)
    stated = [m for m in rules.stated.finditer(shown) if not _is_article(text, m)]
    leading = [m for m in [rules.leading.match(shown)] if m]
    alone = _without_first_articles([*rules.alone.finditer(shown)], leading + stated, text, shown)
    letters = {_letter(each) for each in [*alone, *stated, *leading]}
    clear = [each for each in alone if not _is_article(text, each)]
    if len(letters) == 1 and clear and _words(shown[clear[-1].end() :]) <= _WINDOW:
        return Reading(_letter(clear[-1]), "letter")
    if stated:
        one = len({_letter(each) for each in stated}) == 1 and not _goes_on(stated, alone, shown)
        return Reading(_letter(stated[0]), "answer is") if one else AMBIGUOUS
    if len(letters) > 1:
        return AMBIGUOUS
    return Reading(_letter(leading[0]), "leading") if leading else _option_text(text, texts)


def _masked(text: str, texts: tuple[str, ...]) -> str:
    """The text, as long as it was, with fillers where an option's text of several letters is."""
    long = sorted((re.escape(each) for each in texts if len(each) > 1), key=len, reverse=True)
    if not long:
        return text
    pattern = rf"{_BEFORE}(?:{'|'.join(long)})(?!\w)"
    return re.sub(pattern, lambda m: _FILLER * len(m[0]), text, flags=re.IGNORECASE)


def _letter(match: re.Match) -> str:
    return match[match.lastindex].upper()


def _is_article(text: str, match: re.Match) -> bool:
    return _ARTICLE.match(text, match.start(match.lastindex)) is not None


def _words(text: str) -> int:
    return len(re.findall(r"\w+", text))


def _without_first_articles(alone, marks, text: str, shown: str) -> list[re.Match]:
    """The letters but an article that comes first after a mark: "C. A dog" names C alone."""
    ends = [mark.end() for mark in marks]

    def comes_first(match):
        before = bisect_right(ends, match.start())
        return before and not re.search(r"\w", shown[ends[before - 1] : match.start()])

    return [each for each in alone if not (_is_article(text, each) and comes_first(each))]


def _goes_on(stated: list[re.Match], alone: list[re.Match], shown: str) -> bool:
    """Whether a sentence that says "answer is X" goes on to another letter than X."""
    stops = [stop.start() for stop in _STOP.finditer(shown)]
    ends = {}
    for each in stated:
        ends.setdefault(bisect_right(stops, each.end() - 1), each.end())
    others = (each for each in alone if _letter(each) != _letter(stated[0]))
    return any(
        each.start() >= ends.get(bisect_right(stops, each.start()), len(shown)) for each in others
    )


def _option_text(text: str, texts: tuple[str, ...]) -> Reading:
    said = text.lower().strip(" \n\t.,:;!\"'")
    if len(said) > 2 * sum(map(len, texts)):
        return NONE
    low = [each.lower() for each in texts]
    found = [at for at, each in enumerate(low) if each == said]
    found = found or [at for at, each in enumerate(low) if each and _stands_in(each, said)]
    if len(found) > 1:
        return AMBIGUOUS
    return Reading(ascii_uppercase[found[0]], "option text") if found else NONE


def _stands_in(part: str, text: str) -> bool:
    return re.search(rf"(?<!\w)(?<!\d\.){re.escape(part)}(?!\w|\.\d)", text) is not None
