"""From two ID masks and two images to certified labels.

The label of a difference is the tight box of the pixels where the changed thing is visible in
image A or in image B: half-open pixels [x0, y0, x1, y1), equal to the union of the two visible
boxes, unchanged by swapping the images. Shadows and reflections are not part of a label.
"""

from __future__ import annotations

import numpy as np

from dig_jax.data.scene import Plan, Rejected, SceneConfig

_FAINT = 25  # of 255: the lower level at which residuals are reported


def tight_box(mask: np.ndarray) -> list[int] | None:
    """Smallest half-open box around the true pixels of bool[Y,X]; None where there are none."""
    rows, columns = np.flatnonzero(mask.any(1)), np.flatnonzero(mask.any(0))
    if rows.size == 0:
        return None
    return [int(columns[0]), int(rows[0]), int(columns[-1]) + 1, int(rows[-1]) + 1]


def label_boxes(mask_a: np.ndarray, mask_b: np.ndarray, ids: tuple[int, ...]) -> np.ndarray:
    """The label box of every id: i64[N,4]; zeros where an id is visible in neither image."""
    boxes = [tight_box((mask_a == i) | (mask_b == i)) or [0, 0, 0, 0] for i in ids]
    return np.array(boxes, np.int64).reshape(-1, 4)


def box_iou(first: np.ndarray, second: np.ndarray) -> np.ndarray:
    """Overlap of every box of [N,4] with every box of [R,4]: f64[N,R]; 0 without area."""
    low = np.maximum(first[:, None, :2], second[None, :, :2])
    high = np.minimum(first[:, None, 2:], second[None, :, 2:])
    shared = np.prod(np.maximum(high - low, 0), -1)
    area = [np.prod(boxes[:, 2:] - boxes[:, :2], -1) for boxes in (first, second)]
    return shared / np.maximum(area[0][:, None] + area[1][None, :] - shared, 1)


def pixel_difference(image_a: np.ndarray, image_b: np.ndarray) -> np.ndarray:
    """Largest channel difference per pixel of two u8[Y,X,3]: i16[Y,X]."""
    return np.abs(image_a.astype(np.int16) - image_b).max(-1)


def largest_blob(mask: np.ndarray) -> int:
    """Pixels in the largest 8-connected part of bool[Y,X]."""
    left = set(zip(*np.nonzero(mask), strict=True))
    best = 0
    while left:
        queue = [left.pop()]
        size = 0
        while queue:
            row, column = queue.pop()
            size += 1
            near = {(row + i, column + j) for i in (-1, 0, 1) for j in (-1, 0, 1)} & left
            left -= near
            queue.extend(near)
        best = max(best, size)
    return best


def grow(mask: np.ndarray, radius: int) -> np.ndarray:
    """Dilate bool[Y,X] by a square of side 2 radius + 1."""
    wide = np.pad(mask, radius)
    out = np.zeros_like(mask)
    rows, columns = mask.shape
    for i in range(2 * radius + 1):
        for j in range(2 * radius + 1):
            out |= wide[i : i + rows, j : j + columns]
    return out


def certify(
    config: SceneConfig,
    plan: Plan,
    images: tuple[np.ndarray, np.ndarray],
    masks: tuple[np.ndarray, np.ndarray],
    expected: tuple[np.ndarray, np.ndarray],
    amodal: tuple[dict[int, np.ndarray], dict[int, np.ndarray]],
) -> tuple[list[dict], dict]:
    """Labels of a rendered pair and what else differs in it.

    images    u8[Y,X,3] twice
    masks     u8[Y,X] twice: rendered thing ids, 0 the ground
    expected  u8[Y,X] twice: the planner's masks
    amodal    id -> bool[Y,X] twice: what each thing covers when alone
    ->        (one dict per difference, the residual outside all labels)

    Raises Rejected where a difference cannot be seen well or something else differs too much.
    """
    for mask, plan_mask in zip(masks, expected, strict=True):
        if np.mean(mask != plan_mask) > config.max_mask_mismatch:
            raise Rejected("mask_mismatch")
    delta = pixel_difference(*images)
    labels = [_describe(config, change, delta, masks, amodal) for change in plan.changes]
    boxes = np.array([label["box"] for label in labels])
    if ((boxes[:, 2:] - boxes[:, :2]) < config.min_side_px * config.width / 128).any():
        raise Rejected("rendered_label_small")
    residual = _residual(config, plan, delta, masks)
    smallest = min(label["changed_px"] for label in labels)
    if residual["largest_blob"] > config.max_residual * smallest:
        raise Rejected("residual")
    return labels, residual


def _describe(config: SceneConfig, change, delta, masks, amodal) -> dict:
    """The label of one change with its certificates."""
    seen = [mask == change.id for mask in masks]
    both = seen[0] | seen[1]
    box = tight_box(both)
    if box is None:
        raise Rejected("rendered_change_hidden")
    changed = both & (delta > config.diff_level)
    if changed.sum() < config.min_changed * both.sum():
        raise Rejected(f"faint_{change.type}")
    tight = box_iou(np.array([tight_box(changed)]), np.array([box]))[0, 0]
    if tight < config.min_tight_iou:
        raise Rejected("changed_px_not_tight")
    label = {
        "id": change.id,
        "type": change.type,
        "from": change.before,
        "to": change.after,
        "box": box,
        "changed_px": int(changed.sum()),
        "mean_absdiff": round(float(delta[both].mean()), 2),
    }
    for side, mask, alone in zip("ab", seen, amodal, strict=True):
        whole = alone.get(change.id)
        label[f"box_{side}"] = tight_box(mask)
        label[f"amodal_{side}"] = None if whole is None else tight_box(whole)
        label[f"visible_px_{side}"] = int(mask.sum())
        label[f"visible_frac_{side}"] = (
            None if whole is None else round(float(mask.sum() / max(whole.sum(), 1)), 4)
        )
    return label


def _residual(config: SceneConfig, plan: Plan, delta: np.ndarray, masks) -> dict:
    """How much differs outside the changed things, grown by 2 px: shadows, reflections."""
    ids = list(plan.changed_ids)
    inside = np.isin(masks[0], ids) | np.isin(masks[1], ids)
    rest = np.where(grow(inside, 2), 0, delta)
    return {
        "mean": round(float(rest.mean()), 3),
        "share_over_level": round(float(np.mean(rest > config.diff_level)), 5),
        "largest_blob_faint": largest_blob(rest > _FAINT),
        "largest_blob": largest_blob(rest > config.residual_level),
    }
