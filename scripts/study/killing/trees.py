"""Process trees: started, killed whole or at their root, and what is left of them."""

import contextlib
import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path

GRACE_S = 20.0  # in which the children of a killed program have to end by themselves
_SHARED = Path("/dev/shm")


def start(command: Sequence[str]) -> subprocess.Popen:
    """A command of this checkout in a session of its own."""
    return subprocess.Popen(
        [sys.executable, *command],
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        start_new_session=True,
    )


def run(command: Sequence[str]) -> None:
    """A command undisturbed; raises RuntimeError with what it said where it fails."""
    done = subprocess.run([sys.executable, *command], capture_output=True, text=True, check=False)
    if done.returncode:
        raise RuntimeError(
            f"{' '.join(command)} ended with {done.returncode}:\n{done.stderr[-3000:]}"
        )


def wait_at_most(started: subprocess.Popen, seconds: float) -> None:
    """Until the program has ended, or that long."""
    try:
        started.wait(seconds)
    except subprocess.TimeoutExpired:
        return


def descendants(pid: int) -> set[int]:
    """All processes below one, by /proc; a child whose parent has died is not among them."""
    children: dict[int, list[int]] = {}
    for stat in Path("/proc").glob("[0-9]*/stat"):
        try:
            parent = int(stat.read_text().rpartition(")")[2].split()[1])
        except (OSError, ValueError):  # it has ended meanwhile
            continue
        children.setdefault(parent, []).append(int(stat.parent.name))
    found, waiting = set(), [pid]
    while waiting:
        below = children.get(waiting.pop(), [])
        found |= set(below)
        waiting += below
    return found


def kill_tree(started: subprocess.Popen) -> list[str]:
    """SIGKILL to a program and all below it; names of what is left of them."""
    family = descendants(started.pid) | {started.pid}
    for pid in family:
        _kill(pid)
    started.wait()
    return _left(family, 2.0)


def kill_first(started: subprocess.Popen) -> list[str]:
    """SIGKILL to the program alone; names of the children that do not end by themselves.

    Those are killed then, so that nothing disturbs the next start.
    """
    family = descendants(started.pid)
    _kill(started.pid)
    started.wait()
    left = _left(family, GRACE_S)
    for pid in family:
        _kill(pid)
    return left


def segments() -> set[str]:
    """Names of what is shared in memory and used by no living process."""
    if not _SHARED.is_dir():
        return set()
    used, found = _in_use(), {entry.name: entry.inode() for entry in os.scandir(_SHARED)}
    free = {name for name, number in found.items() if number not in used}
    owner = {name: re.match(r"dig_jax_(\d+)_", name) for name in free}  # a renderer's folder
    return {name for name, pid in owner.items() if not (pid and _is_alive(int(pid[1])))}


def _in_use() -> set[int]:
    """Numbers of the files there that living processes have mapped or opened.

    Not their names: a semaphore is mapped under one that is gone.
    """
    used = set()
    for process in Path("/proc").glob("[0-9]*"):
        with contextlib.suppress(OSError):  # it has ended meanwhile, or is another user's
            lines = (process / "maps").read_text().splitlines()
            used |= {int(line.split()[4]) for line in lines if f"{_SHARED}/" in line}
            for link in (process / "fd").iterdir():
                used |= _opened(link)
    return used


def _opened(link: Path) -> set[int]:
    try:
        inside = os.readlink(link).startswith(f"{_SHARED}/")
        return {link.stat().st_ino} if inside else set()
    except OSError:  # closed meanwhile
        return set()


def _kill(pid: int) -> None:
    try:
        os.kill(pid, signal.SIGKILL)
    except ProcessLookupError:
        return


def _left(family: set[int], seconds: float) -> list[str]:
    """Command lines of those still there after at most so long; zombies count as gone."""
    until = time.monotonic() + seconds
    while (alive := {pid for pid in family if _is_alive(pid)}) and time.monotonic() < until:
        time.sleep(0.05)
    return [_name(pid) for pid in sorted(alive)]


def _is_alive(pid: int) -> bool:
    try:
        state = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]
    except (OSError, IndexError):
        return False
    return state not in "ZX"


def _name(pid: int) -> str:
    try:
        words = Path(f"/proc/{pid}/cmdline").read_bytes().split(b"\0")
    except OSError:
        return f"{pid}"
    return f"{pid} {b' '.join(words).decode(errors='replace')[:80]}"
