"""Questions as rows of the benchmarks' own files, in the columns that their authors chose.

A `Table` is one file of a benchmark. Where a column tells something that only photographs have
(an annotator, a link), it is there and empty.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from dig_jax.data.questions.asked import Asked

SOURCE = "dig_jax"  # where a format asks which data set a picture is of
Row = dict
# (question, row numbers from this on, its pictures' cells) -> its rows
Rows = Callable[[Asked, int, list], list[Row]]


@dataclass(frozen=True)
class Table:
    """A file of a benchmark.

    path     below the folder of all benchmarks
    kinds    kind of question -> at most so many of a group about one pair
    columns  name -> "image", a scalar type or [type]; {} for JSON lines with pictures beside them
    rows     makes them
    """

    path: str
    kinds: dict[str, int]
    columns: dict
    rows: Rows

    @property
    def benchmark(self) -> str:
        return self.path.partition("/")[0]


def _pope(asked: Asked, number: int, images: list) -> list[Row]:
    source = images[0]["path"].removesuffix(".png")
    return [
        {
            "id": str(number),
            "question_id": str(number + 1),
            "question": asked.text,
            "answer": asked.answer,
            "image_source": source,
            "image": images[0],
            "category": asked.cell[0],
        }
    ]


def _refcoco(asked: Asked, number: int, images: list) -> list[Row]:
    """An object with all its expressions, as the hub's copy has them; a box is x y width height."""
    x0, y0, x1, y1 = asked.box_px
    return [
        {
            "question_id": str(number),
            "image": images[0],
            "question": asked.text,
            "answer": list(asked.names),
            "segmentation": [],
            "bbox": [x0, y0, x1 - x0, y1 - y0],
            "iscrowd": 0,
            "file_name": images[0]["path"],
        }
    ]


_TASKS = {"count": "Count", "relation": "Relation", "depth": "Depth", "distance": "Distance"}


def _cvbench(asked: Asked, number: int, images: list) -> list[Row]:
    options = _lettered(asked.options)
    task = _TASKS[asked.kind]
    return [
        {
            "idx": number,
            "type": "2D" if task in ("Count", "Relation") else "3D",
            "task": task,
            "image": images[0],
            "question": asked.text,
            "choices": list(asked.options),
            "answer": f"({asked.letters[0]})",
            "prompt": f"{asked.text} Select from the following choices.\n{options}",
            "filename": images[0]["path"],
            "source": SOURCE,
        }
    ]


def _vsr(asked: Asked, number: int, images: list) -> list[Row]:
    relation, _, _ = asked.cell[1].rpartition(" ")
    one, _, other = asked.text.removesuffix(".").partition(f" is {relation} ")
    return [
        {
            "image": images[0]["path"],
            "image_link": "",
            "caption": asked.text,
            "label": int(asked.answer),
            "relation": relation,
            "annotator_id": 0,
            "vote_true_validator_id": [],
            "vote_false_validator_id": [],
            "subj": one.removeprefix("The "),
            "obj": other.removeprefix("the "),
        }
    ]


_CATEGORIES = {"attribute": "direct_attributes", "position": "relative_position"}


def _vstar(asked: Asked, number: int, images: list) -> list[Row]:
    ask = "Answer with the option's letter from the given choices directly."
    return [
        {
            "image": images[0],
            "text": f"{asked.text}\n{_lettered(asked.options)}\n{ask}",
            "category": _CATEGORIES[asked.kind],
            "label": asked.letters[0],
            "question_id": str(number),
        }
    ]


def _mmvp(asked: Asked, number: int, images: list) -> list[Row]:
    """Two rows that follow one another: the same question about two pictures."""
    letters = [letter.lower() for letter in asked.letters]
    marks = zip("ab", asked.options, strict=True)
    options = " ".join(f"({letter}) {option.capitalize()}" for letter, option in marks)
    return [
        {
            "Index": number + place + 1,
            "Question": asked.text,
            "Options": options,
            "Correct Answer": f"({letter})",
            "image": image,
        }
        for place, (letter, image) in enumerate(zip(letters, images, strict=True))
    ]


def _lettered(options: tuple[str, ...]) -> str:
    return "\n".join(f"({chr(ord('A') + n)}) {option}" for n, option in enumerate(options))


_POPE = {
    "id": "string",
    "question_id": "string",
    "question": "string",
    "answer": "string",
    "image_source": "string",
    "image": "image",
    "category": "string",
}
_REFCOCO = {
    "question_id": "string",
    "image": "image",
    "question": "string",
    "answer": ["string"],
    "segmentation": ["float32"],
    "bbox": ["float32"],
    "iscrowd": "int8",
    "file_name": "string",
}
_CVBENCH = {
    "idx": "int64",
    "type": "string",
    "task": "string",
    "image": "image",
    "question": "string",
    "choices": ["string"],
    "answer": "string",
    "prompt": "string",
    "filename": "string",
    "source": "string",
}
_VSTAR = {
    "image": "image",
    "text": "string",
    "category": "string",
    "label": "string",
    "question_id": "string",
}
_MMVP = {
    "Index": "int64",
    "Question": "string",
    "Options": "string",
    "Correct Answer": "string",
    "image": "image",
}
TABLES = (
    Table("pope/test-00000-of-00001.parquet", {"existence": 2}, _POPE, _pope),
    Table("refcoco_val/val-00000-of-00001.parquet", {"referring": 2}, _REFCOCO, _refcoco),
    Table("cvbench/test_2d.parquet", {"count": 2, "relation": 1}, _CVBENCH, _cvbench),
    Table("cvbench/test_3d.parquet", {"depth": 1, "distance": 1}, _CVBENCH, _cvbench),
    Table("vsr/test.jsonl", {"statement": 2}, {}, _vsr),
    Table("vstar/test-00000-of-00001.parquet", {"attribute": 2, "position": 1}, _VSTAR, _vstar),
    Table("mmvp/train-00000-of-00001.parquet", {"twins": 1}, _MMVP, _mmvp),
)
