"""What a server tells of itself, in Prometheus' text format."""

import threading
import time
from bisect import bisect_left
from collections import Counter, deque

import jax

_SECONDS = (0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60, 120, 300)  # upper ends of bins
_WINDOW_S = 10.0  # over which tokens per second are counted


class Metrics:
    """Counters that the threads of a server share."""

    def __init__(self, rows: int):
        self.lock = threading.Lock()
        self.rows, self.busy, self.queue = rows, 0, 0
        self.tokens: Counter[str] = Counter()
        self.requests: Counter[int] = Counter()
        self.bins: dict[str, list[int]] = {name: [0] * (len(_SECONDS) + 1) for name in _TIMES}
        self.sums = dict.fromkeys(_TIMES, 0.0)
        self.recent: deque[tuple[float, int]] = deque()
        self.compiled = 0
        jax.monitoring.register_event_duration_secs_listener(self._heard)

    def _heard(self, event: str, seconds: float, **_) -> None:
        self.compiled += event.endswith("/backend_compile_duration")

    def drawn(self, tokens: int) -> None:
        with self.lock:
            now = time.monotonic()
            self.tokens["answer"] += tokens
            self.recent.append((now, tokens))
            while now - self.recent[0][0] > _WINDOW_S:
                self.recent.popleft()

    def read(self, tokens: int) -> None:
        with self.lock:
            self.tokens["prompt"] += tokens

    def ended(self, status: int) -> None:
        with self.lock:
            self.requests[status] += 1

    def took(self, name: str, seconds: float) -> None:
        with self.lock:
            self.bins[name][bisect_left(_SECONDS, seconds)] += 1
            self.sums[name] += seconds

    def typical(self) -> float:
        """Seconds of a request, on average; 1 where there was none yet."""
        count = sum(self.bins["request_seconds"])
        return self.sums["request_seconds"] / count if count else 1.0

    def text(self) -> str:
        """The page /metrics."""
        with self.lock:
            now = time.monotonic()
            rate = sum(n for when, n in self.recent if now - when <= _WINDOW_S) / _WINDOW_S
            lines = [
                *_told("queue", "gauge", "requests that wait for a row", self.queue),
                *_told("rows", "gauge", "rows that answer at a time", self.rows),
                *_told("rows_busy", "gauge", "rows that are answering", self.busy),
                *_told("tokens_per_second", "gauge", f"drawn, over {_WINDOW_S:.0f} s", rate),
                *_told("compiled_total", "counter", "programs since the start", self.compiled),
                *_labelled("tokens_total", "prompt read, answer drawn", "kind", self.tokens),
                *_labelled("requests_total", "by HTTP status", "status", self.requests),
            ]
            for name, what in _TIMES.items():
                lines += _histogram(name, what, self.bins[name], self.sums[name])
        return "\n".join(lines) + "\n"


_TIMES = {
    "request_seconds": "from a request's first byte to its answer's last",
    "first_token_seconds": "from a question's place in the queue to its first tokens",
}


def _told(name: str, kind: str, what: str, value: float) -> list[str]:
    return [*_head(name, kind, what), f"dig_jax_{name} {value:g}"]


def _labelled(name: str, what: str, label: str, values: Counter) -> list[str]:
    rows = [f'dig_jax_{name}{{{label}="{key}"}} {n}' for key, n in sorted(values.items())]
    return [*_head(name, "counter", what), *rows]


def _histogram(name: str, what: str, counts: list[int], total: float) -> list[str]:
    lines, below = _head(name, "histogram", what), 0
    for end, count in zip((*_SECONDS, "+Inf"), counts, strict=True):
        below += count
        lines.append(f'dig_jax_{name}_bucket{{le="{end}"}} {below}')
    return [*lines, f"dig_jax_{name}_sum {total:.6f}", f"dig_jax_{name}_count {below}"]


def _head(name: str, kind: str, what: str) -> list[str]:
    return [f"# HELP dig_jax_{name} {what}", f"# TYPE dig_jax_{name} {kind}"]
