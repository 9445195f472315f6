"""VSR: is a statement about where two things are true of the picture?"""

from __future__ import annotations

from dig_jax.benchmarks import prompts, values
from dig_jax.benchmarks.question import Question
from dig_jax.benchmarks.values import Row


def read(rows: list[Row]) -> tuple[list[Question], list[str]]:
    """Questions with the group category: the relation, "" where the file does not tell."""
    questions = []
    for place, row in enumerate(rows):
        if values.maybe(row, "caption") is not None:
            prompt, target = prompts.statement(values.text(row, "caption")), ("label", "answer")
        else:  # VLMEvalKit's rows are questions already
            prompt, target = prompts.yes_no(values.text(row, "question")), ("answer", "label")
        relation = values.maybe(row, "relation", "category") or ""
        groups = {"picture": values.picture_key(row), "category": str(relation)}
        name = values.maybe(row, "index")
        questions.append(
            Question(
                str(place if name is None else name),
                prompt,
                row.pictures,
                "yes_no",
                values.yes_no(row, *target),
                groups=groups,
            )
        )
    return questions, []
