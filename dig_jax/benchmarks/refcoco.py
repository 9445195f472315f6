"""RefCOCO, RefCOCO+ and RefCOCOg: a question per expression, its box in 0..1000 of the picture.

Read as lmms-lab has them (a row per object with a list of expressions), as Kangheng has them (a row
per expression), as VLM-R1's and Perception-R1's JSON lists, and as VLMEvalKit's one file of all
eight splits. IoU is the same in pixels and in thousandths.
"""

from __future__ import annotations

import functools
import re
from collections.abc import Callable

from dig_jax.benchmarks import prompts, values
from dig_jax.benchmarks.entry import Benchmark
from dig_jax.benchmarks.picture_cells import is_there, size_of
from dig_jax.benchmarks.question import Picture, Question
from dig_jax.benchmarks.values import Box, Row
from dig_jax.boxes import QWEN_SIDE

SLACK = 0.01  # of a side, by which COCO's boxes leave their pictures
_DESCRIBES = (
    re.compile(r"<ref>(.+?)</ref>", re.S),
    re.compile(r"describes?:\s*(.+?)\.?\s*$", re.S),
)
_CORNERS = [f"bbox_{side}" for side in ("x1", "y1", "x2", "y2")]
_Sizes = Callable[[Picture], tuple[int, int]]


def read(rows: list[Row], entry: Benchmark, prompt: str) -> tuple[list[Question], list[str]]:
    """Questions with the group object, which all expressions of one box of a picture share.

    prompt  of `prompts.PROMPTS`; VLMEvalKit's file is asked in its own words for "vlmevalkit"
    """
    rows = [row for row in rows if _is_of(row, entry)]
    sizes = functools.cache(size_of)  # of a picture, which many expressions share
    as_sizes, warnings = _read_as_sizes(rows, sizes)
    questions = []
    for number, row in enumerate(rows):
        box, key = _target(row, as_sizes, sizes), values.picture_key(row)
        name = f"{key}:{','.join(f'{value:.1f}' for value in box)}"
        groups = {"picture": key, "object": name}
        for own_id, expression in _expressions(row, number):
            asked = _own_words(row) if prompt == "vlmevalkit" else None
            asked = asked or prompts.locate(expression, prompt)
            questions.append(Question(own_id, asked, row.pictures, "box", box, groups=groups))
    return questions, warnings


def _own_words(row: Row) -> str | None:
    """The question of VLMEvalKit's file, which asks for the region that it describes."""
    asked = str(row.values.get("question"))
    return asked if _is_tsv(row) and _described(asked) else None


def _is_tsv(row: Row) -> bool:
    return row.file.suffix.lower() == ".tsv"


def _is_of(row: Row, entry: Benchmark) -> bool:
    """Whether a row is of the split: VLMEvalKit's file says so, others hold one split."""
    said = values.maybe(row, "category", "split", "dataset") if _is_tsv(row) else None
    return said is None or _plain(str(said)) == _plain(entry.split)


def _plain(split: str) -> str:
    """ "RefCOCO+ testA", "RefCOCO+_testA" and "refcoco+ test A" as one."""
    return re.sub(r"[\s_-]+", "", split).lower()


def _expressions(row: Row, number: int) -> list[tuple[str, str]]:
    """(id, expression) of every sentence that describes the row's object."""
    many = row.values.get("answer")
    if isinstance(many, list):  # lmms-lab
        if not many or any(values.is_empty(sentence) for sentence in many):
            raise values.refuse(row, "answer", many, "holds an empty sentence")
        return [(f"{number}-{part}", str(sentence)) for part, sentence in enumerate(many)]
    index = values.maybe(row, "index")
    return [(str(number if index is None else index), _expression(row))]


def _expression(row: Row) -> str:
    """What describes the object, out of the words that ask for it."""
    said = values.maybe(row, "normal_caption", "sentence", "expression", "caption")
    if said is not None:
        return str(said)
    asked = values.text(row, "question", "problem")
    if found := _described(asked):
        return found
    if "problem" in row.values or "bounding box" in asked.lower():
        raise values.refuse(row, "question", asked, "tells no expression behind 'describes:'")
    return asked


def _described(asked: str) -> str | None:
    """The expression in a question that asks for the region which it describes."""
    matches = (pattern.search(asked) for pattern in _DESCRIBES)
    return next((match[1] for match in matches if match), None)


def _target(row: Row, as_sizes: bool, sizes: _Sizes) -> Box:
    """The box x0 y0 x1 y1 in 0..1000; raises ValueError where it is none, or leaves its picture."""
    (x0, y0, x1, y1), frame = _written(row)
    if frame == "bbox" and as_sizes:
        x1, y1 = x0 + x1, y0 + y1
    if frame == "share":
        width = height = 1.0 if max(x0, y0, x1, y1) <= 1 + SLACK else QWEN_SIDE
    else:
        width, height = _size(row, sizes)
    across, down = QWEN_SIDE / width, QWEN_SIDE / height
    box = (x0 * across, y0 * down, x1 * across, y1 * down)
    low, high = -SLACK * QWEN_SIDE, (1 + SLACK) * QWEN_SIDE
    if not (all(low <= v <= high for v in box) and box[0] < box[2] and box[1] < box[3]):
        shown = [round(value) for value in box]
        raise values.refuse(row, "box", shown, "leaves 0..1000 of its picture, or has no area")
    return box


def _written(row: Row) -> tuple[Box, str]:
    """(the box as it is written, its frame).

    "px" corners in pixels, "bbox" corners or x y width height in pixels, "share" corners in 0..1 or
    0..1000 of the picture
    """
    if all(values.maybe(row, name) is not None for name in _CORNERS):
        return tuple(values.number(row, name) for name in _CORNERS), "px"
    if _is_tsv(row) and values.maybe(row, "answer") is not None:
        found = values.box(row, "answer")
        return found, "share" if max(found) <= 1 + SLACK else "px"
    normalised = values.maybe(row, "normalized_solution") is not None
    if normalised and (values.maybe(row, "solution") is None or not _has_size(row)):
        return values.box(row, "normalized_solution"), "share"
    if values.maybe(row, "solution") is not None:
        return values.box(row, "solution"), "px"
    return values.box(row, "bbox"), "bbox"


def _has_size(row: Row) -> bool:
    return values.maybe(row, "width") is not None or all(map(is_there, row.pictures))


def _size(row: Row, sizes: _Sizes) -> tuple[float, float]:
    """(width, height) in pixels: as stored, else from the picture's header."""
    if values.maybe(row, "width") is not None:
        stored = values.number(row, "width"), values.number(row, "height")
    elif values.maybe(row, "image_size") is not None:  # Kangheng
        stored = tuple(map(float, values.listed(row, "image_size")[:2]))
    else:
        values.picture_key(row)
        stored = sizes(row.pictures[0])
    if min(stored) < 1:
        raise values.refuse(row, "width, height", stored, "are no size of a picture")
    return stored


def _read_as_sizes(rows: list[Row], sizes: _Sizes) -> tuple[bool, list[str]]:
    """Whether the column bbox is x y width height and not corners; what is to be said of it.

    lmms-lab's is; where a row has one expression, the numbers of all rows decide.
    """
    mine = [row for row in rows if _written(row)[1] == "bbox"]
    if not mine or any(isinstance(row.values.get("answer"), list) for row in mine):
        return bool(mine), []
    corners = extents = True
    for row in mine:
        x, y, a, b = values.box(row, "bbox")
        width, height = _size(row, sizes)
        corners &= a > x and b > y
        extents &= x + a <= width * (1 + SLACK) and y + b <= height * (1 + SLACK)
    if corners != extents:
        return extents, []
    which = "both" if corners else "neither"
    return False, [
        f"by their numbers the boxes could be {which} of x0 y0 x1 y1 and x y width height; they "
        "are read as the former"
    ]
