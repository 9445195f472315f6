"""Runs as chains of programs in folders of their own: any of them can be killed and gone on with.

A run's folder is `dig_jax.train`'s, with the configs as files, a log per program and a lock. What
is done is seen from the files alone, so a rerun of the command does what is left. A program holds
its run's lock: one that outlived a killed command is waited for, never started twice.
"""

import fcntl
import os
import queue
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor, as_completed
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from dig_jax.common import typed
from dig_jax.common.files import write_text
from dig_jax.config import Config, from_json, to_json
from dig_jax.run.checkpoint import latest_step
from dig_jax.scoring.table import read_evaluation
from scripts.study.ablation.plan import PIXELS

REPOSITORY = Path(__file__).resolve().parents[3]
# Evaluation -> the split that it is of; none: the held-out pairs. Subtracting fails on two of them,
# and colours stand on other shapes in the third.
MODES = {
    "sampled": "",
    "greedy": "",
    "noise": "test_noise",
    "jitter": "test_jitter",
    "novel": "test_novel",
}
# Who answers -> words of `dig_jax.evaluate`.
_WHO = {"untrained": (), "trained": ("--from-run",), "pixels": ("--pixel-diff",)}
USUAL = ("sampled", "greedy")
_EXAM = "sampled"  # the evaluation beside which the others are made, by one program
_COMMANDS = {"grpo": "dig_jax.train", "sft": "dig_jax.sft"}
_CONFIG = """from pathlib import Path

from dig_jax.config import from_json


def get_config():
    return from_json(Path(__file__).with_suffix(".json").read_text())
"""


@dataclass(frozen=True)
class Stage:
    """One program of a run.

    name     of its log
    words    after `python -m`
    done     whether its result is on disk
    """

    name: str
    words: tuple[str, ...]
    done: Callable[[], bool]


@dataclass(frozen=True)
class Job:
    """A run's stages in order, in its folder."""

    name: str
    folder: Path
    stages: tuple[Stage, ...]

    @property
    def done(self) -> bool:
        return all(stage.done() for stage in self.stages)


@dataclass(frozen=True)
class Outcome:
    """What became of a job: seconds of wall time spent now, and the failed stage's log if any."""

    job: Job
    spent_s: float
    failed: str | None = None
    tail: str = ""


def train_stage(folder: Path, config: Config) -> Stage:
    """The command of the configuration's learner on the folder's `train.py`."""
    words = (_COMMANDS[config.learner], "--config", str(folder / "train.py"))
    return Stage("train", words, lambda: latest_step(folder) == config.steps)


def exam_stage(folder: Path, modes: Sequence[str], who: str) -> Stage:
    """`dig_jax.evaluate` on the folder's `exam.py`: sampled answers, and all that is wanted beside.

    who   "untrained", "trained" or, without a model, "pixels"
    """
    words = ("dig_jax.evaluate", "--config", str(folder / "exam.py"), "--name", _EXAM, *_WHO[who])
    if set(modes) != {_EXAM}:
        words += ("--more", "--set", f"eval.splits={','.join(splits_of(modes))}")
    return Stage("evaluate", words, lambda: all(exam_file(folder, m).is_file() for m in modes))


def splits_of(modes: Sequence[str]) -> list[str]:
    """The splits that modes are of, beside the held-out pairs."""
    return [MODES[mode] for mode in modes if MODES[mode]]


def exam_file(folder: Path, mode: str) -> Path:
    """Where the evaluation of a mode is; a policy without a model has one answer to a pair."""
    is_exam = mode == _EXAM or (folder.name == PIXELS and not MODES[mode])
    return folder / f"eval_{_EXAM if is_exam else f'{_EXAM}_{MODES[mode] or mode}'}.json"


def write_config(path: Path, config: Config) -> None:
    """A file for --config beside its JSON; refuses a folder that holds another configuration.

    path   <folder>/<name>.py
    """
    saved = path.with_suffix(".json")
    if saved.is_file():
        changed = typed.differences(from_json(saved.read_text()), config)
        lines = "\n".join(
            f"  {field}: {old!r}, now {new!r}" for field, (old, new) in changed.items()
        )
        if changed:
            raise ValueError(
                f"{saved} differs from what is asked for:\n{lines}\n"
                f"use another --root, or set these back to go on with that one"
            )
    path.parent.mkdir(parents=True, exist_ok=True)
    write_text(saved, to_json(config))
    write_text(path, _CONFIG)


def run_jobs(jobs: Sequence[Job], *, at_once: int, say: Callable[[str], None]) -> list[Outcome]:
    """Every job's missing stages, `at_once` jobs side by side, each on a core of its own.

    say   takes a line when a stage starts or a job ends

    A failed job does not stop the others. With one job at a time nothing is pinned: it may use
    every core, or the accelerator. Ctrl-C and SIGTERM (as KeyboardInterrupt) end the programs.
    """
    pool = _Pool(at_once, say)
    with ThreadPoolExecutor(at_once, initializer=pool.pin) as threads:
        waiting = [threads.submit(pool.run, job) for job in jobs]
        try:
            return [future.result() for future in as_completed(waiting)]
        except BaseException:
            threads.shutdown(wait=False, cancel_futures=True)
            pool.stop()
            raise


class _Pool:
    """The cores and the programs that are running on them."""

    def __init__(self, at_once: int, say: Callable[[str], None]):
        self._say = say
        self._env = child_environment(at_once)
        self._cores: queue.SimpleQueue[int] = queue.SimpleQueue()
        self._running: set[subprocess.Popen] = set()
        self._stopped = threading.Event()
        if at_once > 1 and hasattr(os, "sched_setaffinity"):
            for core in sorted(os.sched_getaffinity(0))[:at_once]:
                self._cores.put(core)

    def pin(self) -> None:
        """Binds this thread, and with it what it starts, to a core that no other thread has."""
        if not self._cores.empty():
            os.sched_setaffinity(0, {self._cores.get()})  # 0: this thread alone

    def run(self, job: Job) -> Outcome:
        start = time.perf_counter()
        if job.done:
            return Outcome(job, 0.0)
        with locked(job, self._say) as lock:
            for stage in job.stages:
                if self._stopped.is_set() or stage.done():
                    continue
                self._say(f"{job.name}: {stage.name}")
                log = job.folder / f"{stage.name}.log"
                code = self._program(stage, log, lock)
                if code or not stage.done():
                    spent = time.perf_counter() - start
                    if not self._stopped.is_set():
                        self._say(f"{job.name}: {stage.name} FAILED, exit code {code}")
                    return Outcome(job, spent, f"{stage.name} (exit code {code})", tail(log))
        spent = time.perf_counter() - start
        self._say(f"{job.name}: finished after {spent:.0f} s")
        return Outcome(job, spent)

    def _program(self, stage: Stage, log: Path, lock: int) -> int:
        with log.open("ab") as out:
            program = subprocess.Popen(
                [sys.executable, "-m", *stage.words],
                stdout=out,
                stderr=subprocess.STDOUT,
                stdin=subprocess.DEVNULL,
                env=self._env,
                pass_fds=(lock,),  # the lock is free when the last holder has ended
            )
        os.ftruncate(lock, 0)
        os.pwrite(lock, str(program.pid).encode(), 0)
        self._running.add(program)
        if self._stopped.is_set():
            program.terminate()
        code = program.wait()
        self._running.discard(program)
        return code

    def stop(self) -> None:
        self._stopped.set()
        for program in list(self._running):
            program.terminate()


@contextmanager
def locked(job: Job, say: Callable[[str], None]) -> Iterator[int]:
    """The run's lock as a file descriptor, waiting for whoever holds it."""
    job.folder.mkdir(parents=True, exist_ok=True)
    lock = os.open(job.folder / ".lock", os.O_RDWR | os.O_CREAT)
    try:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            holder = os.pread(lock, 32, 0).decode() or "unknown"
            say(f"{job.name}: process {holder} of another command is at work on it; waiting")
            fcntl.flock(lock, fcntl.LOCK_EX)
        yield lock
    finally:
        os.close(lock)


def child_environment(at_once: int) -> dict[str, str]:
    """Environment of the programs: compiled programs kept; one thread each if several run."""
    cache = {
        "JAX_COMPILATION_CACHE_DIR": str(REPOSITORY / ".cache" / "jax"),
        "JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS": "0.2",
        "GLIBC_TUNABLES": "glibc.malloc.hugetlb=1",  # large arrays in huge pages
        "HF_HUB_OFFLINE": "1",
        "TRANSFORMERS_VERBOSITY": "error",
        "TF_CPP_MIN_LOG_LEVEL": "2",
        "PYTHONUNBUFFERED": "1",
    }
    threads = ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS")
    single = {"JAX_PLATFORMS": "cpu", **dict.fromkeys(threads, "1")} if at_once > 1 else {}
    return {**cache, **os.environ, **single}


def tail(log: Path, lines: int = 20) -> str:
    """The last lines of a log."""
    return "\n".join(log.read_text(errors="replace").splitlines()[-lines:])


def read_exam(folder: Path, mode: str) -> list[dict] | None:
    """The rows of a mode's evaluation, one per pair; None where it is not made."""
    path = exam_file(folder, mode)
    return read_evaluation(path)["rows"] if path.is_file() else None
