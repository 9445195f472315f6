"""MME: two yes-or-no questions about every picture, in fourteen categories."""

from __future__ import annotations

from collections import Counter

from dig_jax.benchmarks import prompts, values
from dig_jax.benchmarks.question import Question
from dig_jax.benchmarks.values import Row


def read(rows: list[Row]) -> tuple[list[Question], list[str]]:
    """Questions with the groups category and pair: the two questions of one picture."""
    questions, seen = [], Counter()
    for row in rows:
        category = values.text(row, "category")
        name = values.maybe(row, "question_id", "image_path") or values.picture_key(row)
        pair = f"{category}/{str(name).removeprefix(f'{category}/')}"
        seen[pair] += 1
        index = values.maybe(row, "index")
        groups = {"picture": values.picture_key(row), "category": category, "pair": pair}
        questions.append(
            Question(
                f"{pair}#{seen[pair]}" if index is None else str(index),
                prompts.yes_no(values.text(row, "question")),
                row.pictures,
                "yes_no",
                values.yes_no(row, "answer"),
                groups=groups,
            )
        )
    odd = [pair for pair, count in seen.items() if count != 2]
    if not odd:
        return questions, []
    return questions, [
        f"{len(odd)} pictures have not two questions, {odd[0]} has {seen[odd[0]]}: accuracy+ "
        "counts those that are there"
    ]
