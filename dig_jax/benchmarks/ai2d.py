"""AI2D: questions about diagrams, whose labels are masked in one of its two variants."""

from __future__ import annotations

from dig_jax.benchmarks import prompts, values
from dig_jax.benchmarks.question import Question
from dig_jax.benchmarks.values import Row


def read(rows: list[Row]) -> tuple[list[Question], list[str]]:
    """Questions; a warning says where the files' names tell of the variant without masks."""
    questions = [_question(row, place) for place, row in enumerate(rows)]
    bare = {row.file.name for row in rows if "no_mask" in row.file.name.lower().replace("-", "_")}
    if not bare:
        return questions, []
    return questions, [
        f"{', '.join(sorted(bare))} is the variant without masks: its scores are higher, compare "
        "them with nothing but its own"
    ]


def _question(row: Row, place: int) -> Question:
    options = values.lettered(row)
    if not options:
        options = tuple(str(text) for text in values.listed(row, "options"))
    name = values.maybe(row, "index")
    return Question(
        str(place if name is None else name),
        prompts.choice(values.text(row, "question"), options),
        row.pictures,
        "letter",
        values.letter(row, options, "answer", base=0),
        options,
        {"picture": values.picture_key(row)},
    )
