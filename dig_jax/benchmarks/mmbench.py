"""MMBench: every question in as many orders of its options as it has options (circular)."""

from __future__ import annotations

from dig_jax.benchmarks import prompts, values
from dig_jax.benchmarks.question import Question
from dig_jax.benchmarks.values import Row

CIRCLE = 1_000_000  # an index is question + CIRCLE x how far its options are turned


def read(rows: list[Row]) -> tuple[list[Question], list[str]]:
    """Questions with the groups category, l2 and question: the same one in all its orders."""
    return [_question(row) for row in rows], []


def _question(row: Row) -> Question:
    index = values.whole(row, "index")
    options = values.lettered(row)
    hint = str(values.maybe(row, "hint") or "")
    groups = {
        "picture": values.picture_key(row),
        "category": values.text(row, "category"),
        "l2": str(values.maybe(row, "L2-category", "l2-category", "l2_category") or ""),
        "question": str(index % CIRCLE),
    }
    return Question(
        str(index),
        prompts.choice(values.text(row, "question"), options, hint),
        row.pictures,
        "letter",
        values.letter(row, options, "answer"),
        options,
        groups,
    )
