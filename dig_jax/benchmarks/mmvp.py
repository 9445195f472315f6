"""MMVP: 150 pairs of pictures that CLIP takes for the same, one question about both.

Four labels of the original are wrong; the copy lmms-lab-eval/MMVP has them right.
"""

from __future__ import annotations

import dataclasses
from collections import Counter

from dig_jax.benchmarks import prompts, values
from dig_jax.benchmarks.options import within
from dig_jax.benchmarks.picture_cells import file_picture
from dig_jax.benchmarks.question import Question
from dig_jax.benchmarks.values import Row

MENDED = {99: "B", 100: "A", 279: "B", 280: "A"}  # by their place in the data set


def read(rows: list[Row]) -> tuple[list[Question], list[str]]:
    """Questions with the group pair; ids count from 1."""
    numbers = [values.whole(row, "Index", "index") for row in rows]
    first = 0 if 0 in numbers else 1
    places = [number - first + 1 for number in numbers]
    questions = [_question(_with_picture(row), n) for row, n in zip(rows, places, strict=True)]
    return questions, [*_of_pairs(questions), *_of_labels(questions)]


def _question(row: Row, place: int) -> Question:
    options = values.lettered(row)
    if not options:
        options = within(values.text(row, "Options", "options")).options
    return Question(
        str(place),
        prompts.choice(values.text(row, "Question", "question"), options),
        row.pictures,
        "letter",
        values.letter(row, options, "Correct Answer", "answer"),
        options,
        {"picture": values.picture_key(row), "pair": str((place + 1) // 2)},
    )


def _with_picture(row: Row) -> Row:
    """Questions.csv names no pictures: they are called by its index."""
    if row.pictures:
        return row
    name = f"{values.whole(row, 'Index', 'index')}.jpg"
    return dataclasses.replace(row, pictures=(file_picture(name, row.file, row.where),))


def _of_pairs(questions: list[Question]) -> list[str]:
    pairs = Counter(question.groups["pair"] for question in questions)
    odd = [pair for pair, count in pairs.items() if count != 2]
    return [f"{len(odd)} pairs have not two questions: pair {odd[0]} first"] if odd else []


def _of_labels(questions: list[Question]) -> list[str]:
    targets = {question.id: question.target for question in questions}
    old = [str(n) for n, right in MENDED.items() if targets.get(str(n), right) != right]
    if len(old) < len(MENDED):  # other questions in this schema may differ in some by chance
        return []
    return [
        f"the answers of {', '.join(old)} are the original's, which are wrong; lmms-lab-eval/MMVP "
        "has them right (up to 1.3 points of pair accuracy)"
    ]
