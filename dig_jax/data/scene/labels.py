"""From two ID masks and two images to certified labels.

The label of a difference is the tight box of the pixels where the changed thing is visible in
image A or in image B: half-open pixels [x0, y0, x1, y1), equal to the union of the two visible
boxes, unchanged by swapping the images. Shadows and reflections are not part of a label.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from scipy import ndimage

from dig_jax.data.scene.look import SceneConfig
from dig_jax.data.scene.scene import Change, Plan, Rejected
from dig_jax.data.scene.visibility import Forecast

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
    parts, count = ndimage.label(mask, structure=np.ones((3, 3)))
    return int(np.bincount(parts.ravel())[1:].max()) if count else 0


def grow(mask: np.ndarray, radius: int) -> np.ndarray:
    """Dilate bool[Y,X] by a square of side 2 radius + 1."""
    wide = np.pad(mask, radius)
    out = np.zeros_like(mask)
    rows, columns = mask.shape
    for i in range(2 * radius + 1):
        for j in range(2 * radius + 1):
            out |= wide[i : i + rows, j : j + columns]
    return out


@dataclass(frozen=True)
class Picture:
    """One rendered picture."""

    image: np.ndarray  # u8[Y,X,3]
    mask: np.ndarray  # u8[Y,X] thing ids, 0 the ground


def certify(
    config: SceneConfig,
    plan: Plan,
    pictures: tuple[Picture, Picture],
    twin: Picture | None,
    forecast: Forecast,
) -> tuple[list[dict], dict]:
    """Labels of a rendered pair and what else differs in it.

    pictures  image A and image B
    twin      image B once more under A's camera and noise, where B has its own: what changed is
              measured between A and the twin, where the boxes are on A and B themselves
    ->        (one dict per difference, the residual outside all labels)

    Raises Rejected where a difference cannot be seen well or something else differs too much.
    """
    for picture, expected in zip(pictures, (forecast.mask_a, forecast.mask_b), strict=True):
        if np.mean(picture.mask != expected) > config.max_mask_mismatch:
            raise Rejected("mask_mismatch")
    labels, residual = describe(config, plan, pictures, twin, forecast)
    check_certificates(config, labels, residual)
    return labels, residual


def describe(
    config: SceneConfig,
    plan: Plan,
    pictures: tuple[Picture, Picture],
    twin: Picture | None,
    forecast: Forecast,
) -> tuple[list[dict], dict]:
    """`certify`'s results without its verdict: a pure measurement, which `verify` repeats."""
    aligned = (pictures[0], twin or pictures[1])
    delta = pixel_difference(*(picture.image for picture in aligned))
    labels = [
        _where(change, pictures, (forecast.amodal_a, forecast.amodal_b))
        | _how_much(config, change, delta, aligned)
        for change in plan.changes
    ]
    return labels, _residual(config, plan, delta, aligned)


def check_certificates(config: SceneConfig, labels: list[dict], residual: dict) -> None:
    """Raises Rejected, naming the rule, where some measured figure is out of bounds."""
    for label in labels:
        if label["box"] is None:
            raise Rejected("rendered_change_hidden")
        x0, y0, x1, y1 = label["box"]
        if min(x1 - x0, y1 - y0) < config.min_side_px * config.width / 128:
            raise Rejected("rendered_label_small")
        if label["changed_frac"] < config.min_changed:
            raise Rejected(f"faint_{label['type']}")
        if label["changed_iou"] < config.min_tight_iou:
            raise Rejected("changed_px_not_tight")
    if not labels and residual["max"]:
        raise Rejected("identical_pair_differs")
    smallest = min((label["changed_px"] for label in labels), default=0)
    if residual["largest_blob"] > config.max_residual * smallest:
        raise Rejected("residual")


def _where(change: Change, pictures: tuple[Picture, Picture], amodal) -> dict:
    """Boxes and visibility of one change in both images."""
    seen = [picture.mask == change.id for picture in pictures]
    label = {
        "id": change.id,
        "type": change.type,
        "from": change.before,
        "to": change.after,
        "box": tight_box(seen[0] | seen[1]),
    }
    for side, mask, alone in zip("ab", seen, amodal, strict=True):
        whole = alone.get(change.id)
        count, full = int(mask.sum()), 0 if whole is None else int(whole.sum())
        label[f"box_{side}"] = tight_box(mask)
        label[f"amodal_{side}"] = None if whole is None else tight_box(whole)
        label[f"visible_px_{side}"] = count
        # the caster's ideal shapes may be a pixel smaller than the meshes
        label[f"visible_frac_{side}"] = round(min(count / full, 1.0), 4) if full else None
    return label


def _how_much(config: SceneConfig, change: Change, delta, aligned: tuple[Picture, Picture]) -> dict:
    """How many pixels of one change differ, how much, and whether their box is the label's."""
    both = (aligned[0].mask == change.id) | (aligned[1].mask == change.id)
    changed = both & (delta > config.diff_level)
    boxes = tight_box(both), tight_box(changed)
    overlap = 0.0 if None in boxes else box_iou(*(np.array([box]) for box in boxes))[0, 0]
    return {
        "changed_px": int(changed.sum()),
        "changed_frac": round(float(changed.sum() / max(both.sum(), 1)), 4),
        "changed_iou": round(float(overlap), 4),
        "mean_absdiff": round(float(delta[both].mean()), 2) if both.any() else 0.0,
    }


def _residual(config: SceneConfig, plan: Plan, delta: np.ndarray, aligned) -> dict:
    """How much differs outside the changed things, grown by 2 px: shadows, reflections."""
    ids = list(plan.changed_ids)
    inside = np.isin(aligned[0].mask, ids) | np.isin(aligned[1].mask, ids)
    rest = np.where(grow(inside, 2), 0, delta)
    return {
        "mean": round(float(rest.mean()), 3),
        "max": int(rest.max()),
        "share_over_level": round(float(np.mean(rest > config.diff_level)), 5),
        "share_faint": round(float(np.mean(rest > _FAINT)), 5),
        "largest_blob_faint": largest_blob(rest > _FAINT),
        "largest_blob": largest_blob(rest > config.residual_level),
    }
