"""Hugging Face checkpoint folders in and out, strictly.

Every tensor is accounted for by a row of the Spec table: no key is skipped, none is guessed.
"""

import json
import shutil
from collections.abc import Callable
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
from safetensors import safe_open
from safetensors.numpy import save_file

from dig_jax.model import hf_config
from dig_jax.model.params import ModelConfig, Params, Spec, is_spec, model_specs, named_specs

SINGLE, INDEX, HEAD = "model.safetensors", "model.safetensors.index.json", "lm_head.weight"
SHARD_BYTES = 5 * 10**9  # HF's habit: larger checkpoints are split
_NOT_COPIED = (".safetensors", ".index.json", ".bin", ".pt", ".pth", ".gguf")

Found = dict[str, tuple[Path, str]]  # HF key -> (file, key as spelled in it)


def read_model_config(folder: str | Path) -> ModelConfig:
    """Sizes and special ids of a Qwen3-VL checkpoint folder, written by 4.57 or 5.x."""
    folder = Path(folder)
    if not folder.is_dir():
        raise FileNotFoundError(f"checkpoint folder {folder} does not exist; download or make it")
    where = folder / "config.json"
    if not where.is_file():
        raise FileNotFoundError(f"{folder} has no config.json, so it is no checkpoint folder")
    return hf_config.from_json(
        _read_json(where),
        _read_json(folder / "generation_config.json", missing={}),
        has_head=lambda: HEAD in _find_keys(folder),
        where=str(where),
    )


def load_params(
    folder: str | Path,
    config: ModelConfig,
    *,
    place: Callable[[str, np.ndarray], jax.Array] | None = None,
) -> Params:
    """Parameters of a checkpoint folder in our layout, float32 whatever the file's dtype.

    place  (path in the table such as "blocks/wq", host array) -> array; lets the caller shard
           each one as it arrives, so that the host never holds the whole model

    All keys and shapes are checked before anything is placed. An unknown, missing, duplicate or
    misshaped key raises, as does a tied checkpoint whose head differs from its embedding.
    """
    folder, specs = Path(folder), model_specs(config)
    place = place or (lambda _, array: jnp.asarray(array))
    found = _find_keys(folder)
    _check_keys(folder, found, specs, tied=config.text.tied)
    leaves = []
    for name, spec in named_specs(specs):
        leaf = np.empty(spec.shape, np.float32)
        for key, part in zip(spec.keys, leaf if spec.stack else [leaf], strict=True):
            part[...] = spec.from_hf(_read(found, key).astype(np.float32))
        leaves.append(place(name, leaf))
    return jax.tree.unflatten(jax.tree.structure(specs, is_leaf=is_spec), leaves)


def save_hf(
    folder: str | Path,
    params: Params,
    config: ModelConfig,
    *,
    source_folder: str | Path | None,
    dtype: str = "float32",
    shard_bytes: int = SHARD_BYTES,
) -> None:
    """Write a checkpoint folder that `transformers` opens.

    source_folder  tokenizer, template and processor files are copied from here unchanged, and
                   settings of its config.json that `config` lacks are kept; None writes weights
                   and configuration only
    dtype          of the written tensors: float32, bfloat16 or float16

    The folder appears only when it is complete. A checkpoint already there is replaced;
    a folder that holds anything else is refused.
    """
    folder = Path(folder).absolute()
    if dtype not in ("float32", "bfloat16", "float16"):
        raise ValueError(f"export dtype={dtype!r}; use float32, bfloat16 or float16")
    if folder.exists() and any(folder.iterdir()) and not (folder / "config.json").is_file():
        raise FileExistsError(f"{folder} holds something other than a checkpoint; name another")
    folder.parent.mkdir(parents=True, exist_ok=True)
    partial = folder.parent / f".{folder.name}.partial"
    if partial.exists():  # left by a killed export
        shutil.rmtree(partial)
    partial.mkdir()
    base = {}
    if source_folder is not None:
        base = _copy_companions(Path(source_folder), partial)
    _write_json(partial / "config.json", hf_config.to_json(config, dtype, base=base))
    if not (partial / "generation_config.json").is_file():
        stop = {"eos_token_id": list(config.eos_tokens), "pad_token_id": config.pad_token}
        _write_json(partial / "generation_config.json", stop)
    _write_weights(partial, params, config, np.dtype(jnp.dtype(dtype)), shard_bytes)
    _swap_in(partial, folder)


def _find_keys(folder: Path) -> Found:
    """Where every tensor is. Keys may lack the leading `model.`."""
    files = [folder / SINGLE]
    if (folder / INDEX).is_file():
        if files[0].is_file():
            raise ValueError(f"{folder} has both {SINGLE} and {INDEX}; remove the stale one")
        names = _read_json(folder / INDEX)["weight_map"].values()
        files = [folder / name for name in sorted(set(names))]
    found: Found = {}
    for file in files:
        if not file.is_file():
            raise FileNotFoundError(f"{folder} has no {file.name}; is the checkpoint complete?")
        with safe_open(file, framework="np") as tensors:
            spellings = list(tensors.keys())
        for spelled in spellings:
            bare = spelled.startswith(("visual.", "language_model."))
            key = f"model.{spelled}" if bare else spelled
            if key in found:
                raise ValueError(
                    f"duplicate key {key} in {folder}: in {found[key][0].name} and {file.name}"
                )
            found[key] = (file, spelled)
    return found


def _check_keys(folder: Path, found: Found, specs: dict, *, tied: bool) -> None:
    wanted = {key: spec.hf_shape for _, spec in named_specs(specs) for key in spec.keys}
    allowed = {**wanted, HEAD: specs["embed"].hf_shape}  # some writers store a tied head again
    _refuse("missing", [key for key in wanted if key not in found], folder)
    _refuse("unknown", [key for key in found if key not in allowed], folder)
    for key, (file, spelled) in found.items():
        with safe_open(file, framework="np") as tensors:
            shape = tuple(tensors.get_slice(spelled).get_shape())
        if shape != allowed[key]:
            raise ValueError(
                f"key {key} in {file} has shape {list(shape)}; config.json wants "
                f"{list(allowed[key])}"
            )
    embed = specs["embed"].hf
    if tied and HEAD in found and not np.array_equal(_read(found, HEAD), _read(found, embed)):
        raise ValueError(
            f"{folder} is tied, but its {HEAD} differs from {embed}; set tie_word_embeddings to "
            f"false in config.json, or drop the head"
        )


def _refuse(what: str, keys: list[str], folder: Path) -> None:
    if keys:
        more = f" and {len(keys) - 1} more" if len(keys) > 1 else ""
        raise ValueError(f"{what} key {keys[0]}{more} in {folder}; config.json asks for others")


def _read(found: Found, key: str) -> np.ndarray:
    file, spelled = found[key]
    with safe_open(file, framework="np") as tensors:
        return tensors.get_tensor(spelled)


def _write_weights(
    folder: Path, params: Params, config: ModelConfig, dtype: np.dtype, shard_bytes: int
) -> None:
    specs = model_specs(config)
    if jax.tree.structure(specs, is_leaf=is_spec) != jax.tree.structure(params):
        raise ValueError("params and config differ in structure; was another model's config given?")
    rows = []  # (key, spec, leaf, index in the stack or ())
    for (name, spec), leaf in zip(named_specs(specs), jax.tree.leaves(params), strict=True):
        if leaf.shape != spec.shape:
            raise ValueError(f"params {name} has shape {leaf.shape}; config wants {spec.shape}")
        rows += [(key, spec, leaf, n if spec.stack else ()) for n, key in enumerate(spec.keys)]
    shards, sizes = _pack(rows, dtype.itemsize, shard_bytes), 0
    weight_map = {}
    for n, shard in enumerate(shards):
        name = SINGLE if len(shards) == 1 else f"model-{n + 1:05d}-of-{len(shards):05d}.safetensors"
        tensors = {
            key: spec.to_hf(np.asarray(leaf[index])).astype(dtype)
            for key, spec, leaf, index in shard
        }
        save_file(tensors, folder / name, metadata={"format": "pt"})
        sizes += sum(tensor.nbytes for tensor in tensors.values())
        weight_map |= dict.fromkeys(tensors, name)
    if len(shards) > 1:
        index = {"metadata": {"total_size": sizes}, "weight_map": weight_map}
        _write_json(folder / INDEX, index)


def _pack(rows: list, itemsize: int, shard_bytes: int) -> list[list]:
    """Consecutive rows, cut before a file would pass `shard_bytes`."""
    shards, room = [[]], shard_bytes
    for row in rows:
        spec: Spec = row[1]
        size = itemsize * int(np.prod(spec.hf_shape))
        if shards[-1] and size > room:
            shards.append([])
            room = shard_bytes
        shards[-1].append(row)
        room -= size
    return shards


def _copy_companions(source: Path, target: Path) -> dict:
    """Copy all but weights and config.json; return config.json, empty if there is none."""
    if not source.is_dir():
        raise FileNotFoundError(f"source folder {source} does not exist; nothing to copy from")
    for file in sorted(source.iterdir()):
        weights = file.name.endswith(_NOT_COPIED)
        if file.is_file() and not weights and file.name[0] != "." and file.name != "config.json":
            shutil.copyfile(file, target / file.name)
    return _read_json(source / "config.json", missing={})


def _swap_in(partial: Path, folder: Path) -> None:
    """Put `partial` in the place of `folder`; at every moment one of them is complete."""
    old = folder.parent / f".{folder.name}.old"
    if folder.exists():
        if old.exists():
            shutil.rmtree(old)
        folder.rename(old)
    partial.rename(folder)
    if old.exists():
        shutil.rmtree(old)


def _read_json(path: Path, *, missing: dict | None = None) -> dict:
    if missing is not None and not path.is_file():
        return missing
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except json.JSONDecodeError as error:
        raise ValueError(f"{path} is not valid JSON: {error}") from error


def _write_json(path: Path, value: dict) -> None:
    path.write_text(json.dumps(value, indent=2) + "\n", encoding="utf-8")
