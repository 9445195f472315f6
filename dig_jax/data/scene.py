"""What a difference pair is before it is rendered: settings, things, plans, and their JSON.

A `Plan` is the source of truth of one pair: every sampled float is in it, so images and masks
are a pure function of (plan, width, height, samples). Nothing here imports Blender or JAX.
"""

from __future__ import annotations

import dataclasses
import hashlib
import json
from dataclasses import dataclass

SCHEMA = 1
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
# A split's id enters every random seed, so no two splits share a scene at equal --seed.
# Evaluation splits live in their own range; ids are never reused or renumbered.
SPLIT_IDS = {
    "base": 1,
    "single": 2,
    "dual": 3,
    "mixed": 4,
    "test": 99,
    "dev": 1001,
    "heldout": 1002,
}
IMAGE_MULTIPLE = 16  # patch 8 x merge 2 of the tiny model; 16 x 2 needs multiples of 32


class Rejected(Exception):
    """A scene was dropped, which is routine; `reason` is a counter's name."""

    def __init__(self, reason: str):
        super().__init__(reason)
        self.reason = reason


@dataclass(frozen=True)
class SceneConfig:
    """How scenes look and what is accepted; the defaults are the tiny look.

    Pixel thresholds marked (320x240) scale with the image's area.
    """

    width: int = 96  # px, a multiple of IMAGE_MULTIPLE; as DataConfig's (a test compares)
    height: int = 64
    samples: int = 8  # Cycles samples per pixel, denoised afterwards
    lens: float = 48.0  # mm on a 32 mm sensor, horizontal fit
    sensor: float = 32.0
    sizes: tuple[tuple[str, float], ...] = (("large", 0.85), ("medium", 0.55))  # radius, units
    spare_low: int = 2  # things that do not change: between spare_low and spare_high
    spare_high: int = 4
    max_things: int = 7  # in both images together; wins over spare_high
    half_width: float = 2.7  # ground area offered for placement, across the view
    depth_low: float = -3.0  # and along it, towards the camera is negative
    depth_high: float = 3.4
    gap: float = 0.15  # units between two things' radii, in both images
    tries: int = 60  # positions offered to one thing before the scene is dropped
    attempts: int = 60  # scenes per index before the index fails
    camera_jitter: float = 0.5
    light_jitter: float = 1.0
    min_side_px: int = 8  # shortest label side at width 128; scales with width
    min_thing_px: int = 180  # visible pixels of every thing (320x240)
    min_visible: float = 0.5  # visible share of a changed thing, in every image it is in
    max_label_iou: float = 0.5  # two labels overlapping more than this are ambiguous
    diff_level: int = 12  # of 255: a pixel counts as changed above it
    min_changed: float = 0.25  # share of a label's mask that must have changed
    min_tight_iou: float = 0.7  # box of changed pixels in the mask against the label
    max_mask_mismatch: float = 0.008  # share of pixels where renderer and planner disagree
    residual_level: int = 50  # of 255, outside labelled masks
    max_residual: float = 0.5  # largest outside blob over the smallest label's changed px

    def __post_init__(self):
        for name in ("width", "height"):
            value = getattr(self, name)
            if value <= 0 or value % IMAGE_MULTIPLE:
                near = max(IMAGE_MULTIPLE, round(value / IMAGE_MULTIPLE) * IMAGE_MULTIPLE)
                raise ValueError(
                    f"{name}={value} is not a multiple of {IMAGE_MULTIPLE} (patch 8 x merge 2); "
                    f"use {near}"
                )
        if self.samples < 1:
            raise ValueError(f"samples={self.samples} must be at least 1; the tiny look uses 8")
        if not 2 <= self.spare_low <= self.spare_high:
            raise ValueError(
                f"spare_low={self.spare_low}, spare_high={self.spare_high}: at least 2 things "
                "must stay unchanged and the range must not be empty"
            )

    def check_k(self, low: int, high: int) -> None:
        """Refuse a range of difference counts that the scene has no room for."""
        most = self.max_things - self.spare_low
        if not 1 <= low <= high or high > most:
            raise ValueError(
                f"k={low}..{high} must be 1 <= k <= k_max <= {most}: of max_things="
                f"{self.max_things} things, spare_low={self.spare_low} must stay unchanged; "
                "ask for fewer differences or raise max_things"
            )

    def fingerprint(self) -> str:
        """Twelve hex digits that change when any setting or the schema does."""
        text = json.dumps([SCHEMA, dataclasses.asdict(self)], sort_keys=True)
        return hashlib.sha256(text.encode()).hexdigest()[:12]


def config_from_json(fields: dict) -> SceneConfig:
    """Inverse of `dataclasses.asdict` after a trip through JSON."""
    sizes = tuple((str(name), float(radius)) for name, radius in fields["sizes"])
    return SceneConfig(**{**fields, "sizes": sizes})


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

    @property
    def changed_ids(self) -> tuple[int, ...]:
        return tuple(change.id for change in self.changes)

    def swapped(self) -> Plan:
        """The same pair with the images exchanged: add and remove exchange names."""
        names = {"add": "remove", "remove": "add"}
        back = tuple(
            Change(c.id, names.get(c.type, c.type), c.after, c.before) for c in self.changes
        )
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
        camera=Camera(**{**fields["camera"], **_tuples(fields["camera"], "location", "look_at")}),
        lights=tuple((name, tuple(at)) for name, at in fields["lights"].items()),
        a=tuple(Thing(**{**thing, **_tuples(thing, "xy")}) for thing in fields["a"]),
        b=tuple(Thing(**{**thing, **_tuples(thing, "xy")}) for thing in fields["b"]),
        changes=tuple(Change(c["id"], c["type"], c["from"], c["to"]) for c in fields["changes"]),
    )


def split_id(split: str) -> int:
    """The number that enters the seeds of a split."""
    if split not in SPLIT_IDS:
        raise ValueError(f"split={split!r} is unknown; choose one of {', '.join(SPLIT_IDS)}")
    return SPLIT_IDS[split]


def _tuples(fields: dict, *names: str) -> dict:
    return {name: tuple(fields[name]) for name in names}
