"""HallusionBench: figures, changed and unchanged, and several questions of each.

The keys of its three accuracies are those of its authors' code: a figure, and a question about all
figures of a set, within category and subcategory. Rows without a picture do not count.
"""

from __future__ import annotations

from dig_jax.benchmarks import prompts, values
from dig_jax.benchmarks.question import Question
from dig_jax.benchmarks.values import Row


def read(rows: list[Row]) -> tuple[list[Question], list[str]]:
    """Questions with the groups category, subcategory, set, figure and question."""
    return [_question(row) for row in rows if row.pictures], []


def _question(row: Row) -> Question:
    category = values.text(row, "category")
    subcategory = values.text(row, "subcategory", "l2-category")
    number, figure, asked = _keys(row)
    within = f"{category}_{subcategory}_{number}"
    groups = {
        "picture": values.picture_key(row),
        "category": category,
        "subcategory": subcategory,
        "set": within,
        "figure": f"{within}_figure_{figure}",
        "question": f"{within}_question_{asked}",
    }
    prompt = prompts.yes_no(values.text(row, "question"))
    target = values.yes_no(row, "gt_answer", "answer")
    name = f"{within}_{figure}_{asked}"
    return Question(name, prompt, row.pictures, "yes_no", target, groups=groups)


def _keys(row: Row) -> tuple[str, str, str]:
    """The numbers of set, figure and question; VLMEvalKit's index ends in them."""
    if values.maybe(row, "set_id") is not None:
        return tuple(values.text(row, n) for n in ("set_id", "figure_id", "question_id"))
    parts = values.text(row, "index").split("_")
    if len(parts) < 3:
        rule = "does not end in the numbers of set, figure and question"
        raise values.refuse(row, "index", values.text(row, "index"), rule)
    return tuple(parts[-3:])
