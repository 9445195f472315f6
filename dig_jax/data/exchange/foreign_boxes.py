"""The box cells of anybody's table: read, taken as corners, scaled, kept inside the picture."""

from __future__ import annotations

import json
import math
from dataclasses import dataclass

from dig_jax.boxes import QWEN_SIDE
from dig_jax.data.exchange.bad_row import BadRow

FRAMES = ("px", "unit", "qwen")
FORMATS = ("xyxy", "xywh", "cxcywh")  # corners; left, top, width, height; centre, width, height
_KEYS = ("bbox_2d", "bbox", "box", "boxes")  # of a box, the first that is there
_CORNERS = ("xmin", "ymin", "xmax", "ymax")
_LABELS = ("label", "labels", "category", "categories", "type")
_EDGE_PX = 1.0  # over the edge by rounding (albumentations 459); more needs --clip
_EXACT = 1e-6  # of a side, for boxes at the edge that went through float32


@dataclass(frozen=True)
class BoxRules:
    """How the numbers of a box are meant.

    format   of FORMATS; None: nobody said, so corners
    clip     boxes that reach farther out of the picture than a pixel are cut too
    """

    frame: str  # of FRAMES
    format: str | None = None
    clip: bool = False


def read_boxes(value: object, name: str) -> tuple[list[list[float]], list[str | None]]:
    """Boxes as they are written, and their labels where the column has some; raises BadRow.

    A list of boxes, a list of structures with a box in each, a structure of lists (as the hub's
    `objects`), or the JSON text of any of them.
    """
    try:
        items = json.loads(value) if isinstance(value, str) else value
        items = _transposed(items) if isinstance(items, dict) else items
        boxes = [[float(number) for number in _box(item)] for item in items]
        if any(len(box) != 4 or not all(map(math.isfinite, box)) for box in boxes):
            raise ValueError("a box is four finite numbers")
    except (ValueError, TypeError) as error:
        raise BadRow(
            "no_boxes",
            f"{name}={str(value)[:80]!r} is no list of boxes ({error}); write "
            '[[x0, y0, x1, y1], ...], JSON of {"bbox_2d": [...]} or {"bbox": [...], "category": '
            "[...]}, an empty list for an identical pair",
        ) from error
    return boxes, [_label(item) for item in items]


def _transposed(columns: dict) -> list[dict]:
    """Boxes one by one from a structure of lists; a structure of one box as it is."""
    key = next((key for key in _KEYS if key in columns), None)
    boxes = columns[key] if key else None
    if not isinstance(boxes, list) or (boxes and not isinstance(boxes[0], list | dict)):
        return [columns]
    labels = next((columns[n] for n in _LABELS if isinstance(columns.get(n), list)), None)
    if labels is None:
        return [{key: box} for box in boxes]
    if len(labels) != len(boxes):
        raise ValueError(f"{len(boxes)} boxes and {len(labels)} labels")
    return [{key: box, "label": label} for box, label in zip(boxes, labels, strict=True)]


def _box(item: object) -> list:
    if not isinstance(item, dict):
        return item
    if all(key in item for key in _CORNERS):
        return [item[key] for key in _CORNERS]
    for key in _KEYS:
        if key in item:
            return _box(item[key])
    raise ValueError(f"its keys are {', '.join(map(str, item))}, none of {', '.join(_KEYS)}")


def _label(item: object) -> str | None:
    found = [item[name] for name in _LABELS if name in item] if isinstance(item, dict) else []
    label = found[0] if found else None
    if isinstance(label, int) and not isinstance(label, bool):
        return str(label)  # a class by its number
    return label if isinstance(label, str) else None


def scaled(
    box: list[float], rules: BoxRules, original: tuple[int, int], size: tuple[int, int]
) -> tuple[list[int], bool]:
    """A box in half-open pixels of `size`, and whether it was cut at the picture's edge.

    original   (width, height) of the picture as it came

    Raises BadRow for one outside, without area, or thinner than a pixel at `size`.
    """
    bounds = {"px": original, "unit": (1.0, 1.0), "qwen": (QWEN_SIDE, QWEN_SIDE)}[rules.frame]
    corners = _corners(box, rules.format)
    if corners[0] >= corners[2] or corners[1] >= corners[3]:
        raise _without_area(box, corners, rules, bounds)
    limits, edges = [*bounds, *bounds], [*original, *original]
    inside = [min(max(v, 0.0), limit) for v, limit in zip(corners, limits, strict=True)]
    over_px = [
        abs(v - kept) / limit * edge
        for v, kept, limit, edge in zip(corners, inside, limits, edges, strict=True)
    ]
    empty = inside[0] >= inside[2] or inside[1] >= inside[3]
    if empty or (max(over_px) > _EDGE_PX * (1 + _EXACT) and not rules.clip):
        raise _outside(box, rules, bounds, original, max(over_px))
    sides = [*size, *size]
    px = [round(v / limit * side) for v, limit, side in zip(inside, limits, sides, strict=True)]
    if px[0] == px[2] or px[1] == px[3]:
        raise BadRow(
            "box_vanishes",
            f"box {box} is thinner than a pixel at --size {_text(size)}; use a larger size or "
            "leave the row out",
        )
    return px, any(v > _EXACT * edge for v, edge in zip(over_px, edges, strict=True))


def _corners(box: list[float], format_: str | None) -> list[float]:
    a, b, c, d = box
    if format_ == "xywh":
        return [a, b, a + c, b + d]
    if format_ == "cxcywh":
        return [a - c / 2, b - d / 2, a + c / 2, b + d / 2]
    return [a, b, c, d]


def _fitting(box: list[float], bounds: tuple) -> list[str]:
    """The formats in which a box lies inside the picture and has area."""
    fitting = []
    for format_ in FORMATS:
        x0, y0, x1, y1 = _corners(box, format_)
        if 0 <= x0 < x1 <= bounds[0] and 0 <= y0 < y1 <= bounds[1]:
            fitting.append(format_)
    return fitting


def _without_area(box, corners, rules: BoxRules, bounds: tuple) -> BadRow:
    """Corners in the wrong order are no slip of a row: the numbers probably mean something else.

    A side of exactly 0 is a slip where somebody said the format.
    """
    ordered = corners[0] <= corners[2] and corners[1] <= corners[3]
    fitting = ", ".join(_fitting(box, bounds))
    fits = f"; it would fit as --format {fitting}" if fitting else ""
    how = rules.format or "xyxy"
    slip = f"; where a side of 0 is a slip, say --format {how} with --skip-bad" if ordered else ""
    return BadRow(
        "box_without_area",
        f"box {box} has no area as {how} (x0 < x1, y0 < y1){fits}. The other rows may be meant "
        "otherwise too, and would be taken wrongly without an error: choose --format of "
        f"{', '.join(FORMATS)}, or correct these rows{slip}",
        tells_of_all=not (rules.format and ordered),
    )


def _outside(box, rules: BoxRules, bounds, original, over_px: float) -> BadRow:
    corners_fit = rules.format not in (None, "xyxy") and "xyxy" in _fitting(box, bounds)
    hint = "; it would fit as --format xyxy, as the other rows may too" if corners_fit else ""
    return BadRow(
        "box_outside",
        f"box {box} is outside 0..{bounds[0]} x 0..{bounds[1]}, the frame {rules.frame} of a "
        f"{_text(original)} picture, by {over_px:.4g} px{hint}; correct it, choose another --frame "
        f"of {', '.join(FRAMES)}, or cut such boxes at the edge with --clip",
        tells_of_all=corners_fit,
    )


def _text(size: tuple[int, int]) -> str:
    return "x".join(map(str, size))
