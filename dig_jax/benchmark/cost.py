"""What answering cost: a row for every sitting of a share, seconds of compiling apart.

D/NAME/cost.jsonl, cost-I-of-N.jsonl   {"answers", "tokens", "seconds", "compiling", "device",
                                       "devices"} a line; a sitting that was killed has none

Beside the result and not in it: equal answers give equal results, whatever they took.
"""

from __future__ import annotations

import contextlib
import functools
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import jax

from dig_jax.benchmark.store import appending
from dig_jax.common.rows import read_rows


class _Compiled:
    """Seconds that XLA compiled in this process, from the first look on."""

    def __init__(self):
        self.seconds = 0.0
        jax.monitoring.register_event_duration_secs_listener(self._heard)

    def _heard(self, event: str, seconds: float, **_) -> None:
        if event.endswith("/backend_compile_duration"):
            self.seconds += seconds


_compiled = functools.cache(_Compiled)  # JAX keeps a listener for good: one is enough


@contextlib.contextmanager
def told(path: Path, devices: int) -> Iterator[dict[str, int]]:
    """A row of what is done within it, also where it is left by an error; none of no answer.

    -> counts "answers" and "tokens", for the caller to raise
    """
    compiled, counts = _compiled(), {"answers": 0, "tokens": 0}
    start, before = time.perf_counter(), compiled.seconds
    try:
        yield counts
    finally:
        if counts["answers"]:
            row: dict[str, Any] = {
                **counts,
                "seconds": round(time.perf_counter() - start, 2),
                "compiling": round(compiled.seconds - before, 2),
                "device": jax.devices()[0].device_kind,
                "devices": devices,
            }
            with appending(path) as write:
                write([row])


def read_cost(folder: Path) -> dict[str, Any]:
    """The sums over all sittings of a benchmark's folder; {} where none is told."""
    found = [row for path in sorted(folder.glob("cost*.jsonl")) for row in read_rows(path)]
    if not found:
        return {}
    sums = {
        name: sum(row.get(name) or 0 for row in found)
        for name in ("answers", "tokens", "seconds", "compiling")
    }
    on = {f"{row.get('devices')} x {row.get('device')}" for row in found}
    return sums | {"sittings": len(found), "on": ", ".join(sorted(on))}
