"""Whether a run may start or go on in its folder, asked before anything is compiled."""

import contextlib
import json
from collections.abc import Iterator, Sequence

import jax

from dig_jax.common import locks, typed
from dig_jax.common.addresses import check_plain, folder_at, is_remote, try_out
from dig_jax.config import Config, Stage, config_hash
from dig_jax.mesh import distributed
from dig_jax.run import checkpoint

# Fields a resumed run may change: none of them bears on the numbers of a step, except that a
# decaying schedule is stretched to new `steps` and that sums are ordered by the mesh and by
# how the model is computed.
MAY_CHANGE = (
    "name",
    "run_dir",
    "steps",
    "curriculum.stages",  # its past may not: see _same_history
    "data.root",
    "data.eval_split",
    "data.prefetch",
    "data.workers",
    "data.cache",
    "eval",
    "checkpoint",
    "log",
    "mesh",
    "model.attention",
    "model.remat",
    "model.layers",
)


@contextlib.contextmanager
def owned(cfg: Config) -> Iterator[None]:
    """Within, no other run writes to the run folder and to checkpoint.root; all processes enter.

    Process 0 holds the locks. Raises OSError naming the folder's owner, or the setting of a folder
    that cannot be written, and ValueError where a bucket cannot be reached.
    """
    with contextlib.ExitStack() as stack:
        refused = None
        if jax.process_index() == 0:
            try:
                for field, folder in written_folders(cfg).items():
                    stack.enter_context(locks.owned(field, lock_of(folder)))
            except (OSError, ValueError) as error:
                refused = error
        if distributed.any_process(refused is not None):
            raise refused or OSError("process 0 says what is wrong with a folder of the run")
        yield


def written_folders(cfg: Config) -> dict[str, str]:
    """Setting -> folder: what a run writes to."""
    root = {"checkpoint.root": cfg.checkpoint.root} if cfg.checkpoint.root else {}
    same = root and folder_at(cfg.run_dir) == folder_at(cfg.checkpoint.root)
    return {"run_dir": cfg.run_dir} | ({} if same else root)


def lock_of(folder: str) -> str:
    return f"{folder.rstrip('/')}/{locks.NAME}"


def check_start(cfg: Config) -> None:
    """Raises ValueError where a run cannot start or go on in its folder as `cfg` says.

    Every process calls it: all must have one configuration, see one folder, be able to write
    there, and find there one newest checkpoint, from which `cfg` differs in nothing that matters
    (`check_config`).
    """
    distributed.check_same("configuration", config_hash(cfg))
    root, field = checkpoint.root_of(cfg), checkpoint.field_of_root(cfg)
    check_plain(field, root)
    if is_remote(root):
        try_out(field, root)
    distributed.check_shared(field, root)
    done = checkpoint.latest_step(root)
    distributed.check_same(f"newest checkpoint in {root}", done)
    if done is not None:
        check_config(cfg, done)
    else:
        check_root(cfg)


def check_root(cfg: Config) -> None:
    """Raises ValueError where a run would begin anew for want of the checkpoints it has elsewhere.

    Every process calls it; the run folder that counts is that of process 0.
    """
    left = "" if jax.process_index() else _left_behind(cfg)
    if distributed.any_process(bool(left)):
        raise ValueError(left or "process 0 says what is wrong with checkpoint.root")


def _left_behind(cfg: Config) -> str:
    """What to say where an earlier start of this run folder saved under another root; or ""."""
    old = checkpoint.told_root(cfg.run_dir) or cfg.run_dir
    steps = checkpoint.saved_steps(old) if old != checkpoint.root_of(cfg) else []
    if not steps:
        return ""
    root, held = checkpoint.root_of(cfg), checkpoint.CHECKPOINTS
    copy = "gcloud storage rsync --recursive" if "://" in f"{old}{root}" else "cp -r"
    return (
        f"checkpoint.root={cfg.checkpoint.root!r} holds no checkpoint, but the run of "
        f"{cfg.run_dir} has saved steps {steps} in {old}; set it back to go on there, copy them by "
        f"`{copy} {old}/{held} {root}/{held}`, or start a new run with another --run-dir"
    )


def check_config(cfg: Config, step: int) -> None:
    """Raises ValueError naming the fields in which `cfg` may not differ from a checkpoint."""
    saved = json.loads(checkpoint.config_text(checkpoint.root_of(cfg), step))
    wrong = {
        path: pair
        for path, pair in typed.differences(saved, cfg).items()
        if not any(path == name or path.startswith(name + ".") for name in MAY_CHANGE)
    }
    old_stages = [Stage(**stage) for stage in saved["curriculum"]["stages"]]
    if not _same_history(old_stages, cfg.curriculum.stages, step):
        wrong["curriculum.stages"] = (f"another mixture before step {step}", "this one")
    if wrong:
        lines = "\n".join(
            f"  {path}: saved {old!r}, now {new!r}" for path, (old, new) in wrong.items()
        )
        folder = checkpoint.folder_of(checkpoint.root_of(cfg)) / str(step)
        raise ValueError(
            f"the configuration differs from {folder}:\n{lines}\n"
            f"set them back to continue that run, or start a new one with another --run-dir"
        )


def _same_history(old: Sequence[Stage], new: Sequence[Stage], step: int) -> bool:
    """Whether two curricula drew the same mixture in every step before `step`."""

    def past(stages):
        begun, first = [], 0
        for stage in stages:
            if first < step:
                begun.append((first, min(stage.until, step), _shares(stage)))
            first = stage.until
        return begun

    return past(old) == past(new)


def _shares(stage: Stage) -> dict[str, float]:
    return {name: weight for name, weight in stage.weights.items() if weight > 0}
