"""MMStar: questions that need their picture, in six categories of three subcategories.

Its own file holds the options within the question's text; they are taken out and asked by the
template, as VLMEvalKit's file is.
"""

from __future__ import annotations

from dig_jax.benchmarks import prompts, values
from dig_jax.benchmarks.options import within
from dig_jax.benchmarks.question import Question
from dig_jax.benchmarks.values import Row


def read(rows: list[Row]) -> tuple[list[Question], list[str]]:
    """Questions with the groups category and subcategory.

    Where a text's options are not found it is asked as it stands; a warning counts them.
    """
    questions = [_question(row) for row in rows]
    whole = sum(not question.options for question in questions)
    if not whole:
        return questions, []
    return questions, [
        f"{whole} of {len(questions)} texts hold no options that could be taken out; they are "
        "asked as they stand, and only their letters are read"
    ]


def _question(row: Row) -> Question:
    stem, options = values.text(row, "question"), values.lettered(row)
    if not options:
        stem, options = within(stem)
    groups = {
        "picture": values.picture_key(row),
        "category": values.text(row, "category"),
        "subcategory": str(values.maybe(row, "l2_category", "l2-category") or ""),
    }
    return Question(
        values.text(row, "index"),
        prompts.choice(stem, options),
        row.pictures,
        "letter",
        values.letter(row, options, "answer"),
        options,
        groups,
    )
