"""How scenes look and what is accepted.

Everything that decides a pair's bytes besides its index is in `SceneConfig` and `Draw`.
"""

from __future__ import annotations

import dataclasses
import difflib
import hashlib
import json
from dataclasses import dataclass, field
from typing import Literal

from dig_jax.common import typed
from dig_jax.data.scene.draws import Draw
from dig_jax.data.scene.scene import COLORS, MATERIALS, SCHEMA, SHAPES, TYPES

IMAGE_MULTIPLE = 16  # patch 8 x merge 2 of the tiny model; 16 x 2 needs multiples of 32
# Two colours of each shape, no colour twice: every colour and shape is seen, these pairs never.
HELD_OUT = (
    "purple cube",
    "yellow cube",
    "cyan sphere",
    "brown sphere",
    "red cylinder",
    "green cylinder",
)
_KNOWN = {"shapes": SHAPES, "materials": MATERIALS, "colors": tuple(COLORS), "types": TYPES}


@dataclass(frozen=True)
class SceneConfig:
    """How scenes look and what is accepted; the defaults are the quickstart's look.

    Pixel thresholds marked (320x240) scale with the image's area.
    """

    renderer: Literal["bpy", "numpy"] = "bpy"  # Blender's Cycles, or our own ray tracer (1)
    width: int = 96  # px, a multiple of IMAGE_MULTIPLE; as DataConfig's (a test compares)
    height: int = 64
    samples: int = 8  # Cycles samples per pixel, denoised afterwards; numpy knows no noise
    lens: float = 48.0  # mm on a 32 mm sensor, horizontal fit
    sensor: float = 32.0
    shapes: tuple[str, ...] = SHAPES
    materials: tuple[str, ...] = MATERIALS
    colors: tuple[str, ...] = tuple(COLORS)
    sizes: dict[str, float] = field(default_factory=lambda: {"large": 0.85, "medium": 0.55})  # (2)
    held_out: tuple[str, ...] = HELD_OUT  # "color shape" that `combos` seen and novel refer to
    types: tuple[str, ...] = TYPES  # of differences, all equally likely
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

    # (1) numpy needs no Blender; its pairs are for tests and notebooks, never for results.
    # (2) name -> radius, in scene units.

    def __post_init__(self):
        typed.check_fields(self, "look")
        for name in ("width", "height"):
            value = getattr(self, name)
            near = max(IMAGE_MULTIPLE, round(value / IMAGE_MULTIPLE) * IMAGE_MULTIPLE)
            rule = f"is not a multiple of {IMAGE_MULTIPLE} (patch 8 x merge 2)"
            ok = value > 0 and value % IMAGE_MULTIPLE == 0
            typed.require(ok, f"look.{name}", value, rule, f"use {near}")
        counts = dict(samples=1, tries=1, attempts=1, min_thing_px=1, spare_low=2)
        shares = dict(gap=0.0, camera_jitter=0.0, light_jitter=0.0)
        typed.at_least("look", self, **counts, **shares)
        typed.above("look", self, lens=0.0, sensor=0.0, half_width=0.0)
        for name, known in _KNOWN.items():
            _check_names(f"look.{name}", getattr(self, name), known)
        _check_combos(self)
        _check_sizes(self.sizes)
        _check_types(self)
        low, high, most = self.spare_low, self.spare_high, self.max_things
        ok = low <= high
        typed.require(ok, "look.spare_low", low, f"is above spare_high={high}", f"use {high}")
        ok = most >= low + 1
        rule = f"leaves no thing to change beside spare_low={low}"
        typed.require(ok, "look.max_things", most, rule, f"use {low + 1} or more")

    def check_k(self, low: int, high: int) -> None:
        """Refuse a range of difference counts that the scene has no room for."""
        most = self.max_things - self.spare_low
        if not 0 <= low <= high or high > most:
            raise ValueError(
                f"k={low}..{high} must be 0 <= k <= k_max <= {most}: of max_things="
                f"{self.max_things} things, spare_low={self.spare_low} must stay unchanged; "
                f"ask for k_max={most} or use look.max_things={high + self.spare_low}"
            )

    def check_draw(self, draw: Draw) -> None:
        """Refuse a split that this look has no room or no colours for."""
        self.check_k(draw.k_low, draw.k_high)
        for combos in {draw.combos, "all" if draw.combos == "all" else "seen"}:
            if not self.allowed(combos):
                raise ValueError(
                    f"combos={draw.combos!r} of split {draw.split} needs {combos} combinations, "
                    f"and look.colors x look.shapes with look.held_out={self.held_out} leaves "
                    "none; use combos=all or another held_out"
                )

    def allowed(self, combos: str) -> frozenset[str]:
        """The "color shape" combinations of `Draw.combos`."""
        every = {f"{color} {shape}" for color in self.colors for shape in self.shapes}
        held = every & set(self.held_out)
        return frozenset({"all": every, "seen": every - held, "novel": held}[combos])

    def fingerprint(self) -> str:
        """Twelve hex digits that change when any setting or the schema does."""
        text = json.dumps([SCHEMA, dataclasses.asdict(self)])  # order counts
        return hashlib.sha256(text.encode()).hexdigest()[:12]


def config_from_json(fields: dict) -> SceneConfig:
    """Inverse of `dataclasses.asdict` after a trip through JSON."""
    return typed.from_plain(SceneConfig, fields, "look")


def _check_names(where: str, names: tuple[str, ...], known: tuple[str, ...]) -> None:
    """Every name is known and none is repeated."""
    for name in names:
        near = difflib.get_close_matches(name, known, n=1, cutoff=0.4)
        hint = f"use {near[0]}" if near else f"choose among {', '.join(known)}"
        typed.require(name in known, where, name, "is unknown", hint)
    ok = bool(names) and len(set(names)) == len(names)
    typed.require(ok, where, names, "is empty or repeats a name", "name each once")


def _check_combos(look: SceneConfig) -> None:
    for combo in look.held_out:
        color, _, shape = combo.partition(" ")
        ok = color in COLORS and shape in SHAPES
        remedy = 'write "color shape", for example "purple cube"'
        typed.require(ok, "look.held_out", combo, "is no combination", remedy)


def _check_sizes(sizes: dict[str, float]) -> None:
    typed.require(bool(sizes), "look.sizes", sizes, "is empty", 'use {"large": 0.85}')
    for name, radius in sizes.items():
        ok = 0.05 <= radius <= 2.0
        near = 0.05 if radius < 0.05 else 2.0
        typed.require(ok, f"look.sizes.{name}", radius, "is outside 0.05..2 units", f"use {near}")


def _check_types(look: SceneConfig) -> None:
    """Each type of difference needs a second value to change to."""
    values = {"color": "colors", "material": "materials", "size": "sizes", "shape": "shapes"}
    for kind, name in values.items():
        count = len(getattr(look, name))
        rule = f"cannot change {kind}: look.{name} holds {count}"
        rest = ",".join(t for t in look.types if t != kind)
        remedy = f"give {name} a second value or use look.types={rest}"
        typed.require(kind not in look.types or count > 1, "look.types", kind, rule, remedy)
