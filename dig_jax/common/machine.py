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
