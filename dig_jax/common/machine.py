"""The machine: its processor, because renders repeat byte for byte only on one family of them."""

import functools
import os
import platform
from pathlib import Path


@functools.cache
def cpu_family() -> str:
    """Architecture and widest vector instructions: "x86_64 avx2", "aarch64" ...

    Cycles and its denoiser pick their kernels by these.
    """
    flags = set()
    info = Path("/proc/cpuinfo")
    if info.is_file():
        lines = [line for line in info.read_text().splitlines() if line.startswith("flags")]
        flags = set(lines[0].split()) if lines else set()
    widest = next((f for f in ("avx512f", "avx2", "avx", "sse4_2") if f in flags), "")
    return f"{platform.machine()} {widest}".strip()


def is_running(pid: int) -> bool:
    """Whether a process of this machine is still there."""
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        return True  # somebody else's
    return True


def started(pid: int) -> str | None:
    """When a process of this machine was started, as text; None where there is none that runs.

    With it a number that was given to another process since is not taken for the first. "" for a
    process of which the system does not tell.
    """
    try:
        state, *rest = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    except (FileNotFoundError, ProcessLookupError, PermissionError):
        return "" if is_running(pid) else None
    return None if state in "ZX" else rest[18]


@functools.cache
def boot() -> str:
    """Tells machines, their boots and the containers of one of them apart; "" where it cannot."""
    try:
        number = Path("/proc/sys/kernel/random/boot_id").read_text().strip()
        return f"{number} {os.readlink('/proc/self/ns/pid')}"
    except OSError:
        return ""
