"""Where rays hit the ideal shapes of things, and so which pixels show which thing; NumPy.

The renderer's meshes have small bevels that the ideal shapes lack, so the two masks agree on
all but a fraction of a percent of pixels: enough to drop bad scenes before rendering them, and
an independent check of camera and geometry afterwards.
"""

from __future__ import annotations

import functools
from dataclasses import dataclass

import numpy as np

from dig_jax.data.scene.scene import Camera, Plan, Thing


@dataclass(frozen=True)
class Forecast:
    """What the planner expects the renderer to show."""

    mask_a: np.ndarray  # u8[Y,X] ids
    mask_b: np.ndarray
    amodal_a: dict[int, np.ndarray]  # id -> bool[Y,X]
    amodal_b: dict[int, np.ndarray]


class View:
    """A camera's pixel geometry: rays through pixel centres, and the projection back."""

    def __init__(self, camera: Camera, width: int, height: int):
        self.width, self.height = width, height
        self.origin = np.asarray(camera.location, np.float64)
        forward = np.asarray(camera.look_at, np.float64) - self.origin
        self.forward = forward / np.linalg.norm(forward)
        right = np.cross(self.forward, (0.0, 0.0, 1.0))
        self.right = right / np.linalg.norm(right)
        self.up = np.cross(self.right, self.forward)
        self.scale = camera.lens / camera.sensor * width  # px per unit at distance 1

    @functools.cached_property
    def rays(self) -> np.ndarray:
        """Directions through the pixel centres: f64[Y,X,3], not normalised."""
        x = (np.arange(self.width) + 0.5 - self.width / 2) / self.scale
        y = (self.height / 2 - np.arange(self.height) - 0.5) / self.scale
        return self.forward + x[None, :, None] * self.right + y[:, None, None] * self.up

    def project(self, points: np.ndarray) -> np.ndarray:
        """Pixel coordinates of world points: f64[...,3] -> f64[...,2], x right, y down."""
        rel = points - self.origin
        depth = np.maximum(rel @ self.forward, 1e-6)
        x = self.width / 2 + self.scale * (rel @ self.right) / depth
        y = self.height / 2 - self.scale * (rel @ self.up) / depth
        return np.stack([x, y], -1)

    def window(self, thing: Thing) -> tuple[slice, slice]:
        """Rows and columns that contain the thing, clipped to the image."""
        corners = np.array(np.meshgrid((-1, 1), (-1, 1), (0, 1))).reshape(3, 8).T
        corners = corners * (thing.radius, thing.radius, thing.top) + (*thing.xy, 0.0)
        pixels = self.project(corners)
        low = np.floor(pixels.min(0)).astype(int) - 1
        high = np.ceil(pixels.max(0)).astype(int) + 1
        return (
            slice(max(low[1], 0), min(max(high[1], 0), self.height)),
            slice(max(low[0], 0), min(max(high[0], 0), self.width)),
        )


def cast(view: View, thing: Thing) -> np.ndarray:
    """Distance along every pixel's ray to the thing: f64[Y,X], inf where it is missed."""
    depth = np.full((view.height, view.width), np.inf)
    rows, columns = view.window(thing)
    rays = view.rays[rows, columns]
    if rays.size == 0:
        return depth
    depth[rows, columns] = hit(view.origin, rays, thing)
    return depth


def hit(origin: np.ndarray, rays: np.ndarray, thing: Thing) -> np.ndarray:
    """Where rays enter a thing: f64[...] in lengths of the ray, inf where they miss it.

    origin   f64[3] or f64[...,3]   outside the thing
    rays     f64[...,3]             not normalised

    A thing behind the origin is missed or entered at a negative length.
    """
    with np.errstate(divide="ignore", invalid="ignore"):
        return _HIT[thing.shape](origin - (*thing.xy, 0.0), rays, thing)


def normals(points: np.ndarray, thing: Thing) -> np.ndarray:
    """Unit normals, outwards, at points f64[N,3] of a thing's surface: f64[N,3]."""
    return _NORMALS[thing.shape](points - (*thing.xy, 0.0), thing)


def id_mask(depths: dict[int, np.ndarray], shape: tuple[int, int]) -> np.ndarray:
    """The nearest thing's id per pixel, 0 for the ground: u8[Y,X]."""
    mask = np.zeros(shape, np.uint8)
    nearest = np.full(shape, np.inf)
    for thing_id, depth in depths.items():
        closer = depth < nearest
        mask[closer] = thing_id
        nearest = np.minimum(nearest, depth)
    return mask


def foresee(plan: Plan, width: int, height: int) -> Forecast:
    """Visible and amodal masks of both images; a thing equal in both is cast once."""
    shape = (height, width)
    view_a = View(plan.camera, width, height)
    depth_a = {thing: cast(view_a, thing) for thing in plan.a}
    if plan.camera_b is None:
        depth_b = {t: depth_a[t] if t in depth_a else cast(view_a, t) for t in plan.b}
    else:
        view_b = View(plan.camera_b, width, height)
        depth_b = {thing: cast(view_b, thing) for thing in plan.b}
    return Forecast(
        id_mask({t.id: depth for t, depth in depth_a.items()}, shape),
        id_mask({t.id: depth for t, depth in depth_b.items()}, shape),
        {t.id: np.isfinite(depth) for t, depth in depth_a.items()},
        {t.id: np.isfinite(depth) for t, depth in depth_b.items()},
    )


def _dot(rays: np.ndarray, at: np.ndarray) -> np.ndarray:
    """Inner products of f64[...,C] with one vector f64[C], or with one of its own for each."""
    return rays @ at if at.ndim == 1 else np.einsum("...c,...c->...", rays, at)


def _hit_sphere(origin: np.ndarray, rays: np.ndarray, thing: Thing) -> np.ndarray:
    rel = origin - (0.0, 0.0, thing.radius)
    a = np.einsum("...c,...c->...", rays, rays)
    b = _dot(rays, rel)
    inside = b * b - a * (_dot(rel, rel) - thing.radius**2)
    return np.where(inside >= 0, (-b - np.sqrt(np.maximum(inside, 0))) / a, np.inf)


def _hit_cylinder(origin: np.ndarray, rays: np.ndarray, thing: Thing) -> np.ndarray:
    flat, rel = rays[..., :2], origin[..., :2]
    a = np.einsum("...c,...c->...", flat, flat)
    b = _dot(flat, rel)
    inside = b * b - a * (_dot(rel, rel) - thing.radius**2)
    side = (-b - np.sqrt(np.maximum(inside, 0))) / a
    z = origin[..., 2] + side * rays[..., 2]
    side = np.where((inside >= 0) & (z >= 0) & (z <= thing.top), side, np.inf)
    lid = (thing.top - origin[..., 2]) / rays[..., 2]
    on_lid = np.sum((rel + lid[..., None] * flat) ** 2, -1) <= thing.radius**2
    return np.minimum(side, np.where(on_lid & (lid > 0), lid, np.inf))


def _hit_cube(origin: np.ndarray, rays: np.ndarray, thing: Thing) -> np.ndarray:
    turn, half = _turn(thing), thing.top / 2
    start = (origin - (0.0, 0.0, half)) @ turn
    step = rays @ turn
    first, second = (-half - start) / step, (half - start) / step
    near = np.minimum(first, second).max(-1)
    far = np.maximum(first, second).min(-1)
    return np.where((near <= far) & (near > 0), near, np.inf)


def _turn(thing: Thing) -> np.ndarray:
    """World row vectors times this are the thing's own: f64[3,3]."""
    cos, sin = np.cos(thing.theta), np.sin(thing.theta)
    return np.array([[cos, -sin, 0], [sin, cos, 0], [0, 0, 1]])


def _normals_sphere(points: np.ndarray, thing: Thing) -> np.ndarray:
    return (points - (0.0, 0.0, thing.radius)) / thing.radius


def _normals_cylinder(points: np.ndarray, thing: Thing) -> np.ndarray:
    on_lid = points[:, 2] >= thing.top * (1 - 1e-9)
    around = points * (1.0, 1.0, 0.0) / thing.radius
    return np.where(on_lid[:, None], (0.0, 0.0, 1.0), around)


def _normals_cube(points: np.ndarray, thing: Thing) -> np.ndarray:
    """The face is that of the coordinate farthest from the middle."""
    turn = _turn(thing)
    local = (points - (0.0, 0.0, thing.top / 2)) @ turn
    face = np.argmax(np.abs(local), -1)[:, None]
    sign = np.sign(np.take_along_axis(local, face, -1))
    return sign * turn.T[face[:, 0]]


_HIT = {"sphere": _hit_sphere, "cylinder": _hit_cylinder, "cube": _hit_cube}
_NORMALS = {"sphere": _normals_sphere, "cylinder": _normals_cylinder, "cube": _normals_cube}
