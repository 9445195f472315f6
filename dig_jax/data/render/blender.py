"""The Blender worker: a program of its own, the only file that imports Blender.

    python -m dig_jax.data.render.blender

`worker` has the protocol. bpy is GPL, wants one exact Python minor and edits sys.path: nothing
else ever imports this.
"""

from __future__ import annotations

from pathlib import Path

import bpy
import numpy as np
from mathutils import Vector

from dig_jax.data.render.exr import read_exr
from dig_jax.data.render.lighting import GROUND_ALBEDO, LIGHTS, SKY, SKY_STRENGTH
from dig_jax.data.render.produce import Renderer
from dig_jax.data.render.worker import serve
from dig_jax.data.scene.colors import to_srgb
from dig_jax.data.scene.look import SceneConfig
from dig_jax.data.scene.scene import COLORS, MATERIALS, Shot, Thing

_RUBBER = {"Metallic": 0.0, "Roughness": 0.75, "Specular IOR Level": 0.35}
_METAL = {"Metallic": 1.0, "Roughness": 0.18}


class Studio:
    """Blender's global scene, built once; `render` only moves and swaps what is in it."""

    def __init__(self, config: SceneConfig, path: Path):
        self.config, self.path = config, path
        bpy.ops.wm.read_factory_settings(use_empty=True)
        _set_render(config, path)
        self.materials = {
            (color, material): _make_material(color, material)
            for color in COLORS
            for material in MATERIALS
        }
        self.meshes = {"cube": _cube_mesh(), "sphere": _sphere_mesh(), "cylinder": _cylinder_mesh()}
        _add_ground_and_world()
        self.lights = {name: _add_light(name, *spec) for name, spec in LIGHTS.items()}
        self.camera = bpy.data.objects.new("camera", bpy.data.cameras.new("camera"))
        self.camera.data.sensor_fit = "HORIZONTAL"
        bpy.context.scene.collection.objects.link(self.camera)
        bpy.context.scene.camera = self.camera
        self.slots = [self._add_slot(i + 1) for i in range(config.max_things)]

    def render(self, shot: Shot) -> tuple[np.ndarray, np.ndarray]:
        """Image u8[Y,X,3] in sRGB and thing ids u8[Y,X] of one shot."""
        self.camera.data.lens, self.camera.data.sensor_width = shot.camera.lens, shot.camera.sensor
        _aim(self.camera, shot.camera.location, shot.camera.look_at)
        for name, location in shot.lights:
            _aim(self.lights[name], location, (0.0, 0.0, 0.0))
        present = {thing.id: thing for thing in shot.things}
        for slot in self.slots:
            thing = present.get(slot.pass_index)
            slot.hide_render = thing is None
            if thing is not None:
                self._dress(slot, thing)
        bpy.context.scene.cycles.seed = shot.seed
        bpy.ops.render.render(write_still=True)
        channels = read_exr(self.path)
        linear = np.stack([channels[f"L.Combined.{c}"] for c in "RGB"], -1)
        return to_srgb(linear), np.rint(channels["L.Object Index.X"]).astype(np.uint8)

    def _add_slot(self, thing_id: int):
        slot = bpy.data.objects.new(f"thing{thing_id}", self.meshes["cube"])
        slot.pass_index = thing_id
        bpy.context.scene.collection.objects.link(slot)
        return slot

    def _dress(self, slot, thing: Thing) -> None:
        slot.data = self.meshes[thing.shape]
        slot.material_slots[0].link = "OBJECT"
        slot.material_slots[0].material = self.materials[thing.color, thing.material]
        slot.scale = (thing.radius,) * 3
        slot.rotation_euler = (0.0, 0.0, thing.theta)
        slot.location = (*thing.xy, thing.top / 2)


def _set_render(config: SceneConfig, path: Path) -> None:
    """Cycles on one CPU thread, plain linear EXR with the object index, nothing adaptive."""
    scene = bpy.context.scene
    render, cycles, image = scene.render, scene.cycles, scene.render.image_settings
    render.engine = "CYCLES"
    render.resolution_x, render.resolution_y = config.width, config.height
    render.resolution_percentage = 100
    render.threads_mode, render.threads = "FIXED", 1
    render.use_persistent_data = True
    render.use_compositing = render.use_sequencer = False
    render.use_file_extension, render.filepath = False, str(path)
    cycles.device = "CPU"
    cycles.samples, cycles.use_adaptive_sampling = config.samples, False
    cycles.use_denoising, cycles.denoiser = True, "OPENIMAGEDENOISE"
    cycles.denoising_prefilter, cycles.denoising_use_gpu = "FAST", False
    cycles.max_bounces, cycles.diffuse_bounces, cycles.glossy_bounces = 3, 1, 2
    cycles.transmission_bounces = cycles.volume_bounces = 0
    cycles.caustics_reflective = cycles.caustics_refractive = False
    cycles.sample_clamp_indirect, cycles.use_light_tree = 4.0, False
    image.media_type = "MULTI_LAYER_IMAGE"  # before file_format, which it constrains
    image.file_format, image.color_depth = "OPEN_EXR_MULTILAYER", "32"
    image.exr_codec, image.use_exr_interleave = "NONE", True
    layer = scene.view_layers[0]
    layer.name, layer.use_pass_object_index = "L", True


def _make_material(color: str, material: str):
    out = bpy.data.materials.new(f"{color}_{material}")
    shader = next(n for n in out.node_tree.nodes if n.type == "BSDF_PRINCIPLED")
    shader.inputs["Base Color"].default_value = (*(c / 255 for c in COLORS[color]), 1.0)
    for name, value in (_METAL if material == "metal" else _RUBBER).items():
        shader.inputs[name].default_value = value
    return out


def _add_ground_and_world() -> None:
    """A wide diffuse floor (Principled costs 15 % more here) under a dim sky."""
    world = bpy.data.worlds.new("world")
    sky = next(n for n in world.node_tree.nodes if n.type == "BACKGROUND")
    sky.inputs["Color"].default_value = (*SKY, 1.0)
    sky.inputs["Strength"].default_value = SKY_STRENGTH
    bpy.context.scene.world = world
    material = bpy.data.materials.new("ground")
    nodes = material.node_tree.nodes
    diffuse = nodes.new("ShaderNodeBsdfDiffuse")
    diffuse.inputs["Color"].default_value = (*(GROUND_ALBEDO,) * 3, 1.0)
    output = next(n for n in nodes if n.type == "OUTPUT_MATERIAL")
    material.node_tree.links.new(diffuse.outputs["BSDF"], output.inputs["Surface"])
    mesh = bpy.data.meshes.new("ground")
    mesh.from_pydata([(-60, -60, 0), (60, -60, 0), (60, 60, 0), (-60, 60, 0)], [], [(0, 1, 2, 3)])
    mesh.materials.append(material)
    bpy.context.scene.collection.objects.link(bpy.data.objects.new("ground", mesh))


def _add_light(name: str, watts: float, size: float):
    light = bpy.data.lights.new(name, "AREA")
    light.shape, light.energy, light.size = "DISK", watts, size
    out = bpy.data.objects.new(name, light)
    bpy.context.scene.collection.objects.link(out)
    return out


def _aim(thing, location, target) -> None:
    """Place an object and turn its -Z axis to the target, its Y axis up."""
    thing.location = location
    thing.rotation_euler = (Vector(target) - Vector(location)).to_track_quat("-Z", "Y").to_euler()


def _cube_mesh():
    bpy.ops.mesh.primitive_cube_add(size=2**0.5)
    return _bevelled()


def _sphere_mesh(segments: int = 48, rings: int = 24):
    """A unit sphere made point by point, its normals told, not computed.

    Blender's own comes with its faces in another order in every process and sums its normals
    in several threads: the last bits differed, and with them a pixel of some pictures.
    """
    down = np.pi * np.arange(1, rings) / rings
    around = 2 * np.pi * np.arange(segments) / segments
    x, y = (np.outer(np.sin(down), turn(around)) for turn in (np.cos, np.sin))
    z = np.repeat(np.cos(down), segments).reshape(x.shape)
    points = np.concatenate([np.stack([x, y, z], -1).reshape(-1, 3), [[0, 0, 1], [0, 0, -1]]])
    mesh = bpy.data.meshes.new("sphere")
    mesh.from_pydata(points.tolist(), [], _sphere_faces(segments, rings))
    mesh.shade_smooth()
    normals = mesh.attributes.new("custom_normal", "FLOAT_VECTOR", "POINT")
    normals.data.foreach_set("vector", points.astype(np.float32).ravel())
    mesh.use_fake_user = True
    mesh.materials.append(None)  # one slot, filled per object
    return mesh


def _sphere_faces(segments: int, rings: int) -> list[tuple[int, ...]]:
    """Quads between rings, triangles at the poles, which are the last two points."""
    north, south = segments * (rings - 1), segments * (rings - 1) + 1
    last = segments * (rings - 2)
    faces = []
    for i in range(segments):
        j = (i + 1) % segments
        faces += [(north, i, j), (south, last + j, last + i)]
        for ring in range(0, last, segments):
            faces.append((ring + i, ring + segments + i, ring + segments + j, ring + j))
    return faces


def _cylinder_mesh():
    bpy.ops.mesh.primitive_cylinder_add(vertices=64, radius=1.0, depth=2.0)
    return _bevelled()


def _bevelled():
    """The active object's mesh, edges rounded, smooth-shaded; the object itself is removed."""
    helper = bpy.context.object
    bpy.ops.object.shade_smooth()
    bevel = helper.modifiers.new("bevel", "BEVEL")
    bevel.width, bevel.segments = 0.03, 2
    bevel.limit_method, bevel.harden_normals = "ANGLE", True
    bpy.ops.object.modifier_apply(modifier="bevel")
    mesh = helper.data
    mesh.use_fake_user = True
    mesh.materials.clear()
    mesh.materials.append(None)  # one slot, filled per object
    bpy.data.objects.remove(helper)
    return mesh


def start(config: SceneConfig, scratch: Path) -> tuple[Renderer, str]:
    """A renderer for `worker.serve`, and Blender's version."""
    return Studio(config, scratch / "pair.exr").render, bpy.app.version_string


if __name__ == "__main__":
    serve(start)
