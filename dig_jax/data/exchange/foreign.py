"""Anybody's rows as pairs: two pictures and boxes, checked, brought to one size.

Row errors name the file, the row, the value, the rule and the remedy.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from dig_jax.data.exchange import foreign_boxes, foreign_pictures
from dig_jax.data.exchange.bad_row import BadRow
from dig_jax.data.exchange.foreign_boxes import BoxRules
from dig_jax.data.exchange.parquet import column_names, read_rows
from dig_jax.data.records import Pair
from dig_jax.data.scene.scene import SCHEMA
from dig_jax.inputs.images import resize

_CELL = 32  # px of a Qwen3-VL token's side: sizes that are multiples of it are not resized again


@dataclass(frozen=True)
class Columns:
    """Where a pair stands in a row."""

    images: tuple[str, ...] = ("images",)  # one column of two pictures, or one for each picture
    boxes: str = "answer"  # as `foreign_boxes.read_boxes` reads them
    frame: str = "qwen"  # of the boxes: px, unit (0..1) or qwen (0..1000)
    types: str | None = None  # one text per box
    format: str | None = None  # of the boxes: xyxy (also where nobody says), xywh or cxcywh
    clip: bool = False  # boxes that reach out of the picture by more than a pixel

    @property
    def rules(self) -> BoxRules:
        return BoxRules(self.frame, self.format, self.clip)

    @property
    def names(self) -> list[str]:
        return [*self.images, self.boxes, *([self.types] if self.types else [])]

    def check(self, path: Path) -> None:
        """Refuse a file that lacks one of the columns."""
        found = column_names(path)
        for name in self.names:
            if name not in found:
                raise ValueError(
                    f"{path} has no column {name!r}; it has {', '.join(found)}: name yours with "
                    "--images (or --image-a and --image-b), --boxes and --frame"
                )


def foreign_rows(
    files: list[Path], columns: Columns, limit: int | None
) -> Iterator[tuple[Path, int, dict]]:
    """(file, row number in it, row) of the first `limit` rows."""
    left = math.inf if limit is None else limit
    for path in files:
        for number, row in enumerate(read_rows(path, columns.names)):
            if left <= 0:
                return
            left -= 1
            yield path, number, row


def one_size(files: list[Path], columns: Columns, limit: int | None) -> tuple[int, int]:
    """The (width, height) that all pictures have; raises ValueError where there are several.

    Reads headers only; pictures that cannot be read are left for `pair_of` to name.
    """
    sizes: Counter = Counter()
    first_fault = ""
    for path, number, row in foreign_rows(files, columns, limit):
        try:
            cells = foreign_pictures.cells(row, columns.images)
            sizes.update(foreign_pictures.picture_size(cell, path) for cell in cells)
        except BadRow as error:
            first_fault = first_fault or f"{path} row {number}: {error}"
    if len(sizes) == 1:
        return next(iter(sizes))
    if not sizes:
        names = ", ".join(columns.images)
        raise ValueError(first_fault or f"{files[0]} has no row, so no picture in {names}")
    shown = ", ".join(f"{w}x{h} ({n})" for (w, h), n in sizes.most_common(4))
    more = f" and {len(sizes) - 4} more" if len(sizes) > 4 else ""
    middle = [np.median([size[axis] for size in sizes.elements()]) for axis in (0, 1)]
    near = "x".join(str(max(_CELL, round(side / _CELL) * _CELL)) for side in middle)
    raise ValueError(
        f"the pictures have {len(sizes)} sizes: {shown}{more}; training wants one: add "
        f"--size {near} (their middle, in whole cells of {_CELL} px) or another WxH"
    )


def pair_of(
    row: dict,
    path: Path,
    *,
    columns: Columns,
    size: tuple[int, int],
    max_boxes: int,
) -> tuple[Pair, int]:
    """The pair of a row at (width, height) `size`, and how many boxes were cut at the edge.

    Its meta lacks split, idx and origin.

    Both pictures are stretched to `size`, boxes with them and rounded to whole pixels. Raises
    BadRow.
    """
    cells = foreign_pictures.cells(row, columns.images)
    pictures = [foreign_pictures.picture(cell, path) for cell in cells]
    sizes = [picture.shape[1::-1] for picture in pictures]
    boxes, labels = foreign_boxes.read_boxes(row[columns.boxes], columns.boxes)
    if len(boxes) > max_boxes:
        raise BadRow(
            "too_many_boxes",
            f"{columns.boxes} has {len(boxes)} boxes, more than --max-boxes={max_boxes}; raise it "
            "and data.max_boxes of the run, or leave the row out",
        )
    if columns.types:
        labels = _types(row[columns.types], columns.types, len(boxes))
    if columns.frame == "px" and sizes[0] != sizes[1]:
        raise BadRow(
            "two_sizes",
            f"pictures of {_text(sizes[0])} and {_text(sizes[1])} with boxes in px: of which? Give "
            "both one size, or boxes relative to it (--frame unit or qwen)",
        )
    made = [foreign_boxes.scaled(box, columns.rules, sizes[0], size) for box in boxes]
    boxes_px = [box for box, _ in made]
    meta = {
        "schema": SCHEMA,
        "k": len(boxes),
        "source": "import",
        "width": size[0],
        "height": size[1],
        "original_size": [list(map(int, one)) for one in sizes],
        "differences": [
            {"box": box, "type": label} for box, label in zip(boxes_px, labels, strict=True)
        ],
    }
    resized = [resize(picture, size[::-1]) for picture in pictures]
    return Pair(*resized, None, None, meta), sum(cut for _, cut in made)


def _types(value: object, name: str, count: int) -> list[str | None]:
    ok = isinstance(value, list) and len(value) == count
    if not ok or any(not isinstance(kind, str | None) for kind in value):
        raise BadRow(
            "wrong_types",
            f"{name}={str(value)[:80]!r} is not one text per box ({count} boxes); correct it or "
            "leave --types out",
        )
    return value


def _text(size: tuple[int, int]) -> str:
    return "x".join(map(str, size))
