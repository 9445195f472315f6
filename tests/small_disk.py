"""Real disks of a few megabytes, and programs with little shared memory.

Mounting needs rights that a container may not have: `needs_mounts` skips then, and says so.
"""

import contextlib
import functools
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from tests import ROOT


@functools.cache
def _can_mount() -> bool:
    if sys.platform != "linux" or os.geteuid() != 0:
        return False
    probe = ["unshare", "-m", "mount", "-t", "tmpfs", "-o", "size=64k", "tmpfs", "/mnt"]
    try:
        return subprocess.run(probe, capture_output=True).returncode == 0
    except FileNotFoundError:
        return False


needs_mounts = pytest.mark.skipif(
    not _can_mount(), reason="NOT TESTED HERE: full disks need the right to mount a tmpfs (root)"
)


@contextlib.contextmanager
def mounted(folder, kilobytes):
    """A tmpfs of that size at `folder`, which is made; gone afterwards."""
    folder.mkdir(parents=True, exist_ok=True)
    _mount(f"size={kilobytes}k", folder)
    try:
        yield folder
    finally:
        subprocess.run(["umount", "-l", str(folder)], check=True)


def grow(folder, kilobytes, read_only=False):
    """Give a mounted disk another size, or other rights, as somebody does who frees space."""
    _mount(f"remount,size={kilobytes}k,{'ro' if read_only else 'rw'}", folder)


def _mount(options, folder):
    subprocess.run(["mount", "-t", "tmpfs", "-o", options, "tmpfs", str(folder)], check=True)


def fill(folder):
    """Another program takes all that is left."""
    with (folder / "filler").open("wb", buffering=0) as file, contextlib.suppress(OSError):
        while True:
            file.write(b"x" * 4096)
    assert shutil.disk_usage(folder).free == 0


def leftovers(folder):
    return [path.name for path in Path(folder).rglob("*") if ".tmp-" in path.name]


def run_python(code, *, shm_kilobytes=None):
    """Run a program; with its own /dev/shm of that size if one is given."""
    return run_program([sys.executable, "-c", code], shm_kilobytes=shm_kilobytes)


def run_program(argv, *, shm_kilobytes=None, environment=None):
    """As `run_python`, of any command line."""
    if shm_kilobytes is not None:
        mount = f'mount -t tmpfs -o size={shm_kilobytes}k tmpfs /dev/shm && exec "$@"'
        argv = ["unshare", "-m", "sh", "-c", mount, "sh", *argv]
    environment = {**os.environ, "PYTHONPATH": str(ROOT), **(environment or {})}
    return subprocess.run(argv, env=environment, capture_output=True, text=True, timeout=240)
