"""Draw pairs: how many differences, which, on what, and where things stand.

Everything random about index `idx` of a split comes from `default_rng([seed, split_id, idx,
attempt])`. The count K and the K types are drawn once per index, outside the retry loop, so
that hard types are not thinned out by rejection.
"""

from __future__ import annotations

import dataclasses

import numpy as np

from dig_jax.data.scene.draws import Draw, split_id
from dig_jax.data.scene.labels import box_iou, label_boxes
from dig_jax.data.scene.look import SceneConfig
from dig_jax.data.scene.placement import Things, place
from dig_jax.data.scene.scene import Camera, Change, Plan, Rejected, Thing
from dig_jax.data.scene.visibility import View, foresee

CAMERA_AT = (7.2, -6.8, 5.1)
LOOK_AT = (0.0, 0.0, 0.35)
LIGHTS_AT = {"key": (6.4, -1.8, 7.0), "fill": (-4.0, -5.5, 4.5), "back": (-2.0, 4.0, 7.0)}
_TASK = 2**31  # stands where the attempt would: the stream of K and types
_SEEDS = 2**31 - 1
_PLAN_SIDES = (160, 120)  # px: scenes are looked at no larger than this before they are accepted


def draw_task(config: SceneConfig, draw: Draw, idx: int) -> tuple[str, ...]:
    """The difference types of one index; their number is uniform on k_low..k_high."""
    rng = np.random.default_rng([draw.seed, split_id(draw.split), idx, _TASK])
    k = int(rng.integers(draw.k_low, draw.k_high + 1))
    return tuple(config.types[i] for i in rng.integers(0, len(config.types), k))


def propose(
    config: SceneConfig, draw: Draw, idx: int, attempt: int, types: tuple[str, ...]
) -> Plan:
    """One scene pair with exactly these differences; raises Rejected where it does not fit."""
    rng = np.random.default_rng([draw.seed, split_id(draw.split), idx, attempt])
    camera = Camera(
        _jitter(rng, CAMERA_AT, config.camera_jitter), LOOK_AT, config.lens, config.sensor
    )
    lights = tuple((n, _jitter(rng, at, config.light_jitter)) for n, at in LIGHTS_AT.items())
    view = View(camera, config.width, config.height)
    before, after, changes = _draw_things(config, draw, rng, types)
    before, after = place(config, rng, view, before, after)
    plan = Plan(
        split=draw.split,
        idx=idx,
        seed=draw.seed,
        attempt=attempt,
        render_seed=int(rng.integers(0, _SEEDS)),
        camera=camera,
        lights=lights,
        a=tuple(t for t in before if t),
        b=tuple(t for t in after if t),
        changes=changes,
    )
    plan = _disturbed(draw, rng, plan)
    _check_visible(config, plan)
    return plan


def changes_between(a: tuple[Thing, ...], b: tuple[Thing, ...]) -> tuple[Change, ...]:
    """What differs between two sets of things, by id: the inverse of applying changes.

    A thing of which several attributes differ gives one change for each.
    """
    before, after = ({thing.id: thing for thing in things} for things in (a, b))
    changes = []
    for thing_id in sorted({*before, *after}):
        old, new = before.get(thing_id), after.get(thing_id)
        if old is None:
            changes.append(Change(thing_id, "add", None, new.name))
        elif new is None:
            changes.append(Change(thing_id, "remove", old.name, None))
        else:
            for kind in ("color", "material", "size", "shape", "theta", "xy"):
                if getattr(old, kind) != getattr(new, kind):
                    values = getattr(old, kind), getattr(new, kind)
                    changes.append(Change(thing_id, kind, *values))
    return tuple(changes)


def _disturbed(draw: Draw, rng: np.random.Generator, plan: Plan) -> Plan:
    """The plan with image B's own noise and camera, where the draw asks for them."""
    if draw.noise == "independent":
        plan = dataclasses.replace(plan, render_seed_b=int(rng.integers(0, _SEEDS)))
    if draw.camera_jitter_b:
        location = _jitter(rng, plan.camera.location, draw.camera_jitter_b)
        moved = dataclasses.replace(plan.camera, location=location)
        plan = dataclasses.replace(plan, camera_b=moved)
    return plan


def _draw_things(
    config: SceneConfig, draw: Draw, rng: np.random.Generator, types: tuple[str, ...]
) -> tuple[Things, Things, tuple[Change, ...]]:
    """Things without places: before[i] and after[i] share id i + 1; None where absent."""
    k = len(types)
    most = min(k + config.spare_high, config.max_things)
    n = int(rng.integers(k + config.spare_low, most + 1))
    plain = config.allowed("all" if draw.combos == "all" else "seen")
    before = [_draw_thing(config, rng, i + 1, plain) for i in range(n)]
    after = list(before)
    changes = []
    for position, kind in zip(rng.permutation(n)[:k], types, strict=True):
        if draw.combos == "novel":
            before[position] = _draw_thing(config, rng, int(position) + 1, config.allowed("novel"))
        thing = after[position] = before[position]
        if kind == "add":
            before[position] = None
            changes.append(Change(thing.id, kind, None, thing.name))
        elif kind == "remove":
            after[position] = None
            changes.append(Change(thing.id, kind, thing.name, None))
        else:
            shown = config.allowed("all") if draw.combos == "novel" else plain
            after[position] = _altered(config, rng, thing, kind, shown)
            values = getattr(thing, kind), getattr(after[position], kind)
            changes.append(Change(thing.id, kind, *values))
    return before, after, tuple(sorted(changes, key=lambda change: change.id))


def _draw_thing(
    config: SceneConfig, rng: np.random.Generator, thing_id: int, combos: frozenset[str]
) -> Thing:
    """A thing of one of these colour x shape combinations, uniform over them."""
    size, radius = list(config.sizes.items())[rng.integers(len(config.sizes))]
    while True:  # a config whose combos are all excluded was refused before
        shape = config.shapes[rng.integers(len(config.shapes))]
        material = config.materials[rng.integers(len(config.materials))]
        color = config.colors[rng.integers(len(config.colors))]
        if f"{color} {shape}" in combos:
            break
    theta = float(rng.uniform(0, 2 * np.pi))
    return Thing(thing_id, shape, material, color, size, radius, theta, (0.0, 0.0))


def _altered(
    config: SceneConfig, rng: np.random.Generator, thing: Thing, kind: str, combos: frozenset[str]
) -> Thing:
    """The thing with another value of one attribute, of an allowed combination."""
    values = {
        "color": config.colors,
        "material": config.materials,
        "shape": config.shapes,
        "size": tuple(config.sizes),
    }
    others = [
        altered
        for value in values[kind]
        if value != getattr(thing, kind)
        and (altered := dataclasses.replace(thing, **{kind: value})).combo in combos
    ]
    if not others:
        raise Rejected("no_other_value")
    altered = others[rng.integers(len(others))]
    return dataclasses.replace(altered, radius=config.sizes[altered.size])


def _check_visible(config: SceneConfig, plan: Plan) -> None:
    """Every thing is seen, every changed thing mostly, and labels are apart."""
    shrink = min(1.0, _PLAN_SIDES[0] / config.width, _PLAN_SIDES[1] / config.height)
    width, height = round(config.width * shrink), round(config.height * shrink)
    forecast = foresee(plan, width, height)
    area = width * height / (320 * 240)
    for mask, amodal in (
        (forecast.mask_a, forecast.amodal_a),
        (forecast.mask_b, forecast.amodal_b),
    ):
        count = np.bincount(mask.ravel(), minlength=256)
        for thing_id, alone in amodal.items():
            if count[thing_id] < config.min_thing_px * area:
                raise Rejected("thing_small")
            if thing_id in plan.changed_ids and (
                count[thing_id] < config.min_visible * alone.sum()
            ):
                raise Rejected("change_hidden")
    boxes = label_boxes(forecast.mask_a, forecast.mask_b, plan.changed_ids)
    sides = boxes[:, 2:] - boxes[:, :2]
    if (sides < config.min_side_px * width / 128).any():
        raise Rejected("label_small")
    overlap = box_iou(boxes, boxes) - np.eye(len(boxes))
    if (overlap >= config.max_label_iou).any():
        raise Rejected("labels_overlap")


def _jitter(rng: np.random.Generator, at: tuple, reach: float) -> tuple[float, float, float]:
    return tuple(float(x) for x in np.asarray(at) + rng.uniform(-reach, reach, 3))
