"""Answers read by the rules of VLMEvalKit, to compare with numbers that it made.

Its rules as of 2026 (`can_infer`, `YOrN_Extraction`, RefCOCO's box reader), in code of our own,
with what we would not do: `**Yes**` is unknown, "answer is a dog" is option A, four numbers
anywhere are a box, and parts of 1 count as a box. One difference is left: it takes coordinates
above 1000 as pixels, and here, where no picture is opened, they are clipped.
"""

import re
from string import ascii_uppercase

from dig_jax.benchmarks.box_answer import SIDE, UNIT, ordered
from dig_jax.benchmarks.reading import NONE, Reading

_REFUSALS = (
    "Failed to obtain answer via API",
    "Sorry, I can't help with images of people yet.",
    "I can't process this file.",
    "I'm sorry, but without the image provided",
    "Cannot determine the answer",
)
_PUNCTUATION = ';/[]"{}()=+\\_-><@`,?!'  # of yes and no: no asterisk
_DIGIT_COMMA = re.compile(r"\d,\d")
_PERIOD = re.compile(r"\.(?!\d)")
_PERIODS = 32  # how many are taken out: its call passes a flag where the count belongs
_SPACED = str.maketrans(dict.fromkeys(".()[],:;!*#{}", " "))
_STATED = re.compile(r"answer\s+is\s+\**([ABCD])", re.IGNORECASE)
_NUMBER = r"[-+]?(?:\d++(?:\.\d++)?|\.\d++)(?:[eE][-+]?\d++)?"
_FOUR = re.compile(r"\[\s*" + r"(?:\s*,\s*|\s+)".join([f"({_NUMBER})"] * 4) + r"\s*\]")


def read_yes_no(text: str) -> Reading:
    low = text.lower()
    out, joins = low, _DIGIT_COMMA.search(low) is not None
    for mark in _PUNCTUATION:
        beside_space = f"{mark} " in low or f" {mark}" in low
        out = out.replace(mark, "" if beside_space or joins else " ")
    said = {"yes", "no"} & set(_PERIOD.sub("", out, count=_PERIODS).split())
    return Reading(said.pop(), "word") if len(said) == 1 else NONE


def read_letter(text: str, options: tuple[str, ...]) -> Reading:
    letters = ascii_uppercase[: len(options) or 4]
    if any(each in text for each in _REFUSALS):
        return Reading(None, "refused")
    words = text.translate(_SPACED).split()
    found = [letter for letter in letters if letter in words]
    if len(found) == 1 and words.index(found[0]) > len(words) - 5:
        return Reading(found[0], "letter")
    if not found and "Z" in words:
        return Reading(None, "refused")
    stated = _STATED.search(text)
    if stated and stated[1].upper() in letters:
        return Reading(stated[1].upper(), "answer is")
    low = text.lower()
    if len(low) > 2 * sum(map(len, options)):
        return NONE
    named = [letters[at] for at, option in enumerate(options) if option.lower() in low]
    return Reading(named[0], "option text") if len(named) == 1 else NONE


def read_boxes(text: str) -> Reading:
    """The first bracketed list of four numbers, or the first four numbers of the text."""
    match = _FOUR.search(text)
    numbers = match.groups() if match else re.findall(_NUMBER, text)[:4]
    if len(numbers) < 4:
        return NONE
    corners = tuple(map(float, numbers))
    unit = max(map(abs, corners)) <= UNIT
    scaled = tuple(SIDE * each for each in corners) if unit else corners
    return Reading((ordered(scaled),), "quadruple" if match else "numbers")
