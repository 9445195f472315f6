"""HR-Bench: 200 questions about large pictures, each in four orders of its options (cycles)."""

from __future__ import annotations

from collections import Counter

from dig_jax.benchmarks import prompts, values
from dig_jax.benchmarks.question import Question
from dig_jax.benchmarks.values import Row

CYCLES = 4


def read(rows: list[Row]) -> tuple[list[Question], list[str]]:
    """Questions with the groups category, cycle, and question: the same one in all its cycles."""
    questions, firsts = [], {}
    for row in rows:
        name, asked = values.text(row, "index"), values.text(row, "question")
        options = values.lettered(row)
        groups = {
            "picture": values.picture_key(row),
            "category": values.text(row, "category"),
            "cycle": values.text(row, "cycle_category"),
            "question": firsts.setdefault((asked, values.picture_key(row)), name),
        }
        target = values.letter(row, options, "answer")
        prompt = prompts.choice(asked, options)
        questions.append(Question(name, prompt, row.pictures, "letter", target, options, groups))
    cycles = Counter(question.groups["question"] for question in questions)
    odd = [name for name, count in cycles.items() if count != CYCLES]
    if not odd:
        return questions, []
    return questions, [
        f"{len(odd)} of {len(cycles)} questions are not asked in {CYCLES} cycles, that of index "
        f"{odd[0]} in {cycles[odd[0]]}"
    ]
