"""What data workers keep in shared memory: how much, under whose name, and who removes it.

A segment of a program is called `dig` + 5 letters of the program + 4 of its own, a semaphore of
its queues `sem.dig?????-` + 8; beside them lies `dig?????.lock`, which the program holds while it
lives. What a killed program has left behind is removed by Python's resource tracker, and by the
next program where the tracker was killed too.
"""

import atexit
import fcntl
import functools
import mmap
import multiprocessing
import os
import re
import secrets
import shutil
import threading
from multiprocessing import resource_tracker, shared_memory
from pathlib import Path

FOLDER = Path("/dev/shm")  # where Linux keeps what processes share
_LETTERS = 5  # Python allows 14 characters in all, the slash among them
_KILLED = re.compile(r"exit code -(\d+)")  # Grain's words for a worker that a signal ended
_SIGBUS, _SIGKILL = 7, 9
_ENDED = re.compile(r"terminated \w* ?with exit code (\d+)")
_LOCK_PAGES = 40  # of a worker's queues and events: a semaphore takes a page; about 25 measured


def check_room(workers: int, ahead: int, batch: int) -> None:
    """Raises ValueError where batches of `batch` bytes would not fit: a worker would die by SIGBUS.

    ahead   batches that each worker's queue holds, at least 1
    """
    if not FOLDER.is_dir():
        return
    need, free = needed_bytes(workers, ahead, batch), shutil.disk_usage(FOLDER).free
    if need > free:
        raise ValueError(
            f"data.workers={workers} with data.prefetch={ahead} need up to {need / 1e6:.1f} MB of "
            f"shared memory and {FOLDER} has {free / 1e6:.1f} MB left; use fewer (data.workers=0 "
            "needs none), or give it more (a container's --shm-size)"
        )


def needed_bytes(workers: int, ahead: int, batch: int) -> int:
    """Bytes in shared memory at once, at most, where a batch has `batch` of them.

    Of each worker `ahead` in its queue and one waiting to be put there, and the same again on
    this side, where Grain's interleaving has a thread and a queue per worker; then one that is
    being copied out and one that is being removed. A reader that lets the queues fill up meets
    all but these two (test_shared_memory measures it).
    """
    most = workers * (2 * ahead + 2) + 2
    return most * batch + workers * _LOCK_PAGES * mmap.PAGESIZE


def batch_bytes(rows: int, pair_bytes: int, max_boxes: int) -> int:
    """Of a batch in shared memory: an array of its own, in whole pages, for every field."""
    per_row = (pair_bytes, 4 * 4 * max_boxes, max_boxes, 4 * max_boxes, 4, 4, 1)
    return sum(-(-rows * each // mmap.PAGESIZE) * mmap.PAGESIZE for each in per_row)


@functools.cache
def own_prefix() -> str:
    """How the names of this program's segments begin; removes those of programs that ended.

    Process numbers would not tell who has ended where containers share their shared memory.
    """
    prefix = f"dig{secrets.token_hex(_LETTERS)[:_LETTERS]}"
    if FOLDER.is_dir() and os.access(FOLDER, os.W_OK):
        _remove_abandoned()
        path = FOLDER / f"{prefix}.lock"
        lock = path.open("w")
        fcntl.flock(lock, fcntl.LOCK_EX)
        atexit.register(_release, path, lock)  # which also keeps it open until then
        # of this process and, by inheritance, of its workers: what `multiprocessing` names itself
        multiprocessing.current_process()._config["semprefix"] = f"/{prefix}"
    return prefix


def _release(path: Path, lock) -> None:
    path.unlink(missing_ok=True)
    lock.close()


def _remove_abandoned() -> None:
    for path in FOLDER.glob(f"dig{'?' * _LETTERS}.lock"):
        try:
            with path.open("r+") as lock:
                fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
                for pattern in (f"{path.stem}????", f"sem.{path.stem}-*"):
                    for left in FOLDER.glob(pattern):
                        left.unlink(missing_ok=True)
                path.unlink(missing_ok=True)
        except OSError:  # held by a living program, another user's, or just removed
            continue


def begin_worker(prefix: str) -> None:
    """In a worker: its segments begin with `prefix`, and it ends when its parent does."""

    def new_name() -> str:
        name = f"/{prefix}{secrets.token_hex(2)}"
        # before the segment exists: the thread below may end this process between the two
        resource_tracker.register(name, "shared_memory")
        return name

    shared_memory._make_filename = new_name  # a Python without it names them otherwise
    parent = multiprocessing.parent_process()
    threading.Thread(target=_leave_after, args=(parent,), daemon=True).start()


def _leave_after(parent) -> None:
    parent.join()  # waits for a pipe that the parent alone holds
    os._exit(1)  # in the middle of whatever; the tracker then unlinks what nobody took


def explain_death(error: Exception) -> Exception | None:
    """Why the system ended a worker and what helps; None for any other error."""
    found = _KILLED.search(str(error))
    signal = int(found[1]) if found else 0
    if signal == _SIGBUS:
        free = shutil.disk_usage(FOLDER).free if FOLDER.is_dir() else 0
        return RuntimeError(
            f"a data worker died by SIGBUS, as it does where shared memory is full: {FOLDER} has "
            f"{free / 1e6:.1f} MB left; something else fills it, or give it more (a container's "
            "--shm-size), use fewer data.workers or data.prefetch, or --set data.workers=0; the "
            "same command continues after the last checkpoint"
        )
    if signal == _SIGKILL:
        return RuntimeError(
            "a data worker was killed (SIGKILL), as the system does where memory is full; use "
            "fewer data.workers or data.prefetch, or --set data.workers=0; the same command "
            "continues after the last checkpoint"
        )
    if ended := _ENDED.search(str(error)):
        return RuntimeError(
            f"a data worker ended by itself (exit code {ended[1]}); its own error is above. If it "
            "found no memory (MemoryError, 'failed to map', 'Cannot allocate'), use fewer "
            "data.workers or data.prefetch, or --set data.workers=0; the same command continues "
            "after the last checkpoint"
        )
    return None
