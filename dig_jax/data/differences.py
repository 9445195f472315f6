"""Draw pairs: how many differences, which, on what, and where things stand.

Everything random about index `idx` of a split comes from `default_rng([seed, split_id, idx,
attempt])`. The count K and the K types are drawn once per index, outside the retry loop, so
that hard types are not thinned out by rejection.
"""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass

import numpy as np

from dig_jax.data.labels import box_iou, label_boxes
from dig_jax.data.scene import (
    COLORS,
    MATERIALS,
    SHAPES,
    TYPES,
    Camera,
    Change,
    Plan,
    Rejected,
    SceneConfig,
    Thing,
    split_id,
)
from dig_jax.data.visibility import View, cast, id_mask

CAMERA_AT = (7.2, -6.8, 5.1)
LOOK_AT = (0.0, 0.0, 0.35)
LIGHTS_AT = {"key": (6.4, -1.8, 7.0), "fill": (-4.0, -5.5, 4.5), "back": (-2.0, 4.0, 7.0)}
_TASK = 2**31  # stands where the attempt would: the stream of K and types


@dataclass(frozen=True)
class Forecast:
    """What the planner expects the renderer to show."""

    mask_a: np.ndarray  # u8[Y,X] ids
    mask_b: np.ndarray
    amodal_a: dict[int, np.ndarray]  # id -> bool[Y,X]
    amodal_b: dict[int, np.ndarray]


def draw_task(seed: int, split: str, idx: int, k_low: int, k_high: int) -> tuple[str, ...]:
    """The difference types of one index; their number is uniform on k_low..k_high."""
    rng = np.random.default_rng([seed, split_id(split), idx, _TASK])
    k = int(rng.integers(k_low, k_high + 1))
    return tuple(TYPES[i] for i in rng.integers(0, len(TYPES), k))


def propose(
    config: SceneConfig, seed: int, split: str, idx: int, attempt: int, types: tuple[str, ...]
) -> tuple[Plan, Forecast]:
    """One scene pair with exactly these differences; raises Rejected where it does not fit."""
    rng = np.random.default_rng([seed, split_id(split), idx, attempt])
    camera = Camera(
        _jitter(rng, CAMERA_AT, config.camera_jitter), LOOK_AT, config.lens, config.sensor
    )
    lights = tuple((n, _jitter(rng, at, config.light_jitter)) for n, at in LIGHTS_AT.items())
    view = View(camera, config.width, config.height)
    before, after, changes = _draw_things(config, rng, types)
    before, after = _place(config, rng, view, before, after)
    plan = Plan(
        split=split,
        idx=idx,
        seed=seed,
        attempt=attempt,
        render_seed=int(rng.integers(0, 2**31 - 1)),
        camera=camera,
        lights=lights,
        a=tuple(t for t in before if t),
        b=tuple(t for t in after if t),
        changes=changes,
    )
    forecast = foresee(config, plan)
    _check_visible(config, plan, forecast)
    return plan, forecast


def foresee(config: SceneConfig, plan: Plan) -> Forecast:
    """Visible and amodal masks of both images; a thing equal in both is cast once."""
    view = View(plan.camera, config.width, config.height)
    depth = {thing: cast(view, thing) for thing in {*plan.a, *plan.b}}
    shape = (config.height, config.width)
    return Forecast(
        id_mask({t.id: depth[t] for t in plan.a}, shape),
        id_mask({t.id: depth[t] for t in plan.b}, shape),
        {t.id: np.isfinite(depth[t]) for t in plan.a},
        {t.id: np.isfinite(depth[t]) for t in plan.b},
    )


def _draw_things(config: SceneConfig, rng: np.random.Generator, types: tuple[str, ...]):
    """Things without places: before[i] and after[i] share id i + 1; None where absent."""
    k = len(types)
    most = min(k + config.spare_high, config.max_things)
    n = int(rng.integers(k + config.spare_low, most + 1))
    before = [_draw_thing(config, rng, i + 1) for i in range(n)]
    after = list(before)
    changes = []
    for position, kind in zip(rng.permutation(n)[:k], types, strict=True):
        thing = before[position]
        if kind == "add":
            before[position] = None
            changes.append(Change(thing.id, kind, None, thing.name))
        elif kind == "remove":
            after[position] = None
            changes.append(Change(thing.id, kind, thing.name, None))
        else:
            after[position] = _altered(config, rng, thing, kind)
            values = getattr(thing, kind), getattr(after[position], kind)
            changes.append(Change(thing.id, kind, *values))
    return before, after, tuple(sorted(changes, key=lambda change: change.id))


def _draw_thing(config: SceneConfig, rng: np.random.Generator, thing_id: int) -> Thing:
    size, radius = config.sizes[rng.integers(len(config.sizes))]
    return Thing(
        id=thing_id,
        shape=SHAPES[rng.integers(len(SHAPES))],
        material=MATERIALS[rng.integers(len(MATERIALS))],
        color=list(COLORS)[rng.integers(len(COLORS))],
        size=size,
        radius=radius,
        theta=float(rng.uniform(0, 2 * np.pi)),
        xy=(0.0, 0.0),
    )


def _altered(config: SceneConfig, rng: np.random.Generator, thing: Thing, kind: str) -> Thing:
    """The thing with another value of one attribute."""
    sizes = dict(config.sizes)
    values = {"color": list(COLORS), "material": MATERIALS, "shape": SHAPES, "size": list(sizes)}
    others = [value for value in values[kind] if value != getattr(thing, kind)]
    value = others[rng.integers(len(others))]
    fields = {kind: value}
    if kind == "size":
        fields["radius"] = sizes[value]
    return dataclasses.replace(thing, **fields)


def _place(config: SceneConfig, rng: np.random.Generator, view: View, before, after):
    """Give every thing a place that is clear of all others in both images."""
    along = np.array([view.forward[0], view.forward[1]])
    along /= np.linalg.norm(along)
    across = np.array([along[1], -along[0]])
    placed: list[tuple[float, float, float]] = []  # x, y, radius
    for pair in zip(before, after, strict=True):
        radius = max(t.radius for t in pair if t)
        offers = rng.uniform(
            (-config.half_width, config.depth_low),
            (config.half_width, config.depth_high),
            (config.tries, 2),
        )
        spots = offers[:, :1] * across + offers[:, 1:] * along
        free = _inside(view, spots, radius, across, along)
        for x, y, other in placed:
            free &= np.hypot(spots[:, 0] - x, spots[:, 1] - y) >= radius + other + config.gap
        if not free.any():
            raise Rejected("placement")
        x, y = spots[np.argmax(free)]
        placed.append((float(x), float(y), radius))

    def moved(things):
        return [
            t and dataclasses.replace(t, xy=place[:2])
            for t, place in zip(things, placed, strict=True)
        ]

    return moved(before), moved(after)


def _inside(view: View, spots: np.ndarray, radius: float, across, along) -> np.ndarray:
    """Whether a thing at each spot stays in the frame: bool[N] (its left, right, top, foot)."""
    sides = np.array([across, -across, along, -along]) * radius  # [4,2]
    ground = spots[:, None, :] + sides
    points = np.concatenate(
        [
            np.concatenate([ground, np.full((*ground.shape[:2], 1), z)], -1)
            for z in (0.0, 2 * radius)
        ],
        axis=1,
    )
    pixels = view.project(points)
    good = (pixels > 1) & (pixels < (view.width - 1, view.height - 1))
    return good.all((1, 2))


def _check_visible(config: SceneConfig, plan: Plan, forecast: Forecast) -> None:
    """Every thing is seen, every changed thing mostly, and labels are apart."""
    area = config.width * config.height / (320 * 240)
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
    if (sides < config.min_side_px * config.width / 128).any():
        raise Rejected("label_small")
    overlap = box_iou(boxes, boxes) - np.eye(len(boxes))
    if (overlap >= config.max_label_iou).any():
        raise Rejected("labels_overlap")


def _jitter(rng: np.random.Generator, at: tuple, reach: float) -> tuple[float, float, float]:
    return tuple(float(x) for x in np.asarray(at) + rng.uniform(-reach, reach, 3))
