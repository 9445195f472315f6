"""Trees of arrays by Orbax: read straight to their places, proved; parameters without a run."""

import contextlib
import json
from pathlib import Path
from typing import Any

import jax
import numpy as np
import orbax.checkpoint as ocp
from etils import epath

from dig_jax.common.addresses import check_plain, folder_at, is_remote
from dig_jax.common.files import telling_room, write_text
from dig_jax.run import digest

PARAMS = "params"  # in a folder made by `convert import`: parameters without a run
DIGEST = "digest.json"  # beside them


def prove(folder: epath.Path, written: Any) -> None:
    """Raises RuntimeError unless the smallest array by name comes back as it was written."""
    leaves = jax.tree_util.tree_leaves_with_path(written)
    named = [(path, leaf) for path, leaf in leaves if all(map(_key, path)) and leaf.size]
    path, leaf = min(named, key=lambda one: one[1].nbytes)
    target = abstract(leaf)
    for part in reversed(path):
        target = {_key(part): target}
    try:
        (back,) = jax.tree.leaves(_read(folder, target))
        same = all(
            np.asarray(one.data).tobytes() == np.asarray(other.data).tobytes()
            for one, other in zip(back.addressable_shards, leaf.addressable_shards, strict=True)
        )
    except Exception as error:  # Orbax and TensorStore raise whatever they met
        raise RuntimeError(
            f"{folder} was written and cannot be opened ({type(error).__name__}: {error}); older "
            f"checkpoints are kept; move that folder away, and the same command continues"
        ) from error
    if not same:
        name = jax.tree_util.keystr(path, simple=True, separator=".")
        raise RuntimeError(
            f"{folder}: {name} comes back with other values than were written; older checkpoints "
            f"are kept; is the disk sound?"
        )


def _key(part: Any) -> str:
    """The name of a step of a path through dicts and structs; "" of one through a sequence."""
    return getattr(part, "name", "") or (part.key if hasattr(part, "key") else "")


def save_params(folder: str | Path, params: Any) -> None:
    """Writes parameters alone, without a run: <folder>/params, which must not be there.

    Beside them their digest; a folder without one, of an earlier version, is not compared. On
    return it has been opened.
    """
    check_plain("folder", folder)
    where, saved = folder_at(folder) / PARAMS, {PARAMS: params}
    room = telling_room(Path(where)) if not is_remote(folder) else contextlib.nullcontext()
    with room, jax.transfer_guard("allow"), ocp.PyTreeCheckpointer() as writer:
        writer.save(where, saved)
        told = digest.digest_of(saved)
    prove(where, saved)
    if jax.process_index() == 0:
        write_anywhere(folder_at(folder) / DIGEST, json.dumps(told) + "\n")


def write_anywhere(path: epath.Path, text: str) -> None:
    """An object of a bucket is there completely or not at all without any help."""
    path.write_text(text) if is_remote(path) else write_text(path, text)


def has_params(folder: str | Path) -> bool:
    """Whether `save_params` wrote to this folder, local or gs://."""
    return (epath.Path(folder) / PARAMS).is_dir()


def load_params(folder: str | Path, like: Any, *, cut: bool = False, remedy: str = "") -> Any:
    """What `save_params` wrote, placed and cast as `like` says; all of it or part of the tree.

    cut     read the first entries of arrays that are larger than `like` says
    remedy  of a damaged folder, for the message; "": that of an import

    Raises ValueError naming the folder when it is damaged or is another model's.
    """
    where, known = folder_at(folder) / PARAMS, folder_at(folder) / DIGEST
    try:
        params = read_params(where, like, cut=cut)
        if known.is_file() and not cut:
            digest.check({PARAMS: params}, json.loads(known.read_text()))
    except Exception as error:  # Orbax and TensorStore raise whatever they met
        reason = f"{type(error).__name__}: {error}"[:300]
        remedy = remedy or f"delete {where.parent}: then the same import makes it again"
        raise ValueError(f"{where} cannot be restored; {remedy}. {reason}") from error
    return params


def read_params(folder: epath.Path, like: Any, *, cut: bool = False) -> Any:
    """The part of a saved {"params": tree} that `like` names, from disk straight to its places."""
    return _read(folder, {"params": jax.tree.map(abstract, like)}, cut=cut)["params"]


def _read(folder: epath.Path, target: Any, *, cut: bool = False) -> Any:
    """The part of a saved tree that `target`, of `jax.ShapeDtypeStruct`, names."""
    places = jax.tree.map(
        lambda leaf: ocp.ArrayRestoreArgs(
            sharding=leaf.sharding, dtype=leaf.dtype, global_shape=leaf.shape, strict=not cut
        ),
        target,
    )
    args = ocp.args.PyTreeRestore(target, restore_args=places, partial_restore=True)
    with jax.transfer_guard("allow"), ocp.PyTreeCheckpointer() as reader:
        return reader.restore(folder, args=args)


def abstract(leaf: Any) -> jax.ShapeDtypeStruct:
    return jax.ShapeDtypeStruct(leaf.shape, leaf.dtype, sharding=leaf.sharding)
