"""What was read in an answer, and how; the plain text that all of our readers begin with."""

import re
import unicodedata
from typing import NamedTuple


class Reading(NamedTuple):
    """What an answer says.

    value   "yes", "no"; "A"; a tuple of boxes; None where nothing was read
    how     by which rule: "word", "letter", "leading", "answer is", "option text", "tag", "boxed";
            of boxes "json", "python", "bbox_2d", "quadruple", and after it with + what was wrong:
            "fixed", "out_of_range", "unit_suspect"; of nothing "none", "ambiguous", "refused",
            "truncated"
    """

    value: str | tuple | None
    how: str


NONE = Reading(None, "none")
AMBIGUOUS = Reading(None, "ambiguous")  # several different readings, of which none is declared
CUT = Reading(None, "truncated")

_EMPHASIS = re.compile(r"[*`]+|(?<!\w)_+|(?<!_)_++(?!\w)")
_STOPS = str.maketrans({"。": ".", "、": ",", "\r": "\n", "\u2018": "'", "\u2019": "'"})
_DECLARED = (
    ("tag", re.compile(r"<answer>(.*?)(?:</answer>|\Z)", re.DOTALL | re.IGNORECASE)),
    ("boxed", re.compile(r"\\boxed\s*\{((?:[^{}]++|\{[^{}]*+\})*+)\}")),
)
_LATEX_TEXT = re.compile(r"\\(?:text|mathrm|mathbf|textbf)\s*\{([^{}]*)\}")


def plain(text: str) -> str:
    """A text without markdown's emphasis, in half-width characters, lines ended by newlines.

    Marks are taken out rather than replaced, so that `**A**nswer` stays a word.
    """
    text = unicodedata.normalize("NFKC", text).translate(_STOPS)
    return _EMPHASIS.sub("", text)


def declared(text: str) -> tuple[str, list[str]]:
    """(how, contents) of the answers that a plain text marks as such; ("", []) without any.

    <answer>...</answer> before \\boxed{...}, and all of a kind: a model that marks two different
    answers has given none.
    """
    for how, pattern in _DECLARED:
        found = [_LATEX_TEXT.sub(r"\1", each).strip() for each in pattern.findall(text)]
        found = [each for each in found if each]
        if found:
            return how, found
    return "", []


def agreed(readings: list[Reading], how: str) -> Reading:
    """The one value that all readings have, read `how`; what the first is where it has none."""
    values = {reading.value for reading in readings}
    if len(values) > 1:
        return AMBIGUOUS
    return readings[0] if readings[0].value is None else Reading(readings[0].value, how)
