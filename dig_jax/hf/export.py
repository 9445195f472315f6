"""Parameters out to a Hugging Face checkpoint folder, one at a time, all files or none."""

import contextlib
import os
import shutil
from collections.abc import Callable, Iterable, Iterator, Mapping
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
from etils import epath
from safetensors.numpy import save_file

from dig_jax.common import locks
from dig_jax.common.files import swap_in, telling_room, write_json
from dig_jax.common.json_files import read_json
from dig_jax.hf import settings
from dig_jax.hf.checksums import CHECKSUMS, write_checksums
from dig_jax.hf.files import INDEX, SINGLE, companions
from dig_jax.hf.portable import portable_bytes
from dig_jax.model.config import ModelConfig
from dig_jax.model.params import Params
from dig_jax.model.specs import Spec, is_spec, model_specs, named_specs

SHARD_BYTES = 5 * 10**9  # HF's habit: larger checkpoints are split
DTYPES = ("float32", "bfloat16", "float16")
ReadParam = Callable[[str], np.ndarray]  # "blocks/wq" -> the whole array
Tensors = Iterator[tuple[str, np.ndarray]]  # HF key, HF tensor
Progress = Callable[[list, str], Iterable]  # (items, label) -> the items, shown as they pass


def save_hf(
    folder: str | Path,
    params: Params | ReadParam,
    config: ModelConfig,
    *,
    source_folder: str | Path | None,
    dtype: str = "float32",
    shard_bytes: int = SHARD_BYTES,
    files: Mapping[str, str] | None = None,
    progress: Progress | None = None,
) -> None:
    """Write a checkpoint folder that `transformers` opens, 4.57 and 5.x alike.

    params         the tree, or a function that reads one parameter: then the host holds one of
                   them and one shard
    source_folder  tokenizer, template and processor files are copied from here, unchanged but for
                   what only Transformers 5 would read (`portable`), and settings of its
                   config.json that `config` lacks are kept; None writes weights and
                   configuration only
    dtype          of the written tensors: float32, bfloat16 or float16
    files          name -> text of further files, instead of the source's of that name
    progress       wraps the list of parameters to show how far it is

    The folder appears only when all of it is on the disk. A checkpoint already there is
    replaced; a folder that holds anything else is refused.
    """
    folder, specs = Path(folder).absolute(), model_specs(config)
    if dtype not in DTYPES:
        raise ValueError(f"export dtype={dtype!r}; use float32, bfloat16 or float16")
    check_target(folder)
    read = params if callable(params) else _reader(params, specs)
    with new_folder(folder) as partial:
        base = {}
        if source_folder is not None:
            base = copy_companions(source_folder, partial)
        write_json(partial / "config.json", settings.to_json(config, dtype, base=base), indent=2)
        if not (partial / "generation_config.json").is_file():
            stop = {"eos_token_id": list(config.eos_tokens), "pad_token_id": config.pad_token}
            write_json(partial / "generation_config.json", stop, indent=2)
        for name, text in (files or {}).items():
            (partial / name).write_text(text, encoding="utf-8")
        tensors = _tensors(read, specs, np.dtype(jnp.dtype(dtype)), progress)
        _write_weights(partial, tensors, _pack(specs, jnp.dtype(dtype).itemsize, shard_bytes))


def check_target(folder: Path) -> None:
    """Raises FileExistsError where there is a file, or a folder of something else."""
    used = folder.exists() and (folder.is_file() or any(folder.iterdir()))
    # either is written by every export: the other may be what was lost
    ours = any((folder / name).is_file() for name in ("config.json", CHECKSUMS))
    if used and not ours:
        raise FileExistsError(
            f"{folder} holds something other than a checkpoint; name another --out"
        )


@contextlib.contextmanager
def new_folder(folder: Path) -> Iterator[Path]:
    """Yields a hidden folder; what is written there becomes `folder`.

    Whatever ends the process before, `folder` is not there, or still what it was: every file is
    on the disk before the one rename. Another process that writes there is named (`locks.Taken`).
    """
    folder = Path(folder).absolute()
    partial = folder.parent / f".{folder.name}.partial"
    with telling_room(folder), locks.owned("--out", folder.parent / f".{folder.name}.lock"):
        if partial.exists():  # left by a kill
            shutil.rmtree(partial)
        partial.mkdir()
        try:
            yield partial
        except BaseException:
            shutil.rmtree(partial)
            raise
        write_checksums(partial)
        for path in (*partial.rglob("*"), partial):
            _sync(path)
        swap_in(partial, folder)
        _sync(folder.parent)


def copy_companions(source: str | Path, target: Path) -> dict:
    """Copy all but weights and config.json; return config.json, empty if there is none.

    A tokenizer_config.json that only Transformers 5 can read is written as both can.
    """
    source = epath.Path(source)
    if not source.is_dir():
        raise FileNotFoundError(f"source folder {source} does not exist; nothing to copy from")
    for file in companions(source):
        if file.name != "config.json":
            (target / file.name).write_bytes(portable_bytes(file))
    return read_json(source / "config.json", missing={})


def _reader(params: Params, specs: dict) -> Callable[[str], jax.Array]:
    """Name -> leaf, once the tree is known to be the table's."""
    if jax.tree.structure(specs, is_leaf=is_spec) != jax.tree.structure(params):
        raise ValueError("params and config differ in structure; was another model's config given?")
    names = [name for name, _ in named_specs(specs)]
    leaves = dict(zip(names, jax.tree.leaves(params), strict=True))
    for name, spec in named_specs(specs):
        _check_shape(name, spec, leaves[name])
    return leaves.__getitem__


def _check_shape(name: str, spec: Spec, leaf) -> None:
    if leaf.shape != spec.shape:
        raise ValueError(f"params {name} has shape {leaf.shape}; config wants {spec.shape}")


def _write_weights(folder: Path, tensors: Tensors, shards: list[list[str]]) -> None:
    weight_map, size, count = {}, 0, 0
    for n, keys in enumerate(shards):
        name = SINGLE if len(shards) == 1 else f"model-{n + 1:05d}-of-{len(shards):05d}.safetensors"
        shard = dict(next(tensors) for _ in keys)
        assert list(shard) == keys, name
        save_file(shard, folder / name, metadata={"format": "pt"})
        shutil.copymode(folder / "config.json", folder / name)  # it comes readable by us alone
        size += sum(tensor.nbytes for tensor in shard.values())
        count += sum(tensor.size for tensor in shard.values())
        weight_map |= dict.fromkeys(keys, name)
        del shard  # before the next one is filled
    if len(shards) > 1:
        metadata = {"total_size": size, "total_parameters": count}
        write_json(folder / INDEX, {"metadata": metadata, "weight_map": weight_map}, indent=2)


def _tensors(read: ReadParam, specs: dict, dtype: np.dtype, progress: Progress | None) -> Tensors:
    """(HF key, HF tensor) of every row in order; one parameter is held at a time."""
    rows = list(named_specs(specs))
    for name, spec in progress(rows, "parameters") if progress else rows:
        leaf = read(name)
        _check_shape(name, spec, leaf)
        for n, key in enumerate(spec.keys):
            array = np.asarray(leaf[n] if spec.stack else leaf)
            yield key, spec.to_hf(array).astype(dtype, copy=False)
        del leaf  # before the next one is read


def _pack(specs: dict, itemsize: int, shard_bytes: int) -> list[list[str]]:
    """Consecutive keys, cut before a file would pass `shard_bytes`."""
    shards, room = [[]], shard_bytes
    for _, spec in named_specs(specs):
        size = itemsize * int(np.prod(spec.hf_shape))
        for key in spec.keys:
            if shards[-1] and size > room:
                shards.append([])
                room = shard_bytes
            shards[-1].append(key)
            room -= size
    return shards


def _sync(path: Path) -> None:
    """What was written to a file or folder survives a power cut."""
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)
