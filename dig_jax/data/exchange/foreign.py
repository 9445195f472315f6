"""Anybody's rows as pairs: two pictures and boxes, checked, brought to one size.

Row errors name the file, the row, the value, the rule and the remedy.
"""

from __future__ import annotations

import io
import json
import math
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from PIL import Image, ImageOps

from dig_jax.boxes import QWEN_SIDE
from dig_jax.data.exchange.parquet import column_names, read_rows
from dig_jax.data.records import Pair
from dig_jax.data.scene.scene import SCHEMA
from dig_jax.inputs.images import resize, to_rgb

FRAMES = ("px", "unit", "qwen")
_CELL = 32  # px of a Qwen3-VL token's side: sizes that are multiples of it are not resized again
_SIDEWAYS = (5, 6, 7, 8)  # EXIF orientations that exchange width and height
_ORIENTATION = 0x0112


class BadRow(ValueError):
    """A row that is no pair; `rule` names what it breaks, for counting."""

    def __init__(self, rule: str, text: str):
        super().__init__(text)
        self.rule = rule


@dataclass(frozen=True)
class Columns:
    """Where a pair stands in a row."""

    images: tuple[str, ...] = ("images",)  # one column of two pictures, or one for each picture
    boxes: str = "answer"  # [[x0, y0, x1, y1], ...], or JSON text, also of {"bbox_2d": [...]}
    frame: str = "qwen"  # of the boxes: px, unit (0..1) or qwen (0..1000)
    types: str | None = None  # one text per box

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
    for path, _, row in foreign_rows(files, columns, limit):
        try:
            sizes.update(_upright_size(cell, path) for cell in _cells(row, columns))
        except (BadRow, OSError):
            continue
    if len(sizes) == 1:
        return next(iter(sizes))
    if not sizes:
        raise ValueError(f"{files[0]} holds no readable picture in {', '.join(columns.images)}")
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
) -> Pair:
    """The pair of a row at (width, height) `size`; its meta lacks split, idx and origin.

    Both pictures are stretched to `size`, boxes with them and rounded to whole pixels. Raises
    BadRow.
    """
    pictures = [_picture(cell, path) for cell in _cells(row, columns)]
    sizes = [picture.shape[1::-1] for picture in pictures]
    boxes, labels = _boxes(row, columns)
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
    boxes_px = [_scaled(box, columns, sizes[0], size) for box in boxes]
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
    return Pair(*resized, None, None, meta)


def _cells(row: dict, columns: Columns) -> list:
    """The two picture cells of a row."""
    cells = [row[name] for name in columns.images]
    if len(columns.images) == 1:
        cells = cells[0] if isinstance(cells[0], list) else cells
        if len(cells) != 2:
            raise BadRow(
                "not_two_images",
                f"{columns.images[0]} holds {len(cells)} pictures; a pair has two: use a column "
                "with a list of two, or --image-a and --image-b",
            )
    return cells


def _open(cell: object, path: Path) -> Image.Image:
    """A picture from the structure that `datasets` stores, or from bare bytes."""
    data = cell
    if isinstance(cell, dict):
        data = cell.get("bytes")
        if data is None and cell.get("path"):
            file = path.parent / cell["path"]
            data = file.read_bytes() if file.is_file() else None
    if not isinstance(data, bytes):
        raise BadRow(
            "no_picture",
            f"a picture is {str(cell)[:60]}; store its bytes (`datasets` does with "
            "Image features), or put the file it names beside the parquet file",
        )
    try:
        return Image.open(io.BytesIO(data))
    except (OSError, SyntaxError, Image.DecompressionBombError) as error:
        raise _unreadable(error) from error


def _unreadable(error: Exception) -> BadRow:
    return BadRow("unreadable", f"a picture cannot be read ({error}); replace it or drop the row")


def _picture(cell: object, path: Path) -> np.ndarray:
    """u8[Y,X,3], upright."""
    image = _open(cell, path)
    try:
        return to_rgb(ImageOps.exif_transpose(image))
    except (OSError, SyntaxError, ValueError, Image.DecompressionBombError) as error:
        raise _unreadable(error) from error


def _upright_size(cell: object, path: Path) -> tuple[int, int]:
    image = _open(cell, path)
    sideways = image.getexif().get(_ORIENTATION) in _SIDEWAYS
    return image.size[::-1] if sideways else image.size


def _boxes(row: dict, columns: Columns) -> tuple[list[list[float]], list[str | None]]:
    """Boxes as they are written, and their labels where a JSON answer has some."""
    value = row[columns.boxes]
    try:
        items = json.loads(value) if isinstance(value, str) else value
        named = [item if isinstance(item, dict) else {"bbox_2d": item} for item in items]
        boxes = [[float(number) for number in item["bbox_2d"]] for item in named]
        if any(len(box) != 4 or not all(map(math.isfinite, box)) for box in boxes):
            raise ValueError("a box is four finite numbers")
    except (ValueError, TypeError, KeyError) as error:
        raise BadRow(
            "no_boxes",
            f"{columns.boxes}={str(value)[:80]!r} is no list of boxes ({error}); write "
            '[[x0, y0, x1, y1], ...] or JSON of {"bbox_2d": [...]}, an empty list for an '
            "identical pair",
        ) from error
    labels = [item.get("label") for item in named]
    return boxes, [label if isinstance(label, str) else None for label in labels]


def _types(value: object, name: str, count: int) -> list[str | None]:
    ok = isinstance(value, list) and len(value) == count
    if not ok or any(not isinstance(kind, str | None) for kind in value):
        raise BadRow(
            "wrong_types",
            f"{name}={str(value)[:80]!r} is not one text per box ({count} boxes); correct it or "
            "leave --types out",
        )
    return value


def _scaled(
    box: list[float], columns: Columns, original: tuple[int, int], size: tuple[int, int]
) -> list[int]:
    """A box in half-open pixels of `size`; raises BadRow for one outside or without area."""
    bounds = {"px": original, "unit": (1.0, 1.0), "qwen": (QWEN_SIDE, QWEN_SIDE)}[columns.frame]
    limits = [*bounds, *bounds]
    if any(not 0 <= value <= limit for value, limit in zip(box, limits, strict=True)):
        raise BadRow(
            "box_outside",
            f"box {box} is outside 0..{bounds[0]} x 0..{bounds[1]}, the frame {columns.frame} of "
            f"a {_text(original)} picture; correct it or choose another --frame of "
            f"{', '.join(FRAMES)}",
        )
    if box[0] >= box[2] or box[1] >= box[3]:
        raise BadRow(
            "box_without_area",
            f"box {box} has no area (x0 < x1, y0 < y1); is it x, y, width, height? Write corners",
        )
    sides = [*size, *size]
    scaled = [round(v / limit * side) for v, limit, side in zip(box, limits, sides, strict=True)]
    if scaled[0] == scaled[2] or scaled[1] == scaled[3]:
        raise BadRow(
            "box_vanishes",
            f"box {box} is thinner than a pixel at --size {_text(size)}; use a larger size or "
            "leave the row out",
        )
    return scaled


def _text(size: tuple[int, int]) -> str:
    return "x".join(map(str, size))
