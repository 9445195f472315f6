"""manifest.json: which run a folder is of, and what each start of it began with."""

import contextlib
import datetime
import importlib.metadata
import os
import platform
import secrets
import subprocess
from pathlib import Path
from typing import Any

import jax

from dig_jax.common.files import read_sealed, write_sealed
from dig_jax.config import Config, config_hash

NAME = "manifest.json"
PACKAGES = (
    "dig_jax jax jaxlib flax optax orbax-checkpoint grain array-record numpy scipy transformers bpy"
)


def read_manifest(run_dir: str | Path) -> dict[str, Any]:
    """{"run": its number, "starts": [...]} of a run folder; {} where there is none.

    Raises ValueError naming the file and the remedy where it is damaged.
    """
    remedy = "move it away to go on: it tells of earlier starts alone"
    return read_sealed(Path(run_dir) / NAME, remedy, missing={})


def add_start(cfg: Config, run: str | None, start: dict[str, Any]) -> None:
    """Appends a start of `resume.told_start`; process 0 calls it.

    run   the number of the run whose checkpoint it goes on from; None: the folder's, or a new one
    """
    known = read_manifest(cfg.run_dir)
    run = run or known.get("run") or secrets.token_hex(8)
    body = {"run": run, "starts": [*known.get("starts", []), start]}
    write_sealed(Path(cfg.run_dir) / NAME, body, indent=2)


def add_stop(cfg: Config, step: int, why: str) -> None:
    """Tells that the newest start ended in `step` because of numbers; process 0 calls it."""
    known = read_manifest(cfg.run_dir)
    if known.get("starts"):
        known["starts"][-1]["stopped"] = {"step": step, "why": why}
        write_sealed(Path(cfg.run_dir) / NAME, known, indent=2)


def record_of(cfg: Config) -> dict[str, Any]:
    """{"run", "depends"} of the newest start, for a checkpoint; {} where there was none."""
    known = read_manifest(cfg.run_dir)
    told = {**known.get("starts", [{}])[-1], **known}
    return {name: told[name] for name in ("run", "depends") if name in told}


def facts(cfg: Config) -> dict[str, Any]:
    """Where and with what a run started: versions, commit, devices, config hash, UTC time."""
    device = jax.devices()[0]
    return {
        "time": datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds"),
        "config_hash": config_hash(cfg),
        "commit": git_commit(),
        "versions": versions(),
        "platform": platform.platform(terse=True),
        "cores": os.cpu_count(),
        "device": f"{device.platform} {device.device_kind}",
        "devices": jax.device_count(),
        "processes": jax.process_count(),
    }


def versions() -> dict[str, str]:
    """Of Python and of every package of PACKAGES that is installed."""
    found = {"python": platform.python_version()}
    for name in PACKAGES.split():
        with contextlib.suppress(importlib.metadata.PackageNotFoundError):
            found[name] = importlib.metadata.version(name)
    return found


def git_commit() -> str | None:
    """The checkout's commit, with "+changes" when files differ from it; None outside git."""

    def git(*words: str) -> str:
        command = ["git", "-C", str(Path(__file__).parent), *words]
        return subprocess.run(command, capture_output=True, text=True, check=True).stdout.strip()

    try:
        commit = git("rev-parse", "HEAD")
        return commit + ("+changes" if git("status", "--porcelain", "-uno") else "")
    except (OSError, subprocess.CalledProcessError):
        return None
