"""One answer beside its question: what it says, and whether that is right."""

from dataclasses import dataclass

import numpy as np

from dig_jax.benchmarks import readings
from dig_jax.benchmarks.question import Question
from dig_jax.benchmarks.reading import CUT, Reading
from dig_jax.boxes import pairwise_iou

# IoU from which on a box is right: .5 less its rounding, so that pixels and thousandths agree
HIT = 0.5 - 1e-9


@dataclass(frozen=True)
class Scored:
    """A scored answer.

    sample    0 .. K - 1 of a question that was answered K times
    text      as it was given, with its thought
    correct   1.0 or 0.0
    iou       kind "box": of the first box with the target, and `best` of the best one; else None
    tokens    that the answer took, where known
    """

    question: Question
    sample: int
    text: str
    reading: Reading
    correct: float
    iou: float | None = None
    best: float | None = None
    tokens: int | None = None


def score_answer(
    question: Question,
    text: str,
    *,
    parser: str,
    thinking: bool,
    sample: int = 0,
    ended: bool = True,
    tokens: int | None = None,
) -> Scored:
    """Reads an answer and compares it with its target.

    parser     of `readings.PARSERS`' values
    thinking   the prompt ended in <think>
    ended      False where the token limit cut the answer off

    An answer that was cut off, in its thought or behind it, is wrong and never parsed.
    """
    answer = readings.answer_of(text, thinking=thinking) if ended else None
    reading = CUT if answer is None else _read(question, answer, parser)
    if question.kind == "box":
        iou, best = overlaps(reading, question.target)
        hit = float(iou >= HIT)
        return Scored(question, sample, text, reading, hit, iou, best, tokens)
    correct = float(reading.value == question.target)
    return Scored(question, sample, text, reading, correct, tokens=tokens)


def _read(question: Question, answer: str, parser: str) -> Reading:
    if question.kind == "yes_no":
        return readings.read_yes_no(answer, parser)
    if question.kind == "letter":
        return readings.read_letter(answer, question.options, parser)
    return readings.read_boxes(answer, parser)


def overlaps(reading: Reading, target: tuple) -> tuple[float, float]:
    """(IoU of the first box, the largest of all) with the target; 0 where there is none.

    Boxes that are suspected to be parts of 1 were not what was asked for: 0.
    """
    if not reading.value or "unit_suspect" in reading.how:
        return 0.0, 0.0
    boxes = np.array(reading.value, np.float64).reshape(-1, 4)
    found = pairwise_iou(boxes, np.array([target], np.float64))[:, 0]
    return float(found[0]), float(found.max())
