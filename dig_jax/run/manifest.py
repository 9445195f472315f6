"""manifest.json: which run a folder is of, and what each start of it began with.

A run has a number. Every file of its folder holds it or, as rows do, continues from it, so that a
file of another run is told as such; config.json, the configuration of the newest start, too.
"""

import contextlib
import datetime
import importlib.metadata
import json
import os
import platform
import secrets
import subprocess
from pathlib import Path
from typing import Any

import jax

from dig_jax.common.files import create_text, read_sealed, write_sealed
from dig_jax.common.sealed import sealed
from dig_jax.common.typed import to_plain
from dig_jax.config import Config, config_hash

NAME, SETTINGS = "manifest.json", "config.json"
RUN = "run"  # field of files: the number of the run that wrote them
PACKAGES = (
    "dig_jax jax jaxlib flax optax orbax-checkpoint grain array-record numpy scipy transformers bpy"
)


def read_manifest(run_dir: str | Path) -> dict[str, Any]:
    """{"run": its number, "starts": [...]} of a run folder; {} where there is none.

    Raises ValueError naming the file and the remedy where it is damaged.
    """
    remedy = "move it away to go on: it tells of earlier starts alone"
    return read_sealed(Path(run_dir) / NAME, remedy, missing={})


def add_start(cfg: Config, run: str | None, start: dict[str, Any]) -> str:
    """Appends a start of `resume.told_start`; process 0 calls it.

    run   the number of the run whose checkpoint it goes on from; None: the folder's, or a new one

    config.json is written anew. Returns the number of the run.
    """
    known = read_manifest(cfg.run_dir)
    run = run or known.get(RUN) or secrets.token_hex(8)
    body = {RUN: run, "starts": [*known.get("starts", []), start]}
    write_sealed(Path(cfg.run_dir) / NAME, body, indent=2)
    write_settings(cfg, run)
    return run


def write_settings(cfg: Config, run: str) -> None:
    """config.json of a run folder, with the number of the run."""
    write_sealed(Path(cfg.run_dir) / SETTINGS, {**to_plain(cfg), RUN: run}, indent=2)


def read_settings(run_dir: str | Path) -> dict[str, Any]:
    """The configuration that a run folder holds, as it was written, and RUN; {} without one.

    Raises ValueError naming the file and the remedy where it is damaged.
    """
    remedy = "move it away to go on: it is written anew at every start"
    return read_sealed(Path(run_dir) / SETTINGS, remedy, missing={})


def number_of(run_dir: str | Path, known: str | None = None) -> str | None:
    """The number of the run that a folder is of; None where nothing tells it.

    known   that of its checkpoint, if there is one

    Raises ValueError naming the file that is another run's.
    """
    told = {NAME: read_manifest(run_dir).get(RUN), SETTINGS: read_settings(run_dir).get(RUN)}
    numbers = {number for number in told.values() if number}
    if len(numbers) > 1:
        wrong = [name for name, number in told.items() if number != known]
        if len(wrong) == 1:
            raise ValueError(
                f"{Path(run_dir) / wrong[0]} is another run's: its number is {told[wrong[0]]}, "
                f"that of the checkpoints {known}; move it away to go on"
            )
        raise ValueError(
            f"{Path(run_dir) / NAME} and {SETTINGS} are of two runs; take the copy of the wrong "
            f"one back, or move both away to go on"
        )
    return next(iter(numbers), known)


def number_for(run_dir: str | Path, known: str | None = None) -> str:
    """`number_of`; where nothing tells it, a new one is given to the folder: one, to all who ask.

    For what is written before a run has its first start, such as an evaluation of its source.
    """
    number = number_of(run_dir, known)
    if number is None:
        body = sealed({RUN: secrets.token_hex(8), "starts": []})
        create_text(Path(run_dir) / NAME, json.dumps(body, indent=2) + "\n")
        number = number_of(run_dir)
    return number


def check_number(path: Any, value: dict[str, Any], run: str | None, remedy: str) -> None:
    """Raises ValueError where a file's value has another run's number; older ones have none."""
    theirs = value.get(RUN)
    if theirs and run and theirs != run:
        raise ValueError(f"{path} is another run's: its number is {theirs}, not {run}; {remedy}")


def add_stop(cfg: Config, step: int, why: str) -> None:
    """Tells that the newest start ended in `step` because of numbers; process 0 calls it."""
    known = read_manifest(cfg.run_dir)
    if known.get("starts"):
        known["starts"][-1]["stopped"] = {"step": step, "why": why}
        write_sealed(Path(cfg.run_dir) / NAME, known, indent=2)


def record_of(cfg: Config) -> dict[str, Any]:
    """{"run", "depends"} of the newest start, for a checkpoint; {} where there was none."""
    known = read_manifest(cfg.run_dir)
    told = {**(known.get("starts") or [{}])[-1], **known}
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
