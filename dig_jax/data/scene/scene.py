"""What a difference pair is before it is rendered: things, changes, shots, plans, their JSON.

A `Plan` is the source of truth of one pair: every sampled float is in it, so images and masks
are a pure function of (plan, width, height, samples). Nothing here imports Blender or JAX.
"""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass
from typing import Literal

SCHEMA = 2
SHAPES = ("cube", "sphere", "cylinder")
MATERIALS = ("rubber", "metal")
# CLEVR's palette. Its bytes are used as *linear* RGB there and here, so things look lighter.
COLORS = {
    "gray": (87, 87, 87),
    "red": (173, 35, 35),
    "blue": (42, 75, 215),
    "green": (29, 105, 20),
    "brown": (129, 74, 25),
    "purple": (129, 38, 192),
    "cyan": (41, 208, 208),
    "yellow": (255, 238, 51),
}
TYPES = ("color", "material", "size", "shape", "add", "remove")
Side = Literal["a", "b", "twin"]


class Rejected(Exception):
    """A scene was dropped, which is routine; `reason` is a counter's name."""

    def __init__(self, reason: str):
        super().__init__(reason)
        self.reason = reason


@dataclass(frozen=True)
class Thing:
    """One object standing on the ground plane."""

    id: int  # 1..n, the object index in the mask; the same thing has one id in both images
    shape: str
    material: str
    color: str
    size: str
    radius: float  # scene units; a cube's half edge is radius / sqrt 2
    theta: float  # radians about the vertical
    xy: tuple[float, float]

    @property
    def combo(self) -> str:
        return f"{self.color} {self.shape}"

    @property
    def name(self) -> str:
        return f"{self.size} {self.color} {self.material} {self.shape}"

    @property
    def top(self) -> float:
        """Height of the upper face above the ground."""
        return self.radius * (2**0.5 if self.shape == "cube" else 2.0)


@dataclass(frozen=True)
class Change:
    """One difference; `before` and `after` are attribute values, or a thing's name, or None."""

    id: int
    type: str
    before: str | None
    after: str | None


@dataclass(frozen=True)
class Camera:
    location: tuple[float, float, float]
    look_at: tuple[float, float, float]
    lens: float
    sensor: float


@dataclass(frozen=True)
class Shot:
    """One picture to take: all that a renderer needs to know."""

    camera: Camera
    lights: tuple[tuple[str, tuple[float, float, float]], ...]
    things: tuple[Thing, ...]
    seed: int  # of the renderer's noise


@dataclass(frozen=True)
class Plan:
    """One pair, ready to render."""

    split: str
    idx: int
    seed: int
    attempt: int
    render_seed: int
    camera: Camera
    lights: tuple[tuple[str, tuple[float, float, float]], ...]
    a: tuple[Thing, ...]
    b: tuple[Thing, ...]
    changes: tuple[Change, ...]
    render_seed_b: int | None = None  # image B's own noise; None: that of A
    camera_b: Camera | None = None  # image B's own camera; None: that of A

    @property
    def is_aligned(self) -> bool:
        """Whether both images have one camera and one noise, so that pixels can be compared."""
        return self.camera_b is None and self.render_seed_b is None

    def shot(self, side: Side) -> Shot:
        """Image A, image B, or B's twin: B's things under A's camera and noise."""
        things = self.a if side == "a" else self.b
        if side != "b" or self.is_aligned:
            return Shot(self.camera, self.lights, things, self.render_seed)
        seed = self.render_seed if self.render_seed_b is None else self.render_seed_b
        return Shot(self.camera_b or self.camera, self.lights, things, seed)

    @property
    def changed_ids(self) -> tuple[int, ...]:
        return tuple(change.id for change in self.changes)

    def swapped(self) -> Plan:
        """The same pair with the images exchanged: add and remove exchange names."""
        names = {"add": "remove", "remove": "add"}
        back = tuple(
            Change(c.id, names.get(c.type, c.type), c.after, c.before) for c in self.changes
        )
        if not self.is_aligned:
            raise ValueError(f"{self.split} {self.idx} is not aligned; only aligned pairs swap")
        return dataclasses.replace(self, a=self.b, b=self.a, changes=back)


def plan_to_json(plan: Plan) -> dict:
    """A JSON-ready dict; `plan_from_json` restores an equal Plan."""
    fields = dataclasses.asdict(plan)
    fields["lights"] = dict(plan.lights)
    fields["changes"] = [
        {"id": c.id, "type": c.type, "from": c.before, "to": c.after} for c in plan.changes
    ]
    return {"schema": SCHEMA, "k": len(plan.changes), **fields}


def plan_from_json(fields: dict) -> Plan:
    """A Plan from `plan_to_json`'s dict, also after a trip through JSON text."""
    if fields.get("schema") != SCHEMA:
        raise ValueError(
            f"plan schema={fields.get('schema')!r}, this version reads {SCHEMA}; render it again"
        )
    return Plan(
        split=fields["split"],
        idx=fields["idx"],
        seed=fields["seed"],
        attempt=fields["attempt"],
        render_seed=fields["render_seed"],
        render_seed_b=fields["render_seed_b"],
        camera=_camera(fields["camera"]),
        camera_b=_camera(fields["camera_b"]),
        lights=tuple((name, tuple(at)) for name, at in fields["lights"].items()),
        a=tuple(Thing(**{**thing, **_tuples(thing, "xy")}) for thing in fields["a"]),
        b=tuple(Thing(**{**thing, **_tuples(thing, "xy")}) for thing in fields["b"]),
        changes=tuple(Change(c["id"], c["type"], c["from"], c["to"]) for c in fields["changes"]),
    )


def _camera(fields: dict | None) -> Camera | None:
    return fields and Camera(**{**fields, **_tuples(fields, "location", "look_at")})


def _tuples(fields: dict, *names: str) -> dict:
    return {name: tuple(fields[name]) for name in names}
