"""Check one record again from what it holds: its plan, its masks, its pixels."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

from dig_jax.data.records import Pair, decode, pixel_hashes
from dig_jax.data.scene.differences import changes_between, draw_task
from dig_jax.data.scene.draws import SplitSpec
from dig_jax.data.scene.labels import Picture, box_iou, check_certificates, describe
from dig_jax.data.scene.look import SceneConfig
from dig_jax.data.scene.scene import Plan, Rejected, plan_from_json
from dig_jax.data.scene.visibility import Forecast, foresee

# What is measured between A and B's twin, which a record does not hold: only a re-render tells.
_TWIN_FIELDS = ("changed_px", "changed_frac", "changed_iou", "mean_absdiff")


def problems(config: SceneConfig, spec: SplitSpec, idx: int, record: bytes) -> list[str]:
    """What is wrong with the record of an index, in words; empty where its certificates hold.

    Boxes, visibility, changed pixels and the residual are measured again from masks and images
    and must equal what is stored; the pictures must have their stored hashes; the plan must be
    of this split and index and differ in exactly the changes it lists.
    """
    try:
        pair = decode(record)
        plan = plan_from_json(pair.meta)
    except (ValueError, KeyError, TypeError) as error:
        return [f"cannot be read ({error})"]
    try:
        found = [*_plan_problems(config, spec, idx, plan), *_picture_problems(config, pair)]
        if not found:
            found = [*_label_problems(config, pair, plan)]
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        return [f"its meta is not that of a rendered pair ({type(error).__name__}: {error})"]
    return found


def _plan_problems(config: SceneConfig, spec: SplitSpec, idx: int, plan: Plan) -> Iterator[str]:
    """Whether the plan belongs here and says what it does."""
    draw = spec.draw
    want, got = (draw.split, draw.seed, idx), (plan.split, plan.seed, plan.idx)
    if want != got:
        yield f"the plan is of split, seed, index {got}, expected {want}"
    asked = sorted(draw_task(config, draw, idx))
    if sorted(change.type for change in plan.changes) != asked:
        listed = ",".join(change.type for change in plan.changes)
        yield f"changes are {listed or 'none'}, drawn were {','.join(asked) or 'none'}"
    if changes_between(plan.a, plan.b) != plan.changes:
        yield "the listed changes are not what differs between the things of A and B"


def _picture_problems(config: SceneConfig, pair: Pair) -> Iterator[str]:
    """Whether all four pictures are there and still are what was rendered."""
    shape = (config.height, config.width)
    for name in ("image_a", "image_b", "mask_a", "mask_b"):
        array = getattr(pair, name)
        want = (*shape, 3) if name.startswith("image") else shape
        if array is None or array.shape != want or array.dtype != np.uint8:
            yield f"{name} is not u8{list(want)}"
            return
    now = pixel_hashes(pair)
    for name, was in pair.meta["pixels"].items():
        if now[name] != was:
            yield f"{name} was altered: its pixels hash to {now[name]}, stored is {was}"


def _label_problems(config: SceneConfig, pair: Pair, plan: Plan) -> Iterator[str]:
    """Whether labels and residual are what masks and images say, and within bounds."""
    forecast = foresee(plan, config.width, config.height)
    yield from _mask_problems(config, pair, plan, forecast)
    pictures = Picture(pair.image_a, pair.mask_a), Picture(pair.image_b, pair.mask_b)
    labels, residual = describe(config, plan, pictures, None, forecast)
    stored = pair.meta["differences"]
    if len(stored) != len(labels):
        yield f"{len(stored)} labels are stored for {len(labels)} changes"
        return
    is_twin = pair.meta["certified_on"] == "twin"
    for old, new in zip(stored, labels, strict=True):
        names = [n for n in {*old, *new} if not (is_twin and n in _TWIN_FIELDS)]
        for name in sorted(names):
            if old.get(name) != new.get(name):
                now, was = new.get(name), old.get(name)
                yield f"label of thing {new['id']}: {name} is stored as {was}, measured as {now}"
    if not is_twin and residual != pair.meta["residual"]:
        yield f"residual is stored as {pair.meta['residual']}, measured as {residual}"
    try:
        check_certificates(config, stored, pair.meta["residual"])
    except Rejected as rejected:
        yield f"breaks the rule {rejected.reason!r}"
    if any(label["box"] is None for label in stored):
        return
    boxes = np.array([label["box"] for label in stored]).reshape(-1, 4)
    if (box_iou(boxes, boxes) - np.eye(len(boxes)) >= config.max_label_iou).any():
        yield f"two labels overlap by {config.max_label_iou} or more"


def _mask_problems(
    config: SceneConfig, pair: Pair, plan: Plan, forecast: Forecast
) -> Iterator[str]:
    """Whether the masks show the planned things, all of them, where the planner has them."""
    sides = (
        ("a", pair.mask_a, plan.a, forecast.mask_a),
        ("b", pair.mask_b, plan.b, forecast.mask_b),
    )
    for side, mask, things, expected in sides:
        ids = {thing.id for thing in things}
        seen = {int(i) for i in np.unique(mask)} - {0}
        if seen != ids:
            yield f"mask_{side} shows things {sorted(seen)}, planned are {sorted(ids)}"
        share = float(np.mean(mask != expected))
        if share > config.max_mask_mismatch:
            yield f"mask_{side} differs from the planned one in {share:.1%} of pixels"
