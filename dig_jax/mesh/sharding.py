"""Where arrays live: the mesh, two layouts of one tree, and host arrays becoming global ones.

The mesh has two axes, `fsdp` and `tensor`. The model names the dimensions of every parameter (the
Spec table's logical axes); `RULES` says which of them the mesh may split. Nothing else knows both.

    rollout   `tensor` splits heads, mlp columns and the vocabulary; copies along `fsdp`. Pairs are
              spread over `fsdp`. What decoding wants: no weight travels between devices.
    train     `fsdp` splits the same dimension once more, so that every device holds its own part
              of the weights and moments (ZeRO-3). Pairs are spread over both axes; a layer's
              weights are gathered where it is computed.

The same dimension, so that going from train to rollout is one gather along `fsdp`.
"""

import math
import os
import warnings
from collections.abc import Mapping, Sequence
from typing import Any, Literal

import jax
import numpy as np
from jax.experimental import mesh_utils
from jax.sharding import AxisType, Mesh, NamedSharding, PartitionSpec

from dig_jax.config import MeshConfig

MESH_AXES = ("fsdp", "tensor")
Layout = Literal["train", "rollout"]

# Logical axis -> what may split it: "tensor" (and `fsdp` with it), "fsdp" where the row has no
# dimension that both divide, or nothing.
Rules = Mapping[str, str | None]
RULES: Rules = {
    "heads": "tensor",
    "kv_heads": "tensor",
    "mlp": "tensor",
    "vision_mlp": "tensor",
    "vocab": "tensor",
    "feature": "tensor",
    "embed": "fsdp",
    "head_dim": None,
    "token": None,
    "layer": None,
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
    return Mesh(arrange(devices, shape), MESH_AXES, axis_types=(AxisType.Auto,) * 2)


def arrange(devices: Sequence[jax.Device], shape: tuple[int, int]) -> np.ndarray:
    """Devices as a [fsdp, tensor] array, near ones together as the network between them wants.

    Raises ValueError for TPU slices that are joined by another network than their own.
    """
    slices = {getattr(device, "slice_index", 0) for device in devices}
    if len(slices) > 1 and devices[0].platform == "tpu":
        raise ValueError(
            f"these devices are {len(slices)} TPU slices; a mesh is laid over one: start one "
            f"run per slice"
        )
    # Not jax.make_mesh: it takes every further machine of GPUs for a slice and refuses it (jax
    # 0.11, #37769), and splits a slice's axes on v5e alone: 8 x 2 on a v6e of 4 x 4 is an error.
    return mesh_utils.create_device_mesh(shape, devices, allow_split_physical_axes=True)


def spec_for(
    axes: Sequence[str], shape: Sequence[int], mesh: Mesh, layout: Layout, rules: Rules = RULES
) -> PartitionSpec:
    """The partition of a parameter with these logical axes and lengths.

    Raises KeyError for an axis without a rule, ValueError where `tensor` or, in the train layout,
    `fsdp` divides no dimension that it may split (but see WHOLE_AXES and SMALL).
    """
    for axis in axes:
        if axis not in rules:
            raise KeyError(f"logical axis {axis!r} of {tuple(axes)} has no sharding rule; add it")
    parts: list[tuple[str, ...]] = [()] * len(axes)
    tensor = [i for i, axis in enumerate(axes) if rules[axis] == "tensor"]
    fits = [i for i in tensor if shape[i] % mesh.shape["tensor"] == 0]
    small = math.prod(shape) <= SMALL
    if fits:
        parts[fits[0]] = ("tensor",)
    elif tensor and not small and not all(axes[i] in WHOLE_AXES for i in tensor):
        raise _does_not_divide(axes, shape, mesh, "tensor", tensor[0])
    if layout == "train":
        _split_again(parts, axes, shape, mesh, rules, small=small)
    return PartitionSpec(*(part if len(part) > 1 else (part or (None,))[0] for part in parts))


def _split_again(parts: list, axes, shape, mesh: Mesh, rules: Rules, *, small: bool) -> None:
    """Gives `fsdp` a dimension: the one that `tensor` has, else the first that it divides.

    A row without a dimension for `tensor` is split by both where that goes.
    """
    more = [("fsdp",)] if any(parts) else [("tensor", "fsdp"), ("fsdp",)]
    open_to = [i for i, axis in enumerate(axes) if parts[i] or rules[axis] == "fsdp"]
    for i in sorted(open_to, key=lambda i: not parts[i]):
        for names in more:
            if shape[i] % math.prod(mesh.shape[name] for name in (*parts[i], *names)) == 0:
                parts[i] = (*parts[i], *names)
                return
    if open_to and not small:
        raise _does_not_divide(axes, shape, mesh, "fsdp", open_to[-1])


def _does_not_divide(axes, shape, mesh: Mesh, name: str, at: int) -> ValueError:
    return ValueError(
        f"{axes[at]}={shape[at]} is not divisible by mesh axis {name!r} of {mesh.shape[name]} "
        f"devices; choose mesh.{name} to divide {shape[at]}, or map {axes[at]!r} to None in "
        f"sharding.RULES"
    )


def param_shardings(
    specs: Mapping[str, Any], mesh: Mesh, layout: Layout = "train", rules: Rules = RULES
) -> dict:
    """NamedSharding of every row of a Spec table, in the structure of the parameters.

    specs   nested dict whose leaves have `shape` and `axes` (model.specs.Spec)

    Raises ValueError naming parameter, dimension and mesh axis where a dimension does not
    divide.
    """

    def row(name: str, spec: Any) -> NamedSharding:
        try:
            found = spec_for(spec.axes, spec.shape, mesh, layout, rules)
        except ValueError as wrong:
            raise ValueError(f"parameter {name} {tuple(spec.shape)}: {wrong}") from None
        return NamedSharding(mesh, found)

    return _walk(specs, "", row)


def batch_sharding(mesh: Mesh) -> NamedSharding:
    """Leading dimension over `fsdp`, everything else whole: how pairs come and are answered."""
    return NamedSharding(mesh, PartitionSpec("fsdp"))


def cache_sharding(
    mesh: Mesh, kv_heads: int, *, stacked: bool = True, heads_first: bool = False
) -> NamedSharding:
    """Of keys and values f[L, B, _, K, ...]: over `fsdp`, and over `tensor` if that divides K.

    stacked      whether there is a dimension L
    heads_first  f[L, B, K, _, ...], as `model.rows` has them
    """
    heads = "tensor" if kv_heads % mesh.shape["tensor"] == 0 else None
    inner = (heads,) if heads_first else (None, heads)
    return NamedSharding(mesh, PartitionSpec(*[None] * stacked, "fsdp", *inner))


def spread(tree: Any, mesh: Mesh) -> Any:
    """Inside jit: leading dimensions over both axes, as the update wants its pairs."""
    where = NamedSharding(mesh, PartitionSpec(MESH_AXES))
    return jax.tree.map(lambda a: jax.lax.with_sharding_constraint(a, where), tree)


def replicated(mesh: Mesh) -> NamedSharding:
    """Every device holds all of it."""
    return NamedSharding(mesh, PartitionSpec())


def shard_batch(rows: Any, mesh: Mesh) -> Any:
    """Global arrays over `fsdp` from the rows this process loaded (see `process_shares`).

    rows   pytree of numpy arrays [B_local, ...]   ->   jax arrays [B, ...]
    """
    shares, count = process_shares(mesh)
    for path, leaf in jax.tree_util.tree_leaves_with_path(rows):
        if len(leaf) % len(shares):
            raise ValueError(
                f"batch leaf {jax.tree_util.keystr(path)} has {len(leaf)} rows in shares {shares} "
                f"of mesh.fsdp={count}; it must hold as many rows in each"
            )
    sharding = batch_sharding(mesh)

    def place(leaf):
        each = len(leaf) // len(shares)

        def share(index):
            first = each * shares.index((index[0].start or 0) // each)
            return leaf[first : first + each]

        return jax.make_array_from_callback((each * count, *leaf.shape[1:]), sharding, share)

    # This is the explicit transfer: make_array_from_callback does not count as one by itself.
    with jax.transfer_guard_host_to_device("allow"):
        return jax.tree.map(place, rows)


def shard_global(tree: Any, mesh: Mesh) -> Any:
    """Global arrays over `fsdp` from arrays [B, ...] that every process holds in full."""
    return place_global(tree, batch_sharding(mesh))


def replicate(tree: Any, mesh: Mesh) -> Any:
    """Replicated global arrays from arrays that every process holds, equal, in full."""
    return place_global(tree, replicated(mesh))


def process_shares(mesh: Mesh) -> tuple[tuple[int, ...], int]:
    """(shares, count): of `count` equal shares of a batch this process loads these, ascending.

    A share is an fsdp row of the mesh. Processes that hold devices of one row (the tensor axis
    spans them) load the same share. On a TPU the shares of a process need not be neighbours.
    """
    here = jax.process_index()
    rows = enumerate(mesh.devices)
    held = tuple(i for i, row in rows if any(d.process_index == here for d in row))
    return held, mesh.shape["fsdp"]


def place_global(tree: Any, where: Any) -> Any:
    """Global arrays from arrays that every process holds in full.

    where  a sharding for all of them, or a tree of shardings
    """

    def place(leaf, at):
        leaf = np.asarray(leaf)
        return jax.make_array_from_callback(leaf.shape, at, lambda index: leaf[index])

    if isinstance(where, NamedSharding):
        where = jax.tree.map(lambda _: where, tree)
    # This is the explicit transfer: make_array_from_callback does not count as one by itself.
    with jax.transfer_guard_host_to_device("allow"):
        return jax.tree.map(place, tree, where)


def _walk(tree: Any, path: str, leaf) -> Any:
    if isinstance(tree, Mapping):
        return {
            key: _walk(value, f"{path}/{key}" if path else key, leaf) for key, value in tree.items()
        }
    return leaf(path, tree)
