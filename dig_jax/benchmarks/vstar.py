"""V* Bench: attributes and relative positions of small things in large pictures.

Its own files hold question, options and a closing instruction in one text. They are taken apart and
asked by the template, as VLMEvalKit's file is; the instruction to answer "directly" is left out.
"""

from __future__ import annotations

from dig_jax.benchmarks import prompts, values
from dig_jax.benchmarks.options import within
from dig_jax.benchmarks.question import Question
from dig_jax.benchmarks.values import Row


def read(rows: list[Row]) -> tuple[list[Question], list[str]]:
    """Questions with the group category."""
    return [_question(row) for row in rows], []


def _question(row: Row) -> Question:
    category = values.text(row, "category")
    stem, options = values.text(row, "text", "question"), values.lettered(row)
    if not options:
        stem, options = within(stem)
    name = values.maybe(row, "index")
    if name is None:  # question_id begins anew in every category
        name = f"{category}/{values.text(row, 'question_id')}"
    return Question(
        str(name),
        prompts.choice(stem, options),
        row.pictures,
        "letter",
        values.letter(row, options, "label", "answer"),
        options,
        {"picture": values.picture_key(row), "category": category},
    )
