"""Where things stand: clear of one another in both images and inside the frame."""

from __future__ import annotations

import dataclasses

import numpy as np

from dig_jax.data.scene.look import SceneConfig
from dig_jax.data.scene.scene import Rejected, Thing
from dig_jax.data.scene.visibility import View

Things = list[Thing | None]  # by id - 1; None where absent from an image


def place(
    config: SceneConfig, rng: np.random.Generator, view: View, before: Things, after: Things
) -> tuple[Things, Things]:
    """Give every thing a place that is clear of all others in both images.

    An added thing keeps clear of removed ones too, or the two would read as one replacement.
    Raises Rejected where some thing found none in `config.tries` offers.
    """
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
    return _moved(before, placed), _moved(after, placed)


def _moved(things: Things, placed: list[tuple[float, float, float]]) -> Things:
    return [t and dataclasses.replace(t, xy=p[:2]) for t, p in zip(things, placed, strict=True)]


def _inside(view: View, spots: np.ndarray, radius: float, across, along) -> np.ndarray:
    """Whether a thing at each spot stays in the frame: bool[N] (its left, right, top, foot)."""
    sides = np.array([across, -across, along, -along]) * radius  # [4,2]
    ground = spots[:, None, :] + sides
    levels = [
        np.concatenate([ground, np.full((*ground.shape[:2], 1), z)], -1) for z in (0.0, 2 * radius)
    ]
    pixels = view.project(np.concatenate(levels, axis=1))
    good = (pixels > 1) & (pixels < (view.width - 1, view.height - 1))
    return good.all((1, 2))
