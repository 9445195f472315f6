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
from dig_jax.common.fields import number
from dig_jax.data.scene.draws import THINGS, Draw
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
    width: int = number(96, least=1, most=2**14)  # px, a multiple of IMAGE_MULTIPLE (6)
    height: int = number(64, least=1, most=2**14)
    samples: int = number(8, least=1, most=10**6)  # Cycles samples per pixel, then denoised (3)
    lens: float = number(48.0, least=1, most=1e3)  # mm, horizontal fit
    sensor: float = number(32.0, least=1, most=1e3)  # mm
    shapes: tuple[str, ...] = SHAPES
    materials: tuple[str, ...] = MATERIALS
    colors: tuple[str, ...] = tuple(COLORS)
    sizes: dict[str, float] = field(default_factory=lambda: {"large": 0.85, "medium": 0.55})  # (2)
    held_out: tuple[str, ...] = HELD_OUT  # "color shape" that `combos` seen and novel refer to
    types: tuple[str, ...] = TYPES  # of differences, all equally likely
    spare_low: int = number(2, least=2, most=THINGS)  # things that do not change, at least
    spare_high: int = number(4, least=2, most=THINGS)  # and at most
    max_things: int = number(7, least=1, most=THINGS)  # in both images; wins over spare_high
    half_width: float = number(2.7, least=0.01, most=1e3)  # ground for placement, across the view
    depth_low: float = number(-3.0, least=-1e3, most=1e3)  # along it; negative is nearer
    depth_high: float = number(3.4, least=-1e3, most=1e3)
    gap: float = number(0.15, least=0, most=1e3)  # units between two things' radii
    tries: int = number(60, least=1, most=10**6)  # positions offered to one thing
    attempts: int = number(60, least=1, most=10**6)  # scenes per index
    camera_jitter: float = number(0.5, least=0, most=1e3)
    light_jitter: float = number(1.0, least=0, most=1e3)
    min_side_px: int = number(8, least=0, most=10**4)  # shortest label side at width 128 (4)
    min_thing_px: int = number(180, least=1, most=10**8)  # visible pixels of every thing (320x240)
    min_visible: float = number(0.5, least=0, most=1)  # visible share of a changed thing
    max_label_iou: float = number(0.5, least=0, most=1)  # two labels overlapping more are ambiguous
    diff_level: int = number(12, least=0, most=255)  # of 255: a pixel counts as changed above it
    min_changed: float = number(0.25, least=0, most=1)  # share of a label's mask that has changed
    min_tight_iou: float = number(0.7, least=0, most=1)  # changed pixels' box, and the label
    max_mask_mismatch: float = number(0.008, least=0, most=1)  # renderer against planner
    residual_level: int = number(50, least=0, most=255)  # of 255, outside labelled masks
    max_residual: float = number(0.5, least=0, most=1e6)  # largest outside blob (5)

    # (1) numpy needs no Blender; its pairs are for tests and notebooks, never for results.
    # (2) name -> radius, in scene units, 0.05 to 2.
    # (3) numpy knows no noise.
    # (4) Scales with width.
    # (5) Over the smallest label's changed pixels.
    # (6) As DataConfig's; a test compares.

    def __post_init__(self):
        typed.check_fields(self, "look")
        for name in ("width", "height"):
            value = getattr(self, name)
            near = max(IMAGE_MULTIPLE, round(value / IMAGE_MULTIPLE) * IMAGE_MULTIPLE)
            rule = f"is not a multiple of {IMAGE_MULTIPLE} (patch 8 x merge 2)"
            ok = value > 0 and value % IMAGE_MULTIPLE == 0
            typed.require(ok, f"look.{name}", value, rule, f"use {near}")
        near, far = self.depth_low, self.depth_high
        rule = f"is not below depth_high={far}"
        typed.require(near < far, "look.depth_low", near, rule, "lower it or raise depth_high")
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


_SIZES = 'use {"large": 0.85, "medium": 0.55}'  # two, between which a size can change


def _check_sizes(sizes: dict[str, float]) -> None:
    typed.require(bool(sizes), "look.sizes", sizes, "is empty", _SIZES)
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
