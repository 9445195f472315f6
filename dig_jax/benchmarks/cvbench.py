"""CV-Bench: counts and relations in 2D, depth and distance in 3D; asked by the row's own prompt."""

from __future__ import annotations

from dig_jax.benchmarks import values
from dig_jax.benchmarks.question import Question
from dig_jax.benchmarks.values import Row


def read(rows: list[Row]) -> tuple[list[Question], list[str]]:
    """Questions with the groups type (2D, 3D), category (the task) and source."""
    return [_question(row) for row in rows], []


def _question(row: Row) -> Question:
    kind = values.text(row, "type", "split")
    if kind not in ("2D", "3D"):
        raise values.refuse(row, "type", kind, "is neither 2D nor 3D")
    options = values.lettered(row)
    if not options:
        options = tuple(str(text) for text in values.listed(row, "choices"))
    groups = {
        "picture": values.picture_key(row),
        "type": kind,
        "category": str(values.maybe(row, "task", "category") or ""),
        "source": values.text(row, "source"),
    }
    return Question(
        f"{kind}-{values.text(row, 'idx', 'index')}",
        values.text(row, "prompt"),
        row.pictures,
        "letter",
        values.letter(row, options, "answer"),
        options,
        groups,
    )
