"""Sets of boxes, the three frames they live in, and how alike two boxes are.

Frames are suffixes: `boxes_unit` 0..1 of the image's width and height, `boxes_px` half-open
pixels, `boxes_qwen` the integers 0..1000 that Qwen3-VL reads and writes. Always x0 y0 x1 y1 from
the top left corner. Everything between parsing and logging is in the unit frame.
"""

import json
from collections.abc import Sequence

import jax
import jax.numpy as jnp
import numpy as np
from flax import struct

QWEN_SIDE = 1000  # Qwen3-VL's coordinates are thousandths of the image side


@struct.dataclass
class BoxSet:
    """A padded set of boxes per leading index.

    boxes  f32[..., M, 4]   unit frame; padding rows hold anything, usually 0
    valid  bool[..., M]     which rows are boxes
    """

    boxes: jax.Array
    valid: jax.Array


def pairwise_iou(pred: jax.Array, true: jax.Array) -> jax.Array:
    """Overlap of every predicted box with every true box.

    pred   f32[..., Q, 4]   any frame, the same as true
    true   f32[..., M, 4]
    ->     f32[..., Q, M]   in [0, 1]

    A box without area (or with swapped corners) overlaps nothing: 0, never NaN, not even with
    itself. Padding is not special here: mask afterwards. NumPy in gives NumPy out, so that host
    code and jitted code share one definition.
    """
    shared, union, _ = _areas(pred, true)
    return _ratio(shared, union)


def pairwise_giou(pred: jax.Array, true: jax.Array) -> jax.Array:
    """IoU less the share of the common hull that neither box covers.

    pred   f32[..., Q, 4]   any frame, the same as true
    true   f32[..., M, 4]
    ->     f32[..., Q, M]   in [-1, 1]; where even the hull has no area: -1
    """
    shared, union, hull = _areas(pred, true)
    return _ratio(shared, union) + _ratio(union, hull) - 1.0


def pairwise_l1(pred: jax.Array, true: jax.Array) -> jax.Array:
    """Sum of the four absolute corner differences.

    pred   f32[..., Q, 4]   any frame, the same as true
    true   f32[..., M, 4]
    ->     f32[..., Q, M]   in [0, 4] for boxes inside the unit frame
    """
    return sum(abs(p - t) for p, t in zip(*_coordinates(pred, true), strict=True))


def _areas(pred, true):
    """Intersection, union and hull area of every pair, each [..., Q, M]."""
    xp = _namespace(pred, true)
    (px0, py0, px1, py1), (tx0, ty0, tx1, ty1) = _coordinates(pred, true)

    def area(x0, y0, x1, y1):
        # each side is clipped on its own: two negative sides would multiply to a positive area
        return xp.clip(x1 - x0, 0.0, None) * xp.clip(y1 - y0, 0.0, None)

    low, high = xp.minimum, xp.maximum
    shared = area(high(px0, tx0), high(py0, ty0), low(px1, tx1), low(py1, ty1))
    hull = area(low(px0, tx0), low(py0, ty0), high(px1, tx1), high(py1, ty1))
    union = area(px0, py0, px1, py1) + area(tx0, ty0, tx1, ty1) - shared
    return shared, union, hull


def _coordinates(pred, true):
    """x0 y0 x1 y1 of pred [..., Q, 1] and of true [..., 1, M].

    One array each: with the four side by side in the last axis, XLA's loop over pairs does not
    vectorise and takes 14 times as long on a CPU.
    """
    return [pred[..., :, None, i] for i in range(4)], [true[..., None, :, i] for i in range(4)]


def _ratio(part, whole):
    xp = _namespace(part, whole)
    some = whole > 0
    return xp.where(some, part / xp.where(some, whole, 1.0), 0.0)


def _namespace(*arrays):
    return jnp if any(isinstance(x, jax.Array) for x in arrays) else np


def unit_from_px(boxes_px: np.ndarray, width: int, height: int) -> np.ndarray:
    """Half-open pixel boxes [..., 4] of a width x height image -> f32[..., 4] in 0..1."""
    sides = np.array([width, height, width, height], np.float32)
    return np.asarray(boxes_px, np.float32) / sides


def px_from_unit(boxes_unit: np.ndarray, width: int, height: int) -> np.ndarray:
    """Unit boxes [..., 4] -> f64[..., 4], half-open pixels of a width x height image."""
    return np.asarray(boxes_unit, np.float64) * np.array([width, height, width, height])


def qwen_from_unit(boxes_unit: np.ndarray) -> np.ndarray:
    """Unit boxes [..., 4] -> i64[..., 4] in 0..1000: nearest thousandth, clipped to the image."""
    scaled = np.round(np.asarray(boxes_unit, np.float64) * QWEN_SIDE)
    return np.clip(scaled, 0, QWEN_SIDE).astype(np.int64)


def unit_from_qwen(boxes_qwen: np.ndarray) -> np.ndarray:
    """Boxes [..., 4] in thousandths -> f32[..., 4] in 0..1."""
    return (np.asarray(boxes_qwen, np.float64) / QWEN_SIDE).astype(np.float32)


def pad_boxes(rows: Sequence[np.ndarray], size: int) -> BoxSet:
    """Stack ragged box lists into one padded set of NumPy arrays.

    rows   B arrays [n, 4], unit frame, n <= size; an empty one may have any shape
    size   M, rows kept per set
    ->     BoxSet of f32[B, M, 4] and bool[B, M]

    Raises where a row has more boxes than size, or other than four numbers per box.
    """
    boxes = np.zeros((len(rows), size, 4), np.float32)
    valid = np.zeros((len(rows), size), bool)
    for index, row in enumerate(rows):
        row = np.asarray(row, np.float32)
        row = row.reshape(0, 4) if row.size == 0 else row
        if row.ndim != 2 or row.shape[1] != 4:
            raise ValueError(f"rows[{index}] has shape {row.shape}; a box list is [n, 4]")
        if len(row) > size:
            raise ValueError(
                f"rows[{index}] has {len(row)} boxes, more than size={size}; "
                f"raise data.max_boxes (true boxes) or reward.max_boxes (predictions)"
            )
        boxes[index, : len(row)] = row
        valid[index, : len(row)] = True
    return BoxSet(boxes=boxes, valid=valid)


def reading_order(boxes: np.ndarray) -> np.ndarray:
    """Boxes f32[n,4] sorted by top edge, then left: an order that a causal reader can know."""
    return boxes[np.lexsort((boxes[:, 0], boxes[:, 1]))]


def boxes_text(boxes_unit: np.ndarray) -> str:
    """The right answer to a pair, boxes f32[n,4], in the format that the reward reads."""
    return json.dumps([{"bbox_2d": qwen_from_unit(box).tolist()} for box in boxes_unit])
