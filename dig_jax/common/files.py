"""Files that are there whole or not at all: written beside, synced to the disk, renamed."""

from __future__ import annotations

import contextlib
import errno
import hashlib
import json
import os
import platform
import shutil
from collections.abc import Iterator
from itertools import count
from pathlib import Path
from typing import Any

from dig_jax.common import machine, sealed

_TMP = ".tmp-"
_NUMBERS = count()
_NO_ROOM = (errno.ENOSPC, errno.EDQUOT)
_NO_RIGHTS = (errno.EROFS, errno.EACCES, errno.EPERM, errno.ENOTDIR, errno.EEXIST)


class NoRoom(OSError):
    """The disk cannot take what was to be written, or may not be written to; tells a way on."""


def file_sha256(path: Any) -> str:
    """Hexadecimal SHA-256 of a file's bytes, of a `Path` or an `epath.Path`."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def write_text(path: str | Path, text: str) -> None:
    """Writes a file completely or not at all; whatever ends the process leaves no half of it.

    Raises OSError as `telling_room`.
    """
    path = Path(path)
    part = temporary(path)
    try:
        with telling_room(path):
            with part.open("x", encoding="utf-8") as file:
                file.write(text)
                file.flush()
                os.fsync(file.fileno())
            os.replace(part, path)
    except BaseException:
        with contextlib.suppress(OSError):
            part.unlink(missing_ok=True)
        raise


def create_text(path: Path, text: str) -> bool:
    """Writes a whole file where there is none; False where there is one. Of several who try at
    once one succeeds.

    Raises OSError as `telling_room`.
    """
    part = temporary(path)
    try:
        with telling_room(path):
            part.write_text(text)
        os.link(part, path)
    except FileExistsError:
        return False
    except OSError:
        if not part.is_file() or part.read_text() != text:
            raise
        return _create_without_links(path, text)
    finally:
        part.unlink(missing_ok=True)
    return True


def _create_without_links(path: Path, text: str) -> bool:
    try:
        with path.open("x") as file:
            file.write(text)
    except FileExistsError:
        return False
    return True


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
    data = path.read_bytes()
    try:
        return json.loads(data)
    except ValueError as error:  # also where it is no UTF-8
        what = f"is not valid JSON ({error})" if data.strip() else "is empty"
        raise ValueError(f"{path} {what}; {remedy}") from error


def write_sealed(path: str | Path, value: dict[str, Any], *, indent: int | None = None) -> None:
    """`write_text` of an object's JSON with its checksum, see `sealed`."""
    write_text(path, json.dumps(sealed.sealed(value), indent=indent) + "\n")


def read_sealed(path: Any, remedy: str, *, missing: Any = None) -> dict[str, Any]:
    """`read_json` of what `write_sealed` wrote, without its checksum.

    One without a checksum, of an earlier version, is taken as it is. Raises ValueError also where
    the object is not the one that was written, or is none.
    """
    if missing is not None and not path.is_file():
        return missing
    try:
        value = sealed.parse(path.read_text(encoding="utf-8"))
    except ValueError as error:
        raise ValueError(f"{path} {error}; {remedy}") from error
    value.pop(sealed.FIELD, None)
    return value


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


def swap_in(partial: Path, folder: Path) -> None:
    """Put `partial` in the place of `folder`; at every moment one of them is complete."""
    old = folder.parent / f".{folder.name}.old"
    if folder.exists():
        if old.exists():
            shutil.rmtree(old)
        folder.rename(old)
    partial.rename(folder)
    if old.exists():
        shutil.rmtree(old)


@contextlib.contextmanager
def telling_room(path: Path, remedy: str = "") -> Iterator[None]:
    """Within it, an error for want of room or rights is `NoRoom`: `path`, the room, a way on.

    Libraries that write by themselves raise what they like: it is known by its text.
    """
    try:
        yield
    except NoRoom:
        raise
    except Exception as error:
        if not (is_no_room(error) or getattr(error, "errno", None) in _NO_RIGHTS):
            raise
        place = next(parent for parent in path.absolute().parents if parent.is_dir())
        free = shutil.disk_usage(place).free
        remedy = remedy or "free some space or mend its rights, and run the same command again"
        why = getattr(error, "strerror", None) or f"{error}"[:300]
        other = getattr(error, "filename", None)  # the file to blame may be one that is read
        why += f": {other}" if other and path.name not in f"{other}" else ""
        text = f"{path} could not be written ({why})"
        raise NoRoom(f"{text}; the disk has {free / 1e6:.1f} MB left; {remedy}") from error


def is_no_room(error: Exception) -> bool:
    """Whether an error of any library says that a disk is full."""
    texts = (os.strerror(number) for number in _NO_ROOM)
    return getattr(error, "errno", None) in _NO_ROOM or any(t in str(error) for t in texts)


def make_folder(folder: Path) -> None:
    """`mkdir -p` of a folder that can be written; raises OSError as `telling_room`."""
    remedy = "choose another folder, or mend its rights, and run the same command again"
    probe = temporary(folder / "probe")
    with telling_room(folder, remedy):
        folder.mkdir(parents=True, exist_ok=True)
        probe.touch()
        probe.unlink()
