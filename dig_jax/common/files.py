"""Files that are there whole or not at all: written beside, synced to the disk, renamed."""

from __future__ import annotations

import json
import os
import platform
import zlib
from itertools import count
from pathlib import Path
from typing import Any

from dig_jax.common import machine

CRC = "crc"
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


def write_sealed(path: str | Path, value: dict[str, Any], *, indent: int | None = None) -> None:
    """`write_text` of an object's JSON with a checksum of it as the last field, CRC."""
    text = json.dumps(value | {CRC: _crc(value)}, indent=indent)
    write_text(path, text + "\n")


def read_sealed(path: Any, remedy: str, *, missing: Any = None) -> dict[str, Any]:
    """`read_json` of what `write_sealed` wrote, without its checksum.

    One without a checksum, of an earlier version, is taken as it is. Raises ValueError also where
    the object is not the one that was written, or is none.
    """
    value = read_json(path, remedy, missing=missing)
    if not isinstance(value, dict):
        raise ValueError(f"{path} holds a {type(value).__name__}, not an object; {remedy}")
    told = value.pop(CRC, None)
    if told is not None and told != _crc(value):
        raise ValueError(
            f"{path} is not what was written (crc {told}, its fields have {_crc(value)}); {remedy}"
        )
    return value


def _crc(value: dict[str, Any]) -> str:
    return f"{zlib.crc32(json.dumps(value).encode()):08x}"


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
