"""What can be seen of a picture's things: counted on its stored mask, placed by its plan.

A question is asked only where it has one right answer for a viewer, so every order has a margin,
and an attribute counts as seen only of a thing of which enough is visible.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from dig_jax.data.scene.scene import Plan, Thing
from dig_jax.data.scene.visibility import View, cast, id_mask

COLORED_PX = 30  # visible pixels from which a colour can be told
CLEAR_PX = 60  # and, with CLEAR_SHARE, shape, material and size
COLORED_AREA, CLEAR_AREA = 0.0008, 0.002  # the same as shares of the picture; the larger counts
CLEAR_SHARE = 0.6  # visible share of what would be seen of the thing alone
LARGER = 1.2  # times the apparent radius: from there on one thing looks larger than another
ASIDE = 0.08  # of the picture's width: left and right are told from there on
NEARER = 0.6  # scene units: nearer and farther are told from there on
ACROSS = 1.5  # lateral units per unit of depth, up to which a thing is behind another
MISMATCH = 0.02  # share of pixels in which a mask and the plan's ideal shapes may differ


@dataclass(frozen=True)
class Seen:
    """A planned thing of a picture and what can be seen of it."""

    thing: Thing
    pixels: int  # that the mask shows of it
    share: float  # of what would be seen of it alone, 0..1
    is_colored: bool  # enough for its colour
    is_clear: bool  # enough for its shape, material and size
    box_px: tuple[int, int, int, int]  # tight around its visible pixels, half-open; zeros without
    middle: tuple[float, float]  # px, the mean of its visible pixels
    center: tuple[float, float]  # px, where the middle of the whole thing would be
    lateral: float  # scene units to the right of the camera, of its middle
    depth: float  # scene units along the view
    away: float  # scene units from the camera

    def shows(self, attribute: str) -> bool:
        """Whether a viewer can tell its colour, shape, material or size."""
        return self.is_colored if attribute == "color" else self.is_clear


@dataclass(frozen=True)
class Sight:
    """All things of one picture."""

    width: int
    height: int
    seen: tuple[Seen, ...]  # by id; also those of which nothing is visible

    @property
    def clear(self) -> tuple[Seen, ...]:
        return tuple(one for one in self.seen if one.is_clear and one.is_colored)


def look_at(plan: Plan, side: str, mask: np.ndarray) -> Sight:
    """What picture `side` ("a" or "b") of a pair shows.

    mask   u8[Y,X], the ids that were rendered

    Raises ValueError where plan and mask are not of one picture.
    """
    shot, (height, width) = plan.shot(side), mask.shape
    view = View(shot.camera, width, height)
    depths = {thing.id: cast(view, thing) for thing in shot.things}
    wrong = float(np.mean(mask != id_mask(depths, mask.shape)))
    if wrong > MISMATCH:
        raise ValueError(
            f"mask_{side} of {plan.split} {plan.idx} differs from its plan in {wrong:.1%} of "
            "pixels, so they are not of one picture; delete the split and render it again"
        )
    seen = (_seen(view, t, mask == t.id, np.isfinite(depths[t.id]).sum()) for t in shot.things)
    return Sight(width, height, tuple(seen))


def _seen(view: View, thing: Thing, visible: np.ndarray, alone: int) -> Seen:
    rows, columns = np.nonzero(visible)
    pixels, area = len(rows), visible.size
    share = min(pixels / max(int(alone), 1), 1.0)
    middle, box = (0.0, 0.0), (0, 0, 0, 0)
    if pixels:
        middle = float(columns.mean()) + 0.5, float(rows.mean()) + 0.5
        box = box_of(rows, columns)
    at = np.array([*thing.xy, thing.top / 2])
    from_camera = at - view.origin
    return Seen(
        thing=thing,
        pixels=pixels,
        share=share,
        is_colored=pixels >= max(COLORED_PX, COLORED_AREA * area),
        is_clear=pixels >= max(CLEAR_PX, CLEAR_AREA * area) and share >= CLEAR_SHARE,
        box_px=box,
        middle=middle,
        center=tuple(map(float, view.project(at))),
        lateral=float(from_camera @ view.right),
        depth=float(from_camera @ view.forward),
        away=float(np.linalg.norm(from_camera)),
    )


def box_of(rows: np.ndarray, columns: np.ndarray) -> tuple[int, int, int, int]:
    """x0 y0 x1 y1, half-open, tight around the pixels i64[n] of something that is seen."""
    return tuple(map(int, (columns.min(), rows.min(), columns.max() + 1, rows.max() + 1)))


def differs(other: Seen, one: Seen, attribute: str) -> bool:
    """Whether a viewer sees that `other` has another colour, shape, material or size than `one`."""
    if getattr(other.thing, attribute) == getattr(one.thing, attribute):
        return False
    if attribute != "size" or not other.shows(attribute):
        return other.shows(attribute)
    small, large = sorted((other, one), key=lambda seen: seen.thing.radius)
    return large.thing.radius / large.away >= LARGER * small.thing.radius / small.away


def is_left(one: Seen, other: Seen, width: int, aside: float = ASIDE) -> bool:
    """Whether `one` is left of `other`: its visible pixels and its middle, by a margin."""
    gaps = (other.middle[0] - one.middle[0], other.center[0] - one.center[0])
    return min(gaps) >= aside * width


def is_nearer(one: Seen, other: Seen, margin: float = NEARER) -> bool:
    """Whether `one` is nearer to the camera, whichever way a viewer may measure it."""
    middles = other.away - one.away, other.depth - one.depth
    surfaces = (other.away - other.thing.radius) - (one.away - one.thing.radius)
    return min(middles) >= margin and surfaces >= margin / 2


def is_behind(one: Seen, other: Seen) -> bool:
    """Whether `one` is behind `other`: farther away, and more so than to its side."""
    return is_nearer(other, one) and (
        abs(one.lateral - other.lateral) <= ACROSS * (one.depth - other.depth)
    )


def gap(one: Seen, other: Seen) -> float:
    """Scene units on the ground between the middles of two things."""
    return float(np.hypot(*np.subtract(one.thing.xy, other.thing.xy)))
