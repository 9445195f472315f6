"""Real disks of a few megabytes, and programs with little shared memory.

Mounting needs rights that a container may not have: `needs_mounts` skips then, and says so.
"""

import contextlib
import functools
import os
import subprocess
import sys

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


def run_python(code, *, shm_kilobytes=None):
    """Run a program; with its own /dev/shm of that size if one is given."""
    argv = [sys.executable, "-c", code]
    if shm_kilobytes is not None:
        mount = f'mount -t tmpfs -o size={shm_kilobytes}k tmpfs /dev/shm && exec "$@"'
        argv = ["unshare", "-m", "sh", "-c", mount, "sh", *argv]
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    return subprocess.run(argv, env=environment, capture_output=True, text=True, timeout=240)
