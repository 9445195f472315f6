"""Machines by name: how many devices, what each of them holds and does, and a mesh to start with.

Topologies are libtpu's names. Memory is what its compiler enforces (v5e 15.75 GiB of 16); of a
GPU, what XLA_PYTHON_CLIENT_MEM_FRACTION=0.95 leaves. Speeds are the vendors' peaks per device, in
bfloat16; a tpu7x chip is two devices with half of each.
"""

import difflib
import math
from dataclasses import dataclass

import jax

from dig_jax.mesh import sharding
from dig_jax.model.config import ModelConfig
from dig_jax.model.specs import model_specs


@dataclass(frozen=True)
class Slice:
    """One kind of machine.

    topology   libtpu's name, or partitions x hosts x GPUs
    devices    that JAX sees, on all hosts
    hbm_gib    that a program may use of one device
    peak       FLOP/s of one device
    bandwidth  bytes/s between one device and its memory
    mesh       (fsdp, tensor) that suits the released sizes
    gpu        the card's name in XLA's specifications; "" for a TPU
    """

    name: str
    topology: str
    devices: int
    hbm_gib: float
    peak: float
    bandwidth: float
    mesh: tuple[int, int]
    gpu: str = ""

    @property
    def platform(self) -> str:
        return "gpu" if self.gpu else "tpu"


# kind -> GiB, FLOP/s, bytes/s of a device
_KINDS = {
    "v5e": (15.75, 197e12, 819e9),
    "v5p": (95.73, 459e12, 2765e9),
    "v6e": (31.24, 918e12, 1638e9),
    "tpu7x": (94.74, 1153.5e12, 3690e9),
    "h100": (0.95 * 79, 989e12, 3350e9),
    "h200": (0.95 * 139, 989e12, 4800e9),
}
# name -> kind, topology, devices, mesh. v5p counts TensorCores, two a chip and one device.
_ROWS = {
    "v5e-4": ("v5e", "v5e:2x2", 4, (1, 4)),
    "v5e-8": ("v5e", "v5e:2x4", 8, (1, 8)),
    "v5e-16": ("v5e", "v5e:4x4", 16, (2, 8)),
    "v5e-32": ("v5e", "v5e:4x8", 32, (4, 8)),
    "v5e-64": ("v5e", "v5e:8x8", 64, (8, 8)),
    "v5e-128": ("v5e", "v5e:8x16", 128, (16, 8)),
    "v5e-256": ("v5e", "v5e:16x16", 256, (32, 8)),
    "v5p-8": ("v5p", "v5p:2x2x1", 4, (1, 4)),
    "v5p-16": ("v5p", "v5p:2x2x2", 8, (2, 4)),
    "v5p-32": ("v5p", "v5p:2x2x4", 16, (4, 4)),
    "v5p-64": ("v5p", "v5p:2x4x4", 32, (8, 4)),
    "v5p-128": ("v5p", "v5p:4x4x4", 64, (16, 4)),
    "v6e-4": ("v6e", "v6e:2x2", 4, (1, 4)),
    "v6e-8": ("v6e", "v6e:2x4", 8, (2, 4)),
    "v6e-16": ("v6e", "v6e:4x4", 16, (4, 4)),
    "v6e-32": ("v6e", "v6e:4x8", 32, (8, 4)),
    "v6e-64": ("v6e", "v6e:8x8", 64, (16, 4)),
    "v6e-256": ("v6e", "v6e:16x16", 256, (64, 4)),
    "tpu7x-8": ("tpu7x", "tpu7x:2x2x1", 8, (2, 4)),
    "tpu7x-16": ("tpu7x", "tpu7x:2x2x2", 16, (4, 4)),
    "tpu7x-128": ("tpu7x", "tpu7x:4x4x4", 128, (32, 4)),
    "h100": ("h100", "1x1x1", 1, (1, 1)),
    "h200": ("h200", "1x1x1", 1, (1, 1)),
    "8xh100": ("h100", "1x1x8", 8, (8, 1)),
    "8xh200": ("h200", "1x1x8", 8, (8, 1)),
    "16xh100": ("h100", "1x2x8", 16, (16, 1)),
}
_CARDS = {"h100": "NVIDIA H100 80GB HBM3", "h200": "NVIDIA H200 141GB HBM3e"}


def names() -> list[str]:
    return list(_ROWS)


def find(name: str) -> Slice:
    """The slice of a name, upper case allowed; ValueError naming the nearest ones."""
    if name.lower() not in _ROWS:
        near = difflib.get_close_matches(name.lower(), _ROWS, n=4, cutoff=0.4) or list(_ROWS)
        raise ValueError(f"slice {name!r} is not known; nearest: {', '.join(near)}")
    kind, topology, devices, mesh = _ROWS[name.lower()]
    return Slice(name.lower(), topology, devices, *_KINDS[kind], mesh, _CARDS.get(kind, ""))


def check_mesh(
    on: Slice, mesh: tuple[int, int], model: ModelConfig, pairs: int | None = None
) -> None:
    """Raises ValueError where an (fsdp, tensor) mesh does not divide what it must.

    pairs   of one gradient slice; None: not asked
    """
    wrong = _problem(on.devices, mesh, model, pairs)
    if not wrong:
        return
    shapes = [(on.devices // t, t) for t in range(1, on.devices + 1) if on.devices % t == 0]
    works = [m for m in shapes if not _problem(on.devices, m, model, pairs)]
    near = min(works, key=lambda m: abs(math.log2(m[1] / mesh[1])), default=None)
    remedy = f"no mesh of {on.devices} devices works; give each of them a pair, or take fewer"
    if near:
        remedy = f"nearest that works: --set mesh.fsdp={near[0]} --set mesh.tensor={near[1]}"
    raise ValueError(f"mesh.fsdp={mesh[0]} x mesh.tensor={mesh[1]} on {on.name}: {wrong}; {remedy}")


def _problem(devices: int, mesh: tuple[int, int], model: ModelConfig, pairs: int | None) -> str:
    if math.prod(mesh) != devices:
        return f"{math.prod(mesh)} devices, but the slice has {devices}"
    if pairs is not None and pairs % devices:
        return f"{devices} devices do not divide the {pairs} pairs of one gradient slice"
    on = jax.sharding.AbstractMesh(mesh, sharding.MESH_AXES)
    try:
        for layout in ("train", "rollout"):
            sharding.param_shardings(model_specs(model), on, layout)
    except ValueError as wrong:
        return str(wrong).partition(";")[0]
    return ""
