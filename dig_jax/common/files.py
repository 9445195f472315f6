"""Files that are there whole or not at all, whoever is killed."""

import contextlib
import errno
import hashlib
import json
import os
import platform
import shutil
from collections.abc import Iterator
from pathlib import Path

from dig_jax.common import machine

_TMP = ".tmp-"
_NO_ROOM_OR_RIGHTS = (
    errno.ENOSPC, errno.EDQUOT, errno.EROFS, errno.EACCES, errno.EPERM, errno.ENOTDIR, errno.EEXIST,
)  # fmt: skip


def file_sha256(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def temporary(path: Path) -> Path:
    """A name beside `path` that no other process writes to."""
    return path.with_name(f"{path.name}{_TMP}{platform.node()}-{os.getpid()}")


def remove_leftovers(folder: Path) -> None:
    """Delete temporary files of processes of this machine that are no longer there."""
    for path in folder.glob(f"*{_TMP}{platform.node()}-*"):
        pid = path.name.rpartition("-")[2]
        if pid.isdigit() and not machine.is_running(int(pid)):
            path.unlink(missing_ok=True)


def write_json(path: Path, value: dict) -> None:
    """Write whole or not at all."""
    write_text(path, json.dumps(value, indent=1) + "\n")


def write_text(path: Path, text: str) -> None:
    """Write whole or not at all; raises OSError as `telling_room`."""
    tmp = temporary(path)
    try:
        with telling_room(path):
            tmp.write_text(text, encoding="utf-8")
            os.replace(tmp, path)
    finally:
        tmp.unlink(missing_ok=True)


@contextlib.contextmanager
def telling_room(path: Path, remedy: str = "") -> Iterator[None]:
    """Within it, an OSError for want of room or rights names `path`, the room, and a way on."""
    try:
        yield
    except OSError as error:
        if error.errno not in _NO_ROOM_OR_RIGHTS:
            raise
        place = next(parent for parent in path.absolute().parents if parent.is_dir())
        free = shutil.disk_usage(place).free
        remedy = remedy or "free some space or mend its rights, and run the same command again"
        text = f"{path} could not be written ({error.strerror or error})"
        raise OSError(f"{text}; the disk has {free / 1e6:.1f} MB left; {remedy}") from error


def make_folder(folder: Path) -> None:
    """`mkdir -p` of a folder that can be written; raises OSError as `telling_room`."""
    remedy = "choose another folder, or mend its rights, and run the same command again"
    probe = temporary(folder / "probe")
    with telling_room(folder, remedy):
        folder.mkdir(parents=True, exist_ok=True)
        probe.touch()
        probe.unlink()
