"""Hugging Face checkpoint folders in, strictly, and (`save_hf`) out.

Every tensor is accounted for by a row of the Spec table: no key is skipped, none is guessed.
"""

import functools
from collections.abc import Callable, Iterator
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import NamedSharding, PartitionSpec, Sharding

from dig_jax.common.json_files import read_json
from dig_jax.hf import files, settings
from dig_jax.hf.checksums import check_files
from dig_jax.hf.export import SHARD_BYTES as SHARD_BYTES
from dig_jax.hf.export import Progress
from dig_jax.hf.export import save_hf as save_hf
from dig_jax.hf.files import HEAD, open_folder
from dig_jax.hf.foreign import refuse_adapter
from dig_jax.model.config import ModelConfig
from dig_jax.model.params import Params
from dig_jax.model.specs import is_spec, model_specs, named_specs

TILE = 32  # rows and columns copied together: both sides of a transposition stay in cache


def read_model_config(folder: str | Path) -> ModelConfig:
    """Sizes and special ids of a Qwen3-VL checkpoint folder, written by 4.57 or 5.x.

    folder   a path or a gs:// address

    Raises FileNotFoundError, and ValueError for settings that are not computed here and for a
    LoRA adapter, alone or beside the weights.
    """
    folder = open_folder(folder)
    where = folder / "config.json"
    refuse_adapter(folder)
    check_files(folder, weights=False)
    if not where.is_file():
        raise FileNotFoundError(f"{folder} has no config.json, so it is no checkpoint folder")
    return settings.from_json(
        read_json(where),
        read_json(folder / "generation_config.json", missing={}),
        has_head=lambda: HEAD in files.find_weights(folder),
        where=str(where),
    )


def load_params(
    folder: str | Path,
    config: ModelConfig,
    *,
    shardings: dict | None = None,
    dtype: str = "float32",
    cut: bool = False,
    progress: Progress | None = None,
) -> Params:
    """Parameters of a checkpoint folder in our layout, whatever the file's dtype.

    folder     a path or a gs:// address
    shardings  a jax Sharding per parameter; None leaves all of them on the default device
    dtype      of the arrays; training wants float32
    cut        `config` has only the first blocks of the folder's model: no others are read
    progress   wraps the list of tensors to show how far it is

    All keys and shapes are checked before anything is placed. An unknown, missing, duplicate or
    misshaped key raises, as does a tied checkpoint whose head differs from its embedding. The
    host holds one tensor of the file and one device's part of it; casts are the devices' work.
    """
    made = each_param(folder, config, shardings=shardings, dtype=dtype, cut=cut, progress=progress)
    tree = jax.tree.structure(model_specs(config), is_leaf=is_spec)
    return jax.tree.unflatten(tree, [array for _, array in made])


def each_param(
    folder: str | Path,
    config: ModelConfig,
    *,
    shardings: dict | None = None,
    dtype: str = "float32",
    cut: bool = False,
    progress: Progress | None = None,
) -> Iterator[tuple[str, jax.Array]]:
    """("blocks/wq", array) of every parameter in the table's order; `load_params`, one by one."""
    folder, specs = open_folder(folder), model_specs(config)
    check_files(folder, weights=True)
    found = files.find_weights(folder)
    in_files = model_specs(read_model_config(folder)) if cut else specs
    files.check_weights(folder, found, in_files, tied=config.text.tied)
    rows = list(named_specs(specs))
    tree = jax.tree.structure(specs, is_leaf=is_spec)
    targets = [None] * len(rows) if shardings is None else tree.flatten_up_to(shardings)
    steps = [
        (name, spec, target, layer, key)
        for (name, spec), target in zip(rows, targets, strict=True)
        for layer, key in enumerate(spec.keys)
    ]
    with files.open_weights(found) as read:
        made = None
        for name, spec, target, layer, key in progress(steps, "weights") if progress else steps:
            where = _layer_sharding(target) if spec.stack else target
            part = _place(spec.from_hf(read(key)), where)
            if spec.stack:
                made = _put_layer(made, part, layer, spec.shape, dtype, target)
            else:
                made = _cast(dtype, target)(part)
            if layer + 1 == len(spec.keys):
                yield name, made
                made = part = None  # what the caller drops is dropped


def _place(view: np.ndarray, sharding: Sharding | None) -> jax.Array:
    """A device array from a view of a tensor; each shard is laid out and sent by itself.

    Waiting keeps the host at one tensor and one shard: transfers would else queue up behind it.
    """
    if sharding is None:
        return jnp.asarray(_contiguous(view)).block_until_ready()
    shards, last, part = [], None, None
    for device, index in sharding.addressable_devices_indices_map(view.shape).items():
        if index != last:  # a replica is sent what its neighbour got
            last, part = index, _contiguous(view[index])
        shards.append(jax.device_put(part, device).block_until_ready())
    return jax.make_array_from_single_device_arrays(view.shape, sharding, shards)


def _contiguous(view: np.ndarray) -> np.ndarray:
    """The view in C order, itself if it is so already; in tiles, 3x faster for a transposition."""
    if view.flags.c_contiguous:
        return view
    out = np.empty(view.shape, view.dtype)
    for first in range(0, view.shape[0], TILE):
        for last in range(0, view.shape[-1], TILE):
            tile = (slice(first, first + TILE), ..., slice(last, last + TILE))
            out[tile] = view[tile]
    return out


def _put_layer(
    stack: jax.Array | None,
    part: jax.Array,
    layer: int,
    shape: tuple[int, ...],
    dtype: str,
    sharding: Sharding | None,
) -> jax.Array:
    """The stack with one layer written in its own memory; a first one is made on the devices."""
    zeros, write = _stack_functions(shape, dtype, sharding)
    stack = zeros() if stack is None else stack
    return write(stack, part, np.int32(layer)).block_until_ready()


@functools.lru_cache(maxsize=256)
def _stack_functions(shape: tuple[int, ...], dtype: str, sharding: Sharding | None) -> tuple:
    def put(stack, part, layer):
        part = part.astype(stack.dtype)
        return jax.lax.dynamic_update_index_in_dim(stack, part, layer, 0)

    zeros = jax.jit(lambda: jnp.zeros(shape, dtype), out_shardings=sharding)
    # donated: without that every layer would copy the whole stack
    return zeros, jax.jit(put, donate_argnums=0, out_shardings=sharding)


@functools.lru_cache(maxsize=256)
def _cast(dtype: str, sharding: Sharding | None) -> Callable[[jax.Array], jax.Array]:
    cast = jax.jit(lambda array: array.astype(dtype), out_shardings=sharding)
    return lambda array: array if array.dtype == dtype else cast(array).block_until_ready()


def _layer_sharding(sharding: Sharding | None) -> Sharding | None:
    """Where one layer of a stack goes: the same devices without the leading axis."""
    if not isinstance(sharding, NamedSharding):
        return sharding
    return NamedSharding(sharding.mesh, PartitionSpec(*sharding.spec[1:]))
