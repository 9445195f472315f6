"""Checkpoints: a state's arrays, the step, and the configuration that made them.

    <root>/checkpoints/<step>/state     arrays, by Orbax
    <root>/checkpoints/<step>/config    the resolved configuration, JSON
    <root>/checkpoints/<step>/digest    of every array (`digest`), JSON
    <root>/checkpoints/<step>/record    which run it is of, what that depends on, checksums of the
                                        other two texts; a sealed JSON object

The root is checkpoint.root, a folder or gs://BUCKET/FOLDER, or else the run folder. A checkpoint
is there only when it is whole (Orbax renames a temporary folder; in a bucket, where that would be
a copy, it writes commit_success.txt last), and `save` returns only then. `restore` places arrays
as the target says, so the mesh may change.
"""

import json
import shutil
from pathlib import Path
from typing import Any

import jax
import orbax.checkpoint as ocp
from etils import epath

from dig_jax.common import locks, typed
from dig_jax.common.addresses import check_plain, folder_at, is_remote, reaching
from dig_jax.common.files import NoRoom, is_no_room, read_json, read_sealed
from dig_jax.common.sealed import checksum, sealed
from dig_jax.config import Config, from_json
from dig_jax.mesh import distributed
from dig_jax.run import digest
from dig_jax.run.arrays import PARAMS, abstract, prove, read_params
from dig_jax.run.manifest import RUN, number_of, read_settings, record_of

CHECKPOINTS = "checkpoints"  # below the root
TEXTS = "texts"  # field of a record: item -> checksum of its JSON


def root_of(cfg: Config) -> str:
    """Where a run keeps its checkpoints and best weights: checkpoint.root, or its folder."""
    return cfg.checkpoint.root or cfg.run_dir


def field_of_root(cfg: Config) -> str:
    """The setting that names `root_of`."""
    return "checkpoint.root" if cfg.checkpoint.root else "run_dir"


def find_root(run: str | Path) -> str:
    """The root of a run that is named by its folder, or by the root itself.

    A run folder without checkpoints tells in its config.json where they are.
    """
    told = None if is_remote(run) else told_root(run)
    return told if told and not saved_steps(run) else str(run)


def save(cfg: Config, step: int, state: Any) -> None:
    """Writes <root>/checkpoints/<step>, then deletes all but the checkpoint.keep newest.

    step    steps done, so that a resumed run begins with it
    state   pytree of arrays, sharded or not

    Every process calls it. On return the checkpoint is written and has been opened: the older
    ones go after that. A step already saved is kept as it is. Raises RuntimeError where nothing
    was written or it cannot be opened, NoRoom where the disk is full.
    """
    root = root_of(cfg)
    check_plain(field_of_root(cfg), root)
    locks.check_ours(f"{root.rstrip('/')}/{locks.NAME}")
    with jax.transfer_guard("allow"), _open(root) as manager:
        if distributed.first_says(step in manager.all_steps()):
            return
        need = sum(leaf.nbytes for leaf in jax.tree.leaves(state))
        full = jax.process_index() == 0 and _free(root) < need
        if distributed.first_says(full):
            raise NoRoom(_no_room(root, step, need))
        texts = {"config": typed.to_plain(cfg), "digest": digest.digest_of(state)}
        told = {} if jax.process_index() else record_of(cfg)
        told[TEXTS] = {name: checksum(value) for name, value in texts.items()}
        texts["record"] = sealed(told)
        items = ocp.args.Composite(
            state=ocp.args.StandardSave(state),
            **{name: ocp.args.JsonSave(value) for name, value in texts.items()},
        )
        try:
            written = manager.save(step, args=items)
            manager.wait_until_finished()
        except Exception as error:  # Orbax and TensorStore raise whatever they met
            if is_no_room(error):
                raise NoRoom(_no_room(root, step, need)) from None
            raise
        if not written:
            raise RuntimeError(
                f"checkpoint {step} was not written: {folder_of(root)} holds "
                f"{sorted(manager.all_steps())}; does another run write there?"
            )
        prove(folder_of(root) / str(step) / "state", state)
        for old in sorted(manager.all_steps())[: -cfg.checkpoint.keep]:
            manager.delete(old)


def _free(root: str) -> float:
    """Bytes that the root's disk has left; without end in a bucket."""
    if is_remote(root):
        return float("inf")
    folder = Path(root).absolute()
    return shutil.disk_usage(next(p for p in (folder, *folder.parents) if p.is_dir())).free


def _no_room(root: str, step: int, need: int) -> str:
    done = latest_step(root)
    then = f"continues after step {done}" if done else "begins again, for nothing is saved yet"
    return (
        f"{folder_of(root)}: checkpoint {step} takes {need / 1e6:,.1f} MB and the disk has "
        f"{_free(root) / 1e6:,.1f} MB left; free some: the same command {then}"
    )


def restore(cfg: Config, like: Any, step: int | None = None) -> tuple[Any, int]:
    """(state, step) of a checkpoint, the newest unless `step` is given.

    like   pytree of `jax.ShapeDtypeStruct` or arrays with the wanted shapes and shardings

    Raises FileNotFoundError when there is none, and ValueError naming the arrays that do not fit
    `like`, or the checkpoint that is damaged: that cannot be read, or whose arrays are not those
    that were saved. Whether `cfg` may go on from it is asked before (`resume.check_start`).
    """
    root = root_of(cfg)
    step = _existing(root, step)
    target = jax.tree.map(abstract, like)
    items = ocp.args.Composite(state=ocp.args.StandardRestore(target))
    with jax.transfer_guard("allow"), _open(root) as manager:
        try:
            saved = _arrays(manager.item_metadata(step).state)
            misfits = _misfits(saved, _arrays(target)) if saved else ""
            state = None if misfits else manager.restore(step, args=items).state
            digest.check(state, _saved_digest(root, step))
        except Exception as error:  # Orbax and TensorStore raise whatever they met
            raise ValueError(_damaged(root, step, error)) from error
    if misfits:
        folder = folder_of(root) / str(step)
        raise ValueError(f"{folder} holds another kind of state:\n{misfits}")
    return state, step


def restore_params(cfg: Config, like: Any, step: int | None = None) -> Any:
    """The `params` of a checkpoint alone: moments and reference are not read.

    like   the tree of parameters as `jax.ShapeDtypeStruct`, with the wanted shardings; a part of
           the tree reads that part
    """
    root = root_of(cfg)
    step = _existing(root, step)
    try:
        params = read_params(folder_of(root) / str(step) / "state", like)
        digest.check({PARAMS: params}, _saved_digest(root, step))
    except Exception as error:  # Orbax and TensorStore raise whatever they met
        raise ValueError(_damaged(root, step, error)) from error
    return params


def latest_step(root: str | Path) -> int | None:
    """The newest whole checkpoint's step, or None."""
    return max(saved_steps(root), default=None)


def saved_steps(root: str | Path) -> list[int]:
    """Steps of the whole checkpoints below a root, ascending; `root_of` and `find_root` name it.

    Raises ValueError where an address cannot be reached.
    """
    folder = folder_of(root)
    with reaching("checkpoint.root", root):
        paths = list(folder.iterdir()) if folder.is_dir() else []
        numbered = [path for path in paths if path.name.isdigit()]
        return sorted(int(p.name) for p in numbered if ocp.utils.is_checkpoint_finalized(p))


def saved_config(root: str | Path, step: int | None = None) -> Config:
    """The configuration stored with a checkpoint, the newest unless `step` is given."""
    return from_json(json.dumps(saved_settings(root, _existing(root, step))))


def saved_settings(root: str | Path, step: int) -> dict[str, Any]:
    """The configuration of a checkpoint as it was written, fields of that day."""
    value = _saved_text(root, step, "config", _read_record(root, step))
    if value is None:
        folder = folder_of(root) / str(step)
        raise ValueError(
            f"{folder / 'config' / 'metadata'} is missing: not a checkpoint of this program, or "
            f"damaged; {_back_from(root, step)}"
        )
    return value


def saved_record(root: str | Path, step: int) -> dict[str, Any]:
    """{"run", "depends"} of a checkpoint (`manifest.record_of`); {} of one that has none.

    Raises ValueError where it is damaged or does not belong to the other texts.
    """
    record = _read_record(root, step)
    for item in record.get(TEXTS, {}):
        _saved_text(root, step, item, record)
    return record


def _read_record(root: str | Path, step: int) -> dict[str, Any]:
    path = folder_of(root) / str(step) / "record" / "metadata"
    return read_sealed(path, _back_from(root, step), missing={})


def _saved_text(root: str | Path, step: int, item: str, record: dict[str, Any]) -> Any:
    """The JSON of an item, compared with its checksum in `record`; None where it is missing.

    Raises ValueError where it is not what was saved, or is missing from a record that knows it.
    """
    path = folder_of(root) / str(step) / item / "metadata"
    value = read_json(path, _back_from(root, step), missing={})
    wanted = record.get(TEXTS, {}).get(item)
    if wanted and checksum(value) != wanted:
        what = "is not what was saved with its record" if path.is_file() else "is missing"
        raise ValueError(f"{path} {what}; {_back_from(root, step)}")
    return value if path.is_file() else None


def run_number(cfg: Config, step: int | None = None) -> str | None:
    """The number of a run by its folder and a checkpoint, the newest unless `step` is given.

    Raises ValueError as `manifest.number_of`.
    """
    root = root_of(cfg)
    step = latest_step(root) if step is None else step
    saved = step in saved_steps(root) if step else False
    return number_of(cfg.run_dir, saved_record(root, step).get(RUN) if saved else None)


def _back_from(root: str | Path, step: int) -> str:
    others = [other for other in saved_steps(root) if other != step]
    folder = folder_of(root) / str(step)
    return f"move {folder} away to go back to an earlier checkpoint ({others or 'none is left'})"


def told_root(run_dir: str | Path) -> str:
    """checkpoint.root in the configuration that a run folder holds; "" where it tells none."""
    return read_settings(run_dir).get("checkpoint", {}).get("root", "")


def _open(root: str | Path) -> ocp.CheckpointManager:
    # it deletes nothing by itself: it would do so before what is new has been opened
    options = ocp.CheckpointManagerOptions(max_to_keep=None, enable_async_checkpointing=False)
    texts = {name: ocp.JsonCheckpointHandler() for name in ("config", "record", "digest")}
    handlers = {"state": ocp.StandardCheckpointHandler(), **texts}
    return ocp.CheckpointManager(folder_of(root), options=options, item_handlers=handlers)


def folder_of(root: str | Path) -> epath.Path:
    return folder_at(root) / CHECKPOINTS


def _existing(root: str | Path, step: int | None) -> int:
    found = saved_steps(root)
    if not found or (step is not None and step not in found):
        wanted = "checkpoint" if step is None else f"checkpoint {step}"
        raise FileNotFoundError(f"{folder_of(root)} has no {wanted}; it holds {found or 'none'}")
    return max(found) if step is None else step


def _saved_digest(root: str | Path, step: int) -> digest.Digest:
    """Of a checkpoint; empty where it is of a version that wrote none."""
    return _saved_text(root, step, "digest", _read_record(root, step)) or {}


def _damaged(root: str | Path, step: int, error: Exception) -> str:
    reason = f"{type(error).__name__}: {error}"[:300]
    return f"{folder_of(root) / str(step)} cannot be restored; {_back_from(root, step)}. {reason}"


def _arrays(tree: Any) -> dict[str, tuple[tuple[int, ...], str]]:
    """Dotted path -> (shape, dtype) of every array; optimiser placeholders are skipped."""
    leaves = jax.tree_util.tree_leaves_with_path(tree)
    found = {jax.tree_util.keystr(path, simple=True, separator="."): leaf for path, leaf in leaves}
    return {name: (tuple(a.shape), str(a.dtype)) for name, a in found.items() if _has_shape(a)}


def _has_shape(leaf: Any) -> bool:
    return getattr(leaf, "shape", None) is not None


def _misfits(saved: dict, wanted: dict) -> str:
    """One line per array that differs, at most ten."""
    differ = typed.differences(
        {name: str(kind) for name, kind in saved.items()},
        {name: str(kind) for name, kind in wanted.items()},
    )
    lines = [f"  {name}: saved {old}, wanted {new}" for name, (old, new) in differ.items()]
    return "\n".join(lines[:10])
