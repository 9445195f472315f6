"""ScienceQA: its test questions that have a picture, with their hint and without their lecture."""

from __future__ import annotations

from dig_jax.benchmarks import prompts, values
from dig_jax.benchmarks.question import Question
from dig_jax.benchmarks.values import Row


def read(rows: list[Row]) -> tuple[list[Question], list[str]]:
    """Questions with the group category: the subject."""
    asked = [row for row in rows if row.pictures]
    return [_question(row, place) for place, row in enumerate(asked)], []


def _question(row: Row, place: int) -> Question:
    options = values.lettered(row)
    if not options:
        options = tuple(str(text) for text in values.listed(row, "choices"))
    name = values.maybe(row, "index")
    return Question(
        str(place if name is None else name),
        prompts.choice(values.text(row, "question"), options, str(values.maybe(row, "hint") or "")),
        row.pictures,
        "letter",
        values.letter(row, options, "answer", base=0),
        options,
        {
            "picture": values.picture_key(row),
            "category": str(values.maybe(row, "subject", "category") or ""),
        },
    )
