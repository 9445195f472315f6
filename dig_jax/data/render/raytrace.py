"""The worker without Blender: a small ray tracer over the planner's ideal shapes, in NumPy.

    python -m dig_jax.data.render.raytrace

`worker` has the protocol. Same scenes, camera, lamps and sky as Blender's, so that a look's
thresholds hold here too; flatter pictures, for tests, notebooks and Pythons without bpy. The id
mask is the planner's own, bit for bit. There is no noise: `Shot.seed` and `SceneConfig.samples`
change nothing.

What light does here: Lambert's law and one glossy lobe under three disk lamps with shadows, a
uniform sky that things nearby hide, and one mirror bounce off metal.
"""

from __future__ import annotations

import functools
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from dig_jax.data.render.lighting import GROUND_ALBEDO, LIGHTS, SKY, SKY_STRENGTH
from dig_jax.data.render.produce import Renderer
from dig_jax.data.render.worker import serve
from dig_jax.data.scene.colors import to_srgb
from dig_jax.data.scene.look import SceneConfig
from dig_jax.data.scene.scene import COLORS, Shot, Thing
from dig_jax.data.scene.visibility import View, cast, hit, id_mask, normals

_SIDE = 2  # samples per pixel along each axis
_SKY = SKY_STRENGTH * np.array(SKY)[:, None]
_LOBE = {"rubber": 0.56, "metal": 0.032}  # its width: roughness squared
_RUBBER_GLOSS = 0.028  # reflectance head-on; metal's is its colour
_FLOOR_SHARE = 0.5  # of open ground's light: things stand in their own shade
# Where on its unit disk a pixel's samples look for a lamp, each at another spot: soft shadows.
_SPOTS = 0.7 * np.array([[0.9, 0.4], [-0.4, 0.9], [0.4, -0.9], [-0.9, -0.4]])


def render(shot: Shot, width: int, height: int) -> tuple[np.ndarray, np.ndarray]:
    """Image u8[Y,X,3] in sRGB and thing ids u8[Y,X] of one shot; the same bytes every time."""
    view = View(shot.camera, width, height)
    mask = id_mask({t.id: cast(view, t) for t in shot.things}, (height, width))
    fine = View(shot.camera, _SIDE * width, _SIDE * height)  # its pixels are the samples
    depths = {t.id: cast(fine, t).ravel() for t in shot.things}
    rows, columns = np.indices((fine.height, fine.width)).reshape(2, -1) % _SIDE
    rays = np.ascontiguousarray(fine.rays.reshape(-1, 3).T)
    beams = _Beams(fine.origin[:, None], rays, _SIDE * rows + columns)
    light = _Scene(shot).seen(beams, depths, mirrors=1)
    # cut off before averaging: a few very bright samples would spoil the edge of a highlight
    samples = np.minimum(light, 1.0).reshape(3, height, _SIDE, width, _SIDE)
    return to_srgb(np.moveaxis(samples.mean((2, 4)), 0, -1)), mask


# Below, vectors and colours are columns: with N last, NumPy's inner loops are long.


@dataclass(frozen=True)
class _Beams:
    """Rays to follow."""

    origin: np.ndarray  # f64[3,1] or f64[3,N]
    rays: np.ndarray  # f64[3,N]
    spots: np.ndarray  # i64[N] rows of _SPOTS


@dataclass(frozen=True)
class _Surface:
    """What rays have hit."""

    points: np.ndarray  # f64[3,N]
    normal: np.ndarray  # f64[3,N], unit
    back: np.ndarray  # f64[3,N], unit: where the ray came from
    ids: np.ndarray  # u8[N], 0 the ground
    spots: np.ndarray  # i64[N]

    def __getitem__(self, rows: np.ndarray) -> _Surface:
        return _Surface(*(getattr(self, name)[..., rows] for name in self.__dataclass_fields__))


class _Lamp:
    """A disk that faces the origin of the world."""

    def __init__(self, name: str, at: tuple[float, float, float]):
        watts, size = LIGHTS[name]
        self.at, self.radius = np.array(at)[:, None], size / 2
        self.facing = -_unit(self.at)
        side = _unit(np.cross(self.facing, (0.0, 0.0, 1.0), axis=0))
        plane = np.hstack([side, np.cross(side, self.facing, axis=0)])
        self.spots = self.at + self.radius * plane @ _SPOTS.T  # f64[3,4]
        self.strength = watts / np.pi**2  # light that white sends out at one unit, both facing

    def falls_on(self, points: np.ndarray, normal: np.ndarray) -> np.ndarray:
        """Light that a white matte surface would send out: f64[N], 0 where it faces away."""
        ray = self.at - points
        square = _dot(ray, ray)
        facing = np.maximum(_dot(ray, normal), 0.0)
        sending = np.maximum(-_dot(ray, self.facing), 0.0)
        return self.strength * facing * sending / (square * square)


class _Scene:
    """Things, ground, lamps and sky of one shot."""

    def __init__(self, shot: Shot):
        self.things = shot.things
        self.lamps = [_Lamp(*light) for light in shot.lights]
        count = 1 + max((thing.id for thing in shot.things), default=0)
        self.matte = np.full((3, count), GROUND_ALBEDO)  # by id: share of light scattered
        self.gloss = np.zeros((3, count))  # and reflected, seen head-on
        self.width = np.ones(count)  # of the glossy lobe
        self.is_metal = np.zeros(count, bool)
        for thing in shot.things:
            color, is_metal = np.array(COLORS[thing.color]) / 255, thing.material == "metal"
            self.matte[:, thing.id] = 0.0 if is_metal else color
            self.gloss[:, thing.id] = color if is_metal else _RUBBER_GLOSS
            self.width[thing.id] = _LOBE[thing.material]
            self.is_metal[thing.id] = is_metal
        middle, up = np.zeros((3, 1)), np.array([[0.0], [0.0], [1.0]])
        direct = sum(lamp.falls_on(middle, up) for lamp in self.lamps)
        self.floor = GROUND_ALBEDO * (direct + _SKY)  # f64[3,1]: what open ground sends out

    def seen(self, beams: _Beams, depths: dict[int, np.ndarray], mirrors: int) -> np.ndarray:
        """Light that comes back along rays: f64[3,N].

        depths    id -> f64[N], how far along its ray each thing is hit
        mirrors   how often a mirror image is followed
        """
        ids = id_mask(depths, beams.spots.shape)
        with np.errstate(divide="ignore"):
            floor = np.where(beams.rays[2] < 0, -beams.origin[2] / beams.rays[2], np.inf)
        nearest = functools.reduce(np.minimum, depths.values(), np.full(len(ids), np.inf))
        distance = np.where(ids > 0, nearest, floor)
        hits = np.flatnonzero(np.isfinite(distance))
        rays = beams.rays[:, hits]
        origin = np.broadcast_to(beams.origin, beams.rays.shape)[:, hits]
        points = origin + distance[hits] * rays
        normal = self._normals(points, ids[hits])
        surface = _Surface(points, normal, -_unit(rays), ids[hits], beams.spots[hits])
        light = np.broadcast_to(_SKY, beams.rays.shape).copy()
        light[:, hits] = self._sent(surface, mirrors)
        return light

    def _normals(self, points: np.ndarray, ids: np.ndarray) -> np.ndarray:
        out = np.zeros_like(points)
        out[2] = 1.0
        for thing in self.things:
            rows = np.flatnonzero(ids == thing.id)
            out[:, rows] = normals(points[:, rows].T, thing).T
        return out

    def _sent(self, surface: _Surface, mirrors: int) -> np.ndarray:
        """Light that a surface sends back to where it is looked at from: f64[3,N]."""
        arriving = self._ambient(surface)
        glossy = np.flatnonzero(surface.ids)
        shiny = surface[glossy]
        gleam = np.zeros((3, len(glossy)))
        for lamp in self.lamps:
            direct = lamp.falls_on(surface.points, surface.normal) * self._is_open(surface, lamp)
            arriving += direct
            gleam += direct[glossy] * self._lobe(shiny, lamp)
        light = self.matte[:, surface.ids] * arriving
        light[:, glossy] += gleam
        metal = np.flatnonzero(self.is_metal[surface.ids])
        light[:, metal] += self._mirrored(surface[metal], mirrors)
        return light

    def _ambient(self, surface: _Surface) -> np.ndarray:
        """Light from the sky and, below the horizon, from the ground: f64[3,N].

        A thing nearby hides as much of the sky as a ball of its radius would.
        """
        hidden = np.zeros(len(surface.ids))
        for thing in self.things:
            apart = _middle(thing) - surface.points
            facing = np.maximum(_dot(apart, surface.normal), 0.0)
            square = np.maximum(_dot(apart, apart), 1e-9)
            share = facing * thing.radius**2 / (square * np.sqrt(square))
            hidden += np.where(surface.ids == thing.id, 0.0, share)
        above = (1 + surface.normal[2]) / 2
        open_sky = above * np.maximum(1.0 - hidden, 0.0)
        return open_sky * _SKY + _FLOOR_SHARE * (1 - above) * self.floor

    def _is_open(self, surface: _Surface, lamp: _Lamp) -> np.ndarray:
        """Whether nothing stands between a surface and its spot of the lamp: bool[N]."""
        rays = lamp.spots[:, surface.spots] - surface.points
        ways = _unit(rays)
        is_open = np.ones(len(surface.ids), bool)
        for thing in self.things:
            near = _passing(surface.points, ways, thing) & (surface.ids != thing.id)
            rows = np.flatnonzero(near & is_open)
            length = hit(surface.points[:, rows].T, rays[:, rows].T, thing)
            is_open[rows] = (length <= 0) | (length >= 1)
        return is_open

    def _lobe(self, surface: _Surface, lamp: _Lamp) -> np.ndarray:
        """Glossy over matte-white reflection of the lamp: f64[3,N] (GGX, Kelemen, Schlick)."""
        ray = lamp.at - surface.points
        length = np.sqrt(_dot(ray, ray))
        towards = ray / length
        half = _unit(towards + surface.back)
        # a disk widens the lobe by half its angle, as half vectors turn half as far
        width = self.width[surface.ids] + lamp.radius / (2 * length)
        slope = 1 - _dot(surface.normal, half) ** 2 * (1 - width**2)
        along = _dot(towards, half)
        shape = (width / slope) ** 2 / (4 * np.maximum(along, 0.1) ** 2)
        return shape * _fresnel(self.gloss[:, surface.ids], along)

    def _mirrored(self, surface: _Surface, mirrors: int) -> np.ndarray:
        """Mirror image in a metal surface: f64[3,N]; where not followed, plain sky or ground."""
        along = _dot(surface.back, surface.normal)
        rays = 2 * along * surface.normal - surface.back
        if mirrors:
            depths = {t.id: self._beyond(surface, rays, t) for t in self.things}
            image = self.seen(_Beams(surface.points, rays, surface.spots), depths, mirrors - 1)
        else:
            image = np.where(rays[2] > 0, _SKY, self.floor)
        return image * _fresnel(self.gloss[:, surface.ids], along)

    def _beyond(self, surface: _Surface, rays: np.ndarray, thing: Thing) -> np.ndarray:
        """Length along rays from a surface to another thing: f64[N], inf where it is missed."""
        near = _passing(surface.points, rays, thing) & (surface.ids != thing.id)
        rows = np.flatnonzero(near)
        found = hit(surface.points[:, rows].T, rays[:, rows].T, thing)
        length = np.full(len(near), np.inf)
        length[rows] = np.where(found > 0, found, np.inf)
        return length


def _middle(thing: Thing) -> np.ndarray:
    return np.array([[*thing.xy, thing.top / 2]]).T


def _passing(points: np.ndarray, ways: np.ndarray, thing: Thing) -> np.ndarray:
    """Whether a unit ray enters the ball around a thing: bool[N]; quicker than `hit`."""
    apart = _middle(thing) - points
    ahead = _dot(apart, ways)
    return (ahead > 0) & (_dot(apart, apart) - ahead * ahead <= 2.01 * thing.radius**2)


def _fresnel(head_on: np.ndarray, along: np.ndarray) -> np.ndarray:
    """Schlick: reflections are stronger at a grazing angle."""
    rest = np.clip(1 - along, 0, 1)
    return head_on + (1 - head_on) * (rest * rest) ** 2 * rest


def _dot(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    return a[0] * b[0] + a[1] * b[1] + a[2] * b[2]


def _unit(a: np.ndarray) -> np.ndarray:
    return a / np.sqrt(_dot(a, a))


def start(config: SceneConfig, scratch: Path) -> tuple[Renderer, str]:
    """A renderer for `worker.serve`, and its version; nothing is written to `scratch`."""
    size = dict(width=config.width, height=config.height)
    return functools.partial(render, **size), f"numpy {np.__version__}"


if __name__ == "__main__":
    serve(start)
