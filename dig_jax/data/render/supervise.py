"""Keep render workers busy, replace those that die, and give back their pairs.

Workers are separate programs (`python -m dig_jax.data.render.blender`, or `.raytrace` where the
look's renderer is numpy); this side never imports bpy.
"""

from __future__ import annotations

import base64
import dataclasses
import importlib.util
import json
import os
import selectors
import shutil
import subprocess
import sys
import tempfile
import time
from collections import Counter, deque
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from pathlib import Path

from dig_jax.common import machine
from dig_jax.data.render.produce import Request, request_to_json
from dig_jax.data.scene.look import SceneConfig

_PROGRAMS = {"bpy": "dig_jax.data.render.blender", "numpy": "dig_jax.data.render.raytrace"}
_START_LIMIT_S = 180.0
_PAIR_LIMIT_S = 60.0
_SCRATCH = "dig_jax_"
_RECYCLE = 1000  # pairs: Blender grows by some kB per render
_MOST_DEATHS = 2
_DEATHS_WITHOUT_A_PAIR = 8  # and a pair per worker: past it nothing works, not just one pair
_MOST_SLOW_STARTS = 3  # in a row: a crowded machine is slow for a while, not for ever
_NO_MEMORY = ("MemoryError", "bad_alloc", "Cannot allocate memory")  # NumPy's, C++'s, the system's
_ASLEEP_S = 5.0  # a turn takes about a second; longer means this process was not run at all


class RenderFailed(RuntimeError):
    """Some pairs could not be made; everything that could be was kept."""


@dataclass(frozen=True)
class Made:
    """One finished pair."""

    idx: int
    record: bytes
    dropped: Counter
    cpu_s: float
    renderer: str  # its version


def check_renderer(config: SceneConfig) -> None:
    """Fail early, with the remedy, where this Python has no Blender module."""
    if config.renderer == "bpy" and importlib.util.find_spec("bpy") is None:
        version = ".".join(map(str, sys.version_info[:3]))
        raise RuntimeError(
            f"Blender's `bpy` module is not installed for this Python {version}; rendering needs "
            "Python 3.13 and the [render] extra: pip install -e '.[render]' (or, for tests and "
            "notebooks only, --set look.renderer=numpy)"
        )


def render_pairs(
    config: SceneConfig,
    requests: Iterable[Request],
    workers: int,
    command: tuple[str, ...] | None = None,
    pair_limit_s: float = _PAIR_LIMIT_S,
    start_limit_s: float = _START_LIMIT_S,
) -> Iterator[Made]:
    """Every requested pair, in the order in which they get done.

    command   the worker program; None = that of config.renderer

    A worker that dies or takes longer than pair_limit_s on one pair is replaced and the pair
    asked for again, with twice the time; after two deaths the pair is set aside. Raises
    RenderFailed at the end where any pair was set aside, and at once where a worker's program
    ends before it is ready, three in a row are not ready in time, or workers keep dying and no
    pair gets done.
    """
    if workers < 1:
        raise ValueError(f"workers={workers} must be at least 1; use one per core")
    command = command or (sys.executable, "-m", _PROGRAMS[config.renderer])
    _sweep_scratch()
    pool = _Pool(config, command, (pair_limit_s, start_limit_s), _Queue(requests), workers)
    try:
        while len(pool.workers) < workers and len(pool.workers) < pool.queue.at_least(workers):
            pool.start()
        while pool.queue or pool.busy():
            yield from pool.turn()
    finally:
        pool.close()
    if pool.failed:
        lines = "\n  ".join(f"idx {idx}: {text}" for idx, text in sorted(pool.failed.items()))
        raise RenderFailed(f"{len(pool.failed)} pairs could not be made:\n  {lines}")


class _Queue:
    """Jobs not yet given out: those of a dead worker, then the rest, read as they are needed."""

    def __init__(self, requests: Iterable[Request]):
        self._rest = iter(requests)
        self._again: deque[Request] = deque()

    def at_least(self, count: int) -> int:
        """How many jobs are left, counted up to `count`."""
        while len(self._again) < count and (request := next(self._rest, None)) is not None:
            self._again.append(request)
        return min(len(self._again), count)

    def __bool__(self) -> bool:
        return self.at_least(1) > 0

    def pop(self) -> Request:
        self.at_least(1)
        return self._again.popleft()

    def put_back(self, request: Request) -> None:
        self._again.append(request)


@dataclass
class _Worker:
    process: subprocess.Popen
    errors: object  # temporary file with the worker's stderr
    scratch: str  # folder of its own, in shared memory where there is any
    since: float
    renderer: str = ""  # empty until the worker has said that it is ready
    job: Request | None = None
    served: int = 0
    buffer: bytearray = field(default_factory=bytearray)

    def send(self, line: dict) -> None:
        try:
            self.process.stdin.write(json.dumps(line).encode() + b"\n")
            self.process.stdin.flush()
        except BrokenPipeError:
            return  # its stdout is at an end too, and that is where a death is handled

    def complaint(self) -> str:
        self.errors.seek(0)
        return self.errors.read().decode(errors="replace").strip()[-600:]


class _Pool:
    """The running workers and the jobs not yet done."""

    def __init__(self, config, command, limits_s, queue, most_workers):
        self.config, self.command, self.most_workers = config, command, most_workers
        self.pair_limit_s, self.start_limit_s = limits_s
        self.queue = queue
        self.workers: list[_Worker] = []
        self.deaths: Counter = Counter()
        self.slow_starts = 0
        self.barren_deaths = 0  # since a pair was last made
        self.last_turn = time.monotonic()
        self.failed: dict[int, str] = {}
        self.selector = selectors.DefaultSelector()

    def busy(self) -> bool:
        return any(worker.job for worker in self.workers)

    def start(self) -> None:
        errors = tempfile.TemporaryFile()
        process = subprocess.Popen(
            self.command,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=errors,
            env=_worker_environment(),
        )
        scratch = tempfile.mkdtemp(prefix=f"{_SCRATCH}{os.getpid()}_", dir=scratch_root())
        worker = _Worker(process, errors, scratch, time.monotonic())
        self.workers.append(worker)
        self.selector.register(process.stdout, selectors.EVENT_READ, worker)
        config = dataclasses.asdict(self.config)
        worker.send({"config": config, "scratch": scratch, "parent": os.getpid()})

    def turn(self) -> Iterator[Made]:
        """Wait for something to happen, and deal with it."""
        for key, _ in self.selector.select(timeout=1.0):
            worker = key.data
            data = os.read(worker.process.stdout.fileno(), 1 << 20)
            if not data:
                self._bury(worker, f"exit status {worker.process.wait()}")
                continue
            worker.buffer += data
            *lines, rest = worker.buffer.split(b"\n")
            worker.buffer = bytearray(rest)
            for line in lines:
                yield from self._hear(worker, json.loads(line))
        self._forgive_sleep()
        for worker in list(self.workers):
            limit = self._limit_s(worker)
            if limit and time.monotonic() - worker.since > limit:
                worker.process.kill()
                self._bury(worker, f"no answer in {limit:.0f} s", timed_out=True)

    def _limit_s(self, worker: _Worker) -> float:
        """How long the worker may take for what it does now; 0 where it does nothing."""
        if not worker.renderer:
            return self.start_limit_s
        return self.pair_limit_s * (1 + self.deaths[worker.job.idx]) if worker.job else 0.0

    def _forgive_sleep(self) -> None:
        """Do not count time in which this process, and so perhaps its workers, stood still."""
        now = time.monotonic()
        for worker in self.workers:
            worker.since += max(now - self.last_turn - _ASLEEP_S, 0.0)
        self.last_turn = now

    def _hear(self, worker: _Worker, reply: dict) -> Iterator[Made]:
        if "ready" in reply:
            worker.renderer = reply["ready"]
            self.slow_starts = 0
        elif "failed" in reply:
            self.failed[reply["idx"]] = reply["failed"]
        else:
            self.barren_deaths = 0
            yield Made(
                reply["idx"],
                base64.b64decode(reply["record"]),
                Counter(reply["dropped"]),
                reply["cpu_s"],
                worker.renderer,
            )
        worker.job = None
        if worker.served >= _RECYCLE and self.queue:
            self._retire(worker)
            self.start()
        elif self.queue:
            worker.job = self.queue.pop()
            worker.served += 1
            worker.since = time.monotonic()
            worker.send(request_to_json(worker.job))

    def _bury(self, worker: _Worker, cause: str, timed_out: bool = False) -> None:
        """Give a dead worker's job back and start another one."""
        complaint, job, started = worker.complaint(), worker.job, bool(worker.renderer)
        complaint += _memory_hint(cause, complaint)
        self._retire(worker)
        self.slow_starts += timed_out and not started
        if not started and (not timed_out or self.slow_starts >= _MOST_SLOW_STARTS):
            raise RenderFailed(f"a render worker did not start ({cause}): {complaint}")
        if job is not None:
            self.deaths[job.idx] += 1
            if self.deaths[job.idx] >= _MOST_DEATHS:
                self.failed[job.idx] = f"its worker died {_MOST_DEATHS} times ({cause}) {complaint}"
            else:
                self.queue.put_back(job)
            self.barren_deaths += 1
            if self.barren_deaths >= _DEATHS_WITHOUT_A_PAIR + self.most_workers:
                raise RenderFailed(
                    f"{self.barren_deaths} workers died and no pair got done in between; the "
                    f"last one: {cause}: {complaint}"
                )
        if self.queue:
            self.start()

    def _retire(self, worker: _Worker) -> None:
        self.selector.unregister(worker.process.stdout)
        self.workers.remove(worker)
        for pipe in (worker.process.stdin, worker.process.stdout):
            try:
                pipe.close()
            except BrokenPipeError:
                continue  # unsent bytes to a dead worker are of no interest
        try:
            worker.process.wait(timeout=10)
        except subprocess.TimeoutExpired:
            worker.process.kill()
            worker.process.wait()
        worker.errors.close()
        shutil.rmtree(worker.scratch, ignore_errors=True)  # the worker does it too, if it can

    def close(self) -> None:
        for worker in list(self.workers):
            if worker.job is not None:
                worker.process.kill()
            self._retire(worker)
        self.selector.close()


def _memory_hint(cause: str, complaint: str) -> str:
    """What to do where a worker ended for want of memory; empty for any other end."""
    if "exit status -9" not in cause and not any(word in complaint for word in _NO_MEMORY):
        return ""
    return "; it found no memory left: use fewer --workers, the same command continues"


def scratch_root() -> Path:
    """Shared memory where there is any; else the system's own temporary folder."""
    return Path("/dev/shm" if os.access("/dev/shm", os.W_OK) else tempfile.gettempdir())


def _sweep_scratch() -> None:
    """Remove what workers of a killed supervisor left behind."""
    for folder in scratch_root().glob(f"{_SCRATCH}*_*"):
        pid = folder.name.removeprefix(_SCRATCH).partition("_")[0]
        if pid.isdigit() and not machine.is_running(int(pid)):
            shutil.rmtree(folder, ignore_errors=True)


def _worker_environment() -> dict[str, str]:
    """One thread per worker, and this package importable there."""
    home = str(Path(__file__).parents[3])
    paths = [home, *filter(None, [os.environ.get("PYTHONPATH")])]
    single = {name: "1" for name in ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS")}
    return {**os.environ, **single, "PYTHONPATH": os.pathsep.join(paths)}
