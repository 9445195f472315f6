"""Where arrays live: the mesh, the rule table, and host arrays becoming global ones.

The mesh has two axes. `fsdp` splits the pairs of a batch and one dimension of every matrix;
`tensor` splits heads, mlp columns and the vocabulary. The model names its dimensions (the Spec
table's logical axes); `RULES` says which mesh axis splits which. Nothing else knows both.
"""

import math
import os
import warnings
from collections.abc import Mapping, Sequence
from typing import Any

import jax
import numpy as np
from jax.sharding import AxisType, Mesh, NamedSharding, PartitionSpec

from dig_jax.config import MeshConfig

MESH_AXES = ("fsdp", "tensor")

# Logical axis -> mesh axis (or several, or None = every device holds all of it).
Rules = Mapping[str, str | tuple[str, ...] | None]
RULES: Rules = {
    "embed": "fsdp",
    "heads": "tensor",
    "kv_heads": "tensor",
    "mlp": "tensor",
    "vision_mlp": "tensor",
    "vocab": "tensor",
    "layer": None,
    "head_dim": None,
    "qkv": None,
    "norm": None,
    "rank": None,
    "pixels": None,
    "positions": None,
}

# A dimension that its mesh axis does not divide is an error, with two exceptions, which are
# held whole instead: key-value heads, of which large meshes have too few to go round, and
# parameters so small that a copy per device costs nothing (1 MiB in float32).
WHOLE_AXES = ("kv_heads",)
SMALL = 2**18  # elements

# XLA's CPU scheduler may start independent collectives in another order on each virtual device;
# with fewer cores than devices they then wait for one another until XLA aborts the process (a 2x2
# mesh on two loaded cores did, twice of twice). The flag is of the CPU backend alone.
CPU_ORDER = "--xla_cpu_enable_concurrency_optimized_scheduler=false"


def make_mesh(cfg: MeshConfig, devices: Sequence[jax.Device] | None = None) -> Mesh:
    """The (fsdp, tensor) mesh over all devices of all processes, or over `devices`.

    Raises ValueError unless fsdp * tensor is their number: a device left out is a mistake.
    """
    devices = jax.devices() if devices is None else list(devices)
    shape = (cfg.fsdp, cfg.tensor)
    if math.prod(shape) != len(devices):
        kind = devices[0].platform if devices else "no"
        raise ValueError(
            f"mesh.fsdp={cfg.fsdp} x mesh.tensor={cfg.tensor} = {math.prod(shape)} devices, but "
            f"there are {len(devices)} ({kind}); use --set mesh.fsdp={len(devices)} --set "
            f"mesh.tensor=1, or another product of {len(devices)}"
        )
    if len(devices) > 1 and devices[0].platform == "cpu":
        if CPU_ORDER not in os.environ.get("XLA_FLAGS", ""):
            warnings.warn(
                f"virtual CPU devices may deadlock; set XLA_FLAGS={CPU_ORDER}", stacklevel=2
            )
    # jax.make_mesh would default to Explicit axes, which type-check every gather and reshape.
    return jax.make_mesh(shape, MESH_AXES, axis_types=(AxisType.Auto,) * 2, devices=devices)


def spec_for(axes: Sequence[str], rules: Rules = RULES) -> PartitionSpec:
    """The partition of an array whose dimensions have these logical names.

    Raises KeyError for a name without a rule and ValueError when two dimensions claim one
    mesh axis.
    """
    for axis in axes:
        if axis not in rules:
            raise KeyError(f"logical axis {axis!r} of {tuple(axes)} has no sharding rule; add it")
    parts = [rules[axis] for axis in axes]
    used = [name for part in parts for name in _names(part)]
    twice = sorted({name for name in used if used.count(name) > 1})
    if twice:
        raise ValueError(f"axes {tuple(axes)} use mesh axis {twice[0]!r} twice; change the rules")
    return PartitionSpec(*parts)


def param_shardings(specs: Mapping[str, Any], mesh: Mesh, rules: Rules = RULES) -> dict:
    """NamedSharding of every row of a Spec table, in the structure of the parameters.

    specs   nested dict whose leaves have `shape` and `axes` (model.params.Spec)

    Raises ValueError naming parameter, dimension and mesh axis where a dimension does not
    divide (but see WHOLE_AXES and SMALL).
    """
    return _walk(specs, "", lambda name, spec: _row_sharding(name, spec, mesh, rules))


def batch_sharding(mesh: Mesh) -> NamedSharding:
    """Leading dimension over `fsdp`, everything else whole: how pairs are spread."""
    return NamedSharding(mesh, PartitionSpec("fsdp"))


def replicated(mesh: Mesh) -> NamedSharding:
    """Every device holds all of it."""
    return NamedSharding(mesh, PartitionSpec())


def shard_batch(rows: Any, mesh: Mesh) -> Any:
    """Global arrays over `fsdp` from the rows this process loaded (see `process_slice`).

    rows   pytree of numpy arrays [B_local, ...]   ->   jax arrays [B, ...]
    """
    index, count = process_slice(mesh)
    for path, leaf in jax.tree_util.tree_leaves_with_path(rows):
        if len(leaf) * count % mesh.shape["fsdp"]:
            raise ValueError(
                f"batch leaf {jax.tree_util.keystr(path)} has {len(leaf)} rows in slice {index} "
                f"of {count}; mesh.fsdp={mesh.shape['fsdp']} must divide the {len(leaf) * count}"
            )
    sharding = batch_sharding(mesh)
    with jax.transfer_guard_host_to_device("allow"):
        return jax.tree.map(lambda a: jax.make_array_from_process_local_data(sharding, a), rows)


def shard_global(tree: Any, mesh: Mesh) -> Any:
    """Global arrays over `fsdp` from arrays [B, ...] that every process holds in full."""
    return _place(tree, batch_sharding(mesh))


def replicate(tree: Any, mesh: Mesh) -> Any:
    """Replicated global arrays from arrays that every process holds, equal, in full."""
    return _place(tree, replicated(mesh))


def process_slice(mesh: Mesh) -> tuple[int, int]:
    """(index, count): this process loads slice `index` of `count` equal slices of a batch.

    Processes that share an fsdp row (the tensor axis spans them) load the same slice.
    """
    here = jax.process_index()
    local = [i for i, row in enumerate(mesh.devices) if any(d.process_index == here for d in row)]
    even = local and local[-1] - local[0] + 1 == len(local) and local[0] % len(local) == 0
    if not even or mesh.shape["fsdp"] % len(local):
        raise ValueError(
            f"process {here} holds fsdp rows {local} of {mesh.shape['fsdp']}, which is not an "
            f"even contiguous slice; choose mesh.fsdp as a multiple of the processes"
        )
    return local[0] // len(local), mesh.shape["fsdp"] // len(local)


def _place(tree: Any, sharding: NamedSharding) -> Any:
    def place(leaf):
        leaf = np.asarray(leaf)
        return jax.make_array_from_callback(leaf.shape, sharding, lambda index: leaf[index])

    # This is the explicit transfer: make_array_from_callback does not count as one by itself.
    with jax.transfer_guard_host_to_device("allow"):
        return jax.tree.map(place, tree)


def _names(part: str | tuple[str, ...] | None) -> tuple[str, ...]:
    return (part,) if isinstance(part, str) else tuple(part or ())


def _walk(tree: Any, path: str, leaf) -> Any:
    if isinstance(tree, Mapping):
        return {
            key: _walk(value, f"{path}/{key}" if path else key, leaf) for key, value in tree.items()
        }
    return leaf(path, tree)


def _row_sharding(name: str, spec: Any, mesh: Mesh, rules: Rules) -> NamedSharding:
    parts = []
    for axis, length, part in zip(spec.axes, spec.shape, spec_for(spec.axes, rules), strict=True):
        ways = math.prod(mesh.shape[mesh_axis] for mesh_axis in _names(part))
        if length % ways == 0:
            parts.append(part)
        elif axis in WHOLE_AXES or math.prod(spec.shape) <= SMALL:
            parts.append(None)
        else:
            raise ValueError(
                f"parameter {name} {tuple(spec.shape)}: {axis}={length} is not divisible by mesh "
                f"axis {part!r} of {ways} devices; choose mesh.{_names(part)[0]} to divide "
                f"{length}, or map {axis!r} to None in sharding.RULES"
            )
    return NamedSharding(mesh, PartitionSpec(*parts))
