"""One owner for a folder: a lock says who writes there, and a second owner is refused.

    {"host", "pid", "started", "program", "boot"}   in a file or an object that was made exclusively

A lock whose process of this machine has ended is taken over at once. Of another machine nothing
can be asked: its owner touches the lock every BEAT_S seconds, and a lock that nobody has touched
for SILENCE_S is taken over; one that is younger is watched until it is either touched, and then
its owner lives, or that old. By hand: delete the file that the message names.

Exclusive is, on a disk, a hard link of a whole file (O_EXCL where there are no links) and, in a
bucket, an upload on the condition that there is no such object. Clocks of machines may differ by
less than SILENCE_S.
"""

from __future__ import annotations

import contextlib
import datetime
import json
import os
import platform
import sys
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import fsspec

from dig_jax.common import machine
from dig_jax.common.addresses import is_remote, reaching
from dig_jax.common.files import create_text, temporary

NAME = "owner.lock"  # in a folder that has one owner
BEAT_S = 20.0  # an owner's touch
SILENCE_S = 180.0  # of an owner on another machine, after which it counts as gone


class Taken(OSError):
    """Somebody else owns what is asked for."""


@dataclass(frozen=True)
class Seen:
    """A lock as it was read: its text, its version, and when it was last touched (Unix time)."""

    text: str
    version: str
    touched: float


@contextlib.contextmanager
def owned(
    field: str, *paths: str | Path, pause: Callable[[float], object] = time.sleep
) -> Iterator[None]:
    """This process owns the locks at these paths (or gs:// addresses) within: all, or none.

    field   the setting that names what is locked, for messages
    pause   waits so many seconds, while a lock of another machine is watched

    Raises Taken (an OSError) naming the owner and the remedy, and OSError where the folder cannot
    be made or written. Folders made for the lock alone are gone afterwards.
    """
    made: list[Path] = []
    places: list[_File | _Object] = []
    try:
        for path in paths:
            place = _Object(str(path)) if is_remote(path) else _File(Path(path))
            made += place.make_folder(field)
            _take(field, place, pause)
            places.append(place)
            _held[str(place)] = place
        with _beating(places):
            yield
    finally:
        for place in places:
            _give_back(place)
        for folder in made:
            with contextlib.suppress(OSError):  # not empty: it is used
                folder.rmdir()


def check_ours(path: str | Path) -> None:
    """Raises Taken where this process has held the lock at `path` and another owns it now.

    Only after a silence of SILENCE_S, say of a machine that was suspended.
    """
    held = _held.get(str(path if is_remote(path) else Path(path).absolute()))
    seen = held and held.read()
    if seen and seen.text != _ours():
        raise Taken(f"{held} has been taken over by {_who(seen.text)}; this run ends")


def _take(field: str, place: _File | _Object, pause: Callable[[float], object]) -> None:
    first, told = None, False
    while not place.create(_ours()):
        seen = place.read()
        if seen is None:  # given back in between
            continue
        if seen.text == _ours() and str(place) not in _held:
            return  # a client that sent its upload twice and was refused by its own
        alive = _is_alive(seen.text)
        age = time.time() - seen.touched
        if alive is False or (alive is None and age > SILENCE_S):
            place.remove(seen)
            continue
        first = first or seen
        if alive or seen != first:
            raise Taken(_refusal(field, place, seen.text))
        if not told:
            told = True
            print(
                f"{place} belongs to {_who(seen.text)}, last heard of {age:.0f} s ago: waiting, "
                f"{SILENCE_S:.0f} s at most",
                file=sys.stderr,
                flush=True,
            )
        pause(2.0)


def _refusal(field: str, place: _File | _Object, text: str) -> str:
    return (
        f"{field}: {place.folder} is in use by {_who(text)}; end that or name another folder (if "
        f"that process is surely gone, delete {place})"
    )


def _who(text: str) -> str:
    owner = _parsed(text)
    return "{program} (process {pid} on {host})".format_map({**_NOBODY, **owner})


_NOBODY = {"program": "an unknown program", "pid": "?", "host": "an unknown host"}


def _parsed(text: str) -> dict:
    with contextlib.suppress(json.JSONDecodeError):
        owner = json.loads(text)
        return owner if isinstance(owner, dict) else {}
    return {}


def _ours() -> str:
    """What this process writes into a lock."""
    main = getattr(sys.modules.get("__main__"), "__spec__", None)
    program = main.name.removesuffix(".__main__") if main else Path(sys.argv[0]).name
    pid = os.getpid()
    facts = {"host": platform.node(), "pid": pid, "started": machine.started(pid)}
    return json.dumps(facts | {"program": program or "python", "boot": machine.boot()})


def _is_alive(text: str) -> bool | None:
    """Whether an owner still runs; None where it cannot be known from here."""
    owner = _parsed(text)
    if (owner.get("host"), owner.get("boot")) != (platform.node(), machine.boot()):
        return None
    now, then = machine.started(owner["pid"]), owner.get("started")
    return now is not None and (now == then or not now or not then)


_held: dict[str, _File | _Object] = {}


@contextlib.contextmanager
def _beating(places: list[_File | _Object]) -> Iterator[None]:
    """Touches locks every BEAT_S."""
    end = threading.Event()

    def beat() -> None:
        while not end.wait(BEAT_S):
            for place in places:
                with contextlib.suppress(Exception):  # away for a moment; see SILENCE_S
                    place.touch(_ours())

    thread = threading.Thread(target=beat, daemon=True, name="lock beat")
    thread.start()
    try:
        yield
    finally:
        end.set()
        thread.join()


def _give_back(place: _File | _Object) -> None:
    del _held[str(place)]
    with contextlib.suppress(OSError):  # gone with its folder, or the share is away
        seen = place.read()
        if seen and seen.text == _ours():
            place.remove(seen)


class _File:
    """A lock on a disk."""

    def __init__(self, path: Path):
        self._path = path.absolute()
        self.folder = str(path.parent)

    def __str__(self) -> str:
        return str(self._path)

    def make_folder(self, field: str) -> list[Path]:
        """Folders that it has made, the innermost first."""
        folder = self._path.parent
        made = [one for one in (folder, *folder.parents) if not one.exists()]
        try:
            folder.mkdir(parents=True, exist_ok=True)
            if not os.access(folder, os.W_OK | os.X_OK):
                raise PermissionError(13, "Permission denied", str(folder))
        except OSError as error:
            raise OSError(
                f"{field}={self.folder!r} cannot be written ({error}); make it writable, or name "
                f"another folder"
            ) from error
        return made

    def create(self, text: str) -> bool:
        return create_text(self._path, text)

    def read(self) -> Seen | None:
        try:
            with self._path.open() as file:
                facts = os.fstat(file.fileno())
                return Seen(file.read(), str(facts.st_ino), facts.st_mtime)
        except FileNotFoundError:
            return None

    def remove(self, seen: Seen) -> None:
        """Of several who see one dead lock one removes it; another's it puts back."""
        aside = temporary(self._path)
        with contextlib.suppress(FileNotFoundError):
            os.rename(self._path, aside)
            if aside.read_text() != seen.text:
                with contextlib.suppress(OSError):
                    os.link(aside, self._path)
            aside.unlink()

    def touch(self, text: str) -> None:
        seen = self.read()
        if seen and seen.text == text:
            os.utime(self._path)


class _Object:
    """A lock in a bucket, by the conditions that Google's storage puts on generations."""

    def __init__(self, address: str):
        self._address = address
        self.folder = address.rpartition("/")[0]

    def __str__(self) -> str:
        return self._address

    def make_folder(self, field: str) -> list[Path]:
        """None is needed; whether the bucket can be reached is found here."""
        with reaching(field, self.folder):
            self._storage, self._path = fsspec.core.url_to_fs(self._address)
            self._names = self._path.partition("/")[::2]
            self.read()
        return []

    def create(self, text: str) -> bool:
        try:
            self._storage.pipe_file(self._path, text.encode(), mode="create")
        except FileExistsError:
            return False
        return True

    def read(self) -> Seen | None:
        try:
            facts = self._storage.call("GET", "b/{}/o/{}", *self._names, json_out=True)
            text = self._storage.cat_file(self._path).decode()
        except FileNotFoundError:
            return None
        touched = datetime.datetime.fromisoformat(facts["updated"]).timestamp()
        return Seen(text, facts["generation"], touched)

    def remove(self, seen: Seen) -> None:
        """That very one: a lock made since has another generation."""
        condition = {"ifGenerationMatch": seen.version}
        with contextlib.suppress(FileNotFoundError, FileExistsError):  # 404, 412
            self._storage.call("DELETE", "b/{}/o/{}", *self._names, **condition)

    def touch(self, text: str) -> None:
        seen = self.read()
        if seen and seen.text == text:
            self._storage.setxattrs(self._path, beat=f"{time.time():.0f}")
