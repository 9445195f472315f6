"""What can be known of a run's folder before it starts: writable, whose, and roomy enough.

Functions as in `checks`: the configuration and what other checks have found in, a `Finding` out.
"""

import contextlib
import os
import shutil
from pathlib import Path

import jax

from dig_jax.common import locks
from dig_jax.common.addresses import check_plain, is_remote, try_out
from dig_jax.config import Config, best_score
from dig_jax.doctor.findings import Finding
from dig_jax.mesh.layout import Layout
from dig_jax.model.config import ModelConfig
from dig_jax.run import checkpoint, memory, resume
from dig_jax.run.best import FOLDER as BEST
from dig_jax.run.memory import bytes_text
from dig_jax.run.runlog import METRICS

_MESSAGE = b"dig_jax.doctor was here\n"
_ELSEWHERE = "name another folder with --run-dir"


def writing(cfg: Config) -> Finding:
    """A file is created, written, synced, read back and deleted in the run folder."""
    folder = Path(cfg.run_dir)
    if not cfg.checkpoint.root:
        check_plain("run_dir", folder)
    try:
        _alone("run_dir", cfg.run_dir)
        write_test(folder)
    except locks.Taken:
        raise
    except OSError as error:
        rule = f"cannot be written ({error})"
        return Finding(str(folder), rule=rule, remedy=f"make it writable, or {_ELSEWHERE}")
    return Finding(f"{folder}: a file was written, synced, read back and deleted")


def keeping(cfg: Config) -> Finding:
    """checkpoint.root, a folder or one in a bucket, takes, lists, gives back and deletes a file."""
    root = cfg.checkpoint.root
    check_plain("checkpoint.root", root)
    if is_remote(root):
        try_out("checkpoint.root", root)
        _alone("checkpoint.root", root)
        return Finding(f"{root}: an object was written, listed, read back and deleted")
    try:
        _alone("checkpoint.root", root)
        write_test(Path(root))
    except locks.Taken:
        raise
    except OSError as error:
        remedy = "make it writable, or name another checkpoint.root"
        return Finding(root, rule=f"cannot be written ({error})", remedy=remedy)
    return Finding(f"{root}: a file was written, synced, read back and deleted")


def _alone(field: str, folder: str) -> None:
    """Raises locks.Taken where a run is writing there."""
    if jax.process_index() == 0:
        with locks.owned(field, resume.lock_of(folder)):
            pass


def write_test(folder: Path) -> None:
    """Leaves the disk as it was; raises OSError where a folder or a file cannot be made.

    With several processes the folder itself stays: another may be about to write there.
    """
    made = [path for path in (folder, *folder.parents) if not path.exists()]
    made = made if jax.process_count() == 1 else []
    path = folder / f".doctor-{jax.process_index()}-{os.getpid()}"
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with path.open("wb") as file:
            file.write(_MESSAGE)
            file.flush()
            os.fsync(file.fileno())
        if path.read_bytes() != _MESSAGE:
            raise OSError(f"{path} holds other bytes than were written")
        path.unlink()
    finally:  # what could not be made is not there; what others put there meanwhile stays
        with contextlib.suppress(OSError):
            path.unlink(missing_ok=True)
        for parent in made:
            with contextlib.suppress(OSError):
                parent.rmdir()


def continuing(cfg: Config, *_: None) -> Finding:
    """Whether there is a run already, and whether this configuration may go on with it.

    Nothing of what `keeping` found, where that was asked, but that it found nothing wrong.
    """
    done = checkpoint.latest_step(checkpoint.root_of(cfg))
    if done is None:
        resume.check_root(cfg)
        if (Path(cfg.run_dir) / METRICS).is_file():
            return Finding("has rows of a run without checkpoint: the run begins anew")
        return Finding("no run yet: a new one begins")
    resume.check_resume(cfg, done)
    if done >= cfg.steps:
        return Finding(f"holds the finished run of {done} steps: nothing is left to do")
    return Finding(f"holds a run: it goes on after step {done} of {cfg.steps}")


def disk(cfg: Config, found: ModelConfig) -> Finding:
    """Room for the checkpoints that are kept, the best weights and an export.

    Those in a bucket take none; an export is made beside the run.
    """
    state, weights = memory.state_bytes(Layout(cfg, None, found))
    counts = {  # one more than is kept: the oldest goes when the newest is whole
        "checkpoints": (cfg.checkpoint.keep + 1, state),
        "best weights": (3 if best_score(cfg) else 0, weights),
        "export": (1, weights),
    }
    root = checkpoint.root_of(cfg)
    if is_remote(root):
        counts, root = {"export": counts["export"]}, cfg.run_dir
    folder = Path(root).resolve()
    there = sum(_size(folder / name) for name in (checkpoint.CHECKPOINTS, BEST))
    need = max(0, sum(count * size for count, size in counts.values()) - there)
    free = shutil.disk_usage(next(p for p in (folder, *folder.parents) if p.is_dir())).free
    parts = ", ".join(f"{n} {name} of {bytes_text(s)}" for name, (n, s) in counts.items() if n)
    text = f"{bytes_text(free)} free, {bytes_text(need)} needed: {parts}"
    if need <= free:
        return Finding(text)
    rule = "a checkpoint that finds no room stops the run"
    return Finding(text, rule=rule, remedy=f"free some, lower checkpoint.keep, or {_ELSEWHERE}")


def _size(folder: Path) -> int:
    return sum(path.stat().st_size for path in folder.rglob("*") if path.is_file())
