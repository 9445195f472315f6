"""Files that are there whole or not at all: written beside, synced to the disk, renamed."""

from __future__ import annotations

import json
import os
import platform
from itertools import count
from pathlib import Path
from typing import Any

from dig_jax.common import machine

_TMP = ".tmp-"
_NUMBERS = count()


def write_text(path: str | Path, text: str) -> None:
    """Writes a file completely or not at all; whatever ends the process leaves no half of it."""
    path = Path(path)
    part = temporary(path)
    try:
        with part.open("x", encoding="utf-8") as file:
            file.write(text)
            file.flush()
            os.fsync(file.fileno())
        os.replace(part, path)
    except BaseException:
        part.unlink(missing_ok=True)
        raise


def write_json(path: str | Path, value: Any, *, indent: int = 1) -> None:
    """`write_text` of a value's JSON."""
    write_text(path, json.dumps(value, indent=indent) + "\n")


def read_json(path: Any, remedy: str, *, missing: Any = None) -> Any:
    """The value of a JSON file, a `Path` or an `epath.Path`.

    remedy   what to do about a file that holds none, for the message
    missing  if given, stands for a file that is not there

    Raises ValueError naming the file and the remedy where it is empty, cut off or no JSON.
    """
    if missing is not None and not path.is_file():
        return missing
    text = path.read_text(encoding="utf-8")
    try:
        return json.loads(text)
    except json.JSONDecodeError as error:
        what = "is empty" if not text.strip() else f"is not valid JSON ({error})"
        raise ValueError(f"{path} {what}; {remedy}") from error


def temporary(path: Path) -> Path:
    """A name beside `path` that nobody else writes to: no process, and no thread of this one."""
    number = next(_NUMBERS)
    return path.with_name(f"{path.name}{_TMP}{number}-{platform.node()}-{os.getpid()}")


def remove_leftovers(folder: Path) -> None:
    """Delete temporary files of processes of this machine that are no longer there."""
    for path in folder.glob(f"*{_TMP}*-{platform.node()}-*"):
        pid = path.name.rpartition("-")[2]
        if pid.isdigit() and not machine.is_running(int(pid)):
            path.unlink(missing_ok=True)
