"""Answers as the tests of the readers have them read."""

from dig_jax.benchmarks.question import Question
from dig_jax.benchmarks.readings import OURS, read_letter, read_yes_no
from dig_jax.benchmarks.scored import score_answer

COLOURS = ("yellow", "blue", "green", "white")


def wide(text):
    """In full-width characters, as a Chinese keyboard types them."""
    shifted = (chr(ord(c) + 0xFEE0) if "!" <= c <= "~" and c not in "*`_" else c for c in text)
    return "".join(shifted).replace("\uff0e", "。")


BOX = (100.0, 200.0, 300.0, 400.0)
OTHER = (500.0, 600.0, 700.0, 800.0)


def letter(text, options=COLOURS, parser=OURS):
    return read_letter(text, options, parser).value


def yes_no(text, parser=OURS):
    return read_yes_no(text, parser).value


def box_question(target=BOX):
    return Question("q", "where?", (), "box", target, groups={"picture": "p"})


def hit(text, target=BOX, parser=OURS, **kind):
    return score_answer(box_question(target), text, parser=parser, thinking=False, **kind)
