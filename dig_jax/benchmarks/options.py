"""Options that stand within a text: `(A) red (B) blue`, `Options: A: red, B: blue`, a line each."""

from __future__ import annotations

import re
from typing import NamedTuple

from dig_jax.benchmarks.values import LETTERS

_HINT = re.compile(r"\s*Hint:[^\n]*\n+\s*Question:\s*", re.I)  # MMStar's mathematical questions
_HEADING = re.compile(r"\n?[ \t]*\b(options|choices)[ \t]*:\s*", re.I)
_CLOSING = re.compile(r"\n\s*(answer|please|select|choose|respond)\b[^\n]*$", re.I)


class Asked(NamedTuple):
    """A question's text without its options, and these; () where none were found."""

    stem: str
    options: tuple[str, ...]


def within(text: str) -> Asked:
    """Takes a text apart: stem, options A, B, ... in order.

    A closing line that says how to answer is left out, and so is MMStar's hint that does: the
    template asks in its own words. Where fewer than two options stand in order, the text is
    returned as it is.
    """
    whole = _CLOSING.sub("", text.rstrip())
    whole = _HINT.sub("", whole, count=1)
    headings = list(_HEADING.finditer(whole))
    for heading in reversed(headings):
        options = _options(whole[heading.end() :], first=0)
        if options:
            return Asked(whole[: heading.start()].strip(), options.texts)
    options = _options(whole)
    return Asked(whole[: options.start].strip(), options.texts) if options else Asked(text, ())


class _Found(NamedTuple):
    start: int
    texts: tuple[str, ...]


def _options(text: str, first: int | None = None) -> _Found | None:
    """Two or more options of a text; the first of them at place `first`, if that is given."""
    marks = _marks(text)
    if len(marks) < 2 or first not in (None, marks[0].start()):
        return None
    ends = [mark.start() for mark in marks[1:]] + [len(text)]
    pieces = (text[mark.end() : end] for mark, end in zip(marks, ends, strict=True))
    texts = tuple(piece.strip().rstrip(",;").rstrip() for piece in pieces)
    return _Found(marks[0].start(), texts)


def _marks(text: str) -> list[re.Match]:
    """Where A, B, ... begin, each behind the one before: `(A)`, `(a)`; `A:`, `A.`, `A)`.

    Without brackets only at the beginning of a line or behind a comma: not in "Vitamin B: yes".
    """
    found, at = [], 0
    for letter in LETTERS:
        bare = rf"(?:^|(?<=[,;])|(?<=[,;] )){letter}[:.)]"
        both = rf"(?:(?<!\S)\([{letter}{letter.lower()}]\)|{bare})[ \t]*"
        match = re.compile(both, re.M).search(text, at)
        if match is None:
            break
        found.append(match)
        at = match.end()
    return found
