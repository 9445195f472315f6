"""The run folder's paper trail: metrics.jsonl, config.json, manifest.json, one line per step.

Trackers such as TensorBoard are told every row that metrics.jsonl has got.

A metrics row holds quantities that a rerun repeats bit for bit; wall-clock quantities carry the
prefix `time/`, so that two runs can be compared (`comparable`). Process 0 alone writes.
"""

import contextlib
import json
import math
import statistics
import sys
import time
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import jax
import numpy as np

from dig_jax.common import rows
from dig_jax.common.files import telling_room, write_text
from dig_jax.config import Config
from dig_jax.run import checkpoint, manifest, resume
from dig_jax.run.trackers import Trackers, open_trackers

METRICS = "metrics.jsonl"
IDLE_STEPS = 10  # in a row without an advantage, after which a warning is due
_IDLE = (
    "nothing is learned (docs/watching.md). Are all rewards of a group alike (reward, flat_groups, "
    "samples.jsonl), or all answers cut off and masked (truncated, rollout.max_tokens)?"
)


class RunLog:
    """Writes one run's rows and lines; a context manager, so that the trackers are closed.

    Opening it at `first_step` moves the rows of that step and later ones, which will be computed
    again, to metrics.replaced.jsonl; earlier rows stay as they are. Rows of a validation before
    step 0 bear the step -1.
    """

    def __init__(self, cfg: Config, first_step: int = 0, *, shown: Iterable[str] = ()):
        self._cfg, self._steps = cfg, cfg.steps
        self._shown = tuple(shown)
        self._times: dict[str, float] = {}
        self._step_s: list[float] = []
        self._mark = time.perf_counter()
        self._compiled = 0.0
        jax.monitoring.register_event_duration_secs_listener(self._hear)
        self._file, self._trackers, self._idle = None, Trackers(), 0
        if jax.process_index() == 0:
            folder = Path(cfg.run_dir)
            folder.mkdir(parents=True, exist_ok=True)
            run = checkpoint.run_number(cfg, first_step)
            kept, replaced = drop_rows(folder / METRICS, first_step, run)
            if gap := told_gap(kept, first_step):
                print(f"{gap}; the run goes on without", flush=True)
            for row in (row for row in kept if row["kind"] == "train"):
                self._idle = self._idle + 1 if is_idle(row) else 0
            run = resume.tell_start(cfg, first_step)
            self._crc = rows.read_lines(folder / METRICS, run)[1]
            self._file = folder / METRICS
            self._trackers = open_trackers(cfg, first_step, kept, replaced)

    def __enter__(self) -> "RunLog":
        return self

    def __exit__(self, *exception) -> None:
        self._trackers.close()

    @contextlib.contextmanager
    def timed(self, name: str) -> Iterator[None]:
        """Adds the block's seconds to `time/<name>` of the next row.

        JAX returns before it has computed: end the block with a value on the host.
        """
        start = time.perf_counter()
        try:
            yield
        finally:
            spent = time.perf_counter() - start
            self._times[name] = self._times.get(name, 0.0) + spent

    def write(
        self,
        step: int,
        metrics: Mapping[str, Any],
        *,
        stage: int | None = None,
        kind: str = "train",
    ) -> None:
        """Appends a row {kind, step, stage, metrics, time/*} and prints its line.

        metrics   name -> scalar, on device or host; names with `time/` are wall-clock

        A metric that is not finite is written as text, then raises FloatingPointError naming
        it: training on would only hide where it came from.
        """
        values = {
            name: _scalar(name, value) for name, value in jax.device_get(dict(metrics)).items()
        }
        now = time.perf_counter()
        times = {"step": now - self._mark, **self._times, "compile": self._compiled}
        self._mark, self._times, self._compiled = now, {}, 0.0
        row = {"kind": kind, "step": int(step), **({} if stage is None else {"stage": int(stage)})}
        row |= {**values, **{f"time/{name}": round(spent, 4) for name, spent in times.items()}}
        if kind == "train":
            self._step_s = [*self._step_s[-8:], times["step"]]
        if kind == "train":
            self._idle = self._idle + 1 if is_idle(row) else 0
            if self._idle == IDLE_STEPS and self._file:
                row["warning"] = f"no answer had an advantage in the last {IDLE_STEPS} steps"
                print(f"warning: {row['warning']}: {_IDLE}", flush=True)
        if self._file:
            finite = {k: v if _is_finite(v) else str(v) for k, v in row.items()}
            line, self._crc = rows.line_of(finite, self._crc)
            _append(self._file, line)
            self._trackers.row(finite)
            print(self._line(row), flush=True)
        wrong = {name: value for name, value in values.items() if not _is_finite(value)}
        if wrong:
            name, value = next(iter(wrong.items()))
            if self._file:
                manifest.add_stop(self._cfg, step, f"{name}={value}")
            raise FloatingPointError(
                f"step {step}: {name}={value} is not finite ({len(wrong)} such metrics); the row "
                f"is in {METRICS}; look at the batch of this step, lower optim.rate, and start "
                f"again: the run continues from its checkpoint"
            )

    def show(self, step: int, name: str, picture: np.ndarray) -> None:
        """Gives the trackers a picture u8[Y,X,3] made after the row of `step`."""
        self._trackers.image(step + 1, name, picture)

    def _hear(self, event: str, seconds: float, **_) -> None:
        """Adds XLA's compilations to `time/compile` of the next row (they lie in other phases)."""
        if event.endswith("backend_compile_duration"):
            self._compiled += seconds

    def _line(self, row: dict[str, Any]) -> str:
        stage = f" stage {row['stage']}" if "stage" in row else ""
        done = row["step"] + 1
        if row["kind"] != "train":
            numbers = _by_group(row, (*self._shown, "empty"))
            return f"{row['kind']} after {done}/{self._steps} steps{stage}  {numbers}"
        shown = [name for name in self._shown if name in row] or [
            name for name in row if name not in ("kind", "step", "stage") and "/" not in name
        ]
        numbers = "  ".join(f"{name} {_short(row[name])}" for name in shown)
        filled = 10 * done // max(self._steps, done)
        left = (self._steps - done) * statistics.median(self._step_s)
        bar = "#" * filled + "-" * (10 - filled)
        pace = f"{row['time/step']:.1f} s, {_duration(left)} left"
        return f"[{bar}] step {done}/{self._steps}{stage}  {numbers}  ({pace})"


def _by_group(row: Mapping[str, Any], shown: Iterable[str]) -> str:
    """ "reward 2.1  f1 0.5", or "greedy: reward 2.1  f1 0.5   sampled: ..." for grouped names."""
    groups: dict[str, list[str]] = {}
    for path in row:
        group, _, name = path.rpartition("/")
        if name in shown and group != "time":
            groups.setdefault(group, []).append(f"{name} {_short(row[path])}")
    lines = [("", "  ".join(numbers)) for group, numbers in groups.items() if not group]
    lines += [(f"{group}: ", "  ".join(numbers)) for group, numbers in groups.items() if group]
    return "   ".join(head + numbers for head, numbers in lines)


def read_rows(
    run_dir: str | Path, *, kind: str | None = None, name: str = METRICS
) -> list[dict[str, Any]]:
    """The rows of a run, in order; a last line cut off by a kill is left out.

    name   the file of rows in the run folder

    Raises ValueError naming file and line where a line is no row, or not as it was written.
    """
    found = rows.read_rows(Path(run_dir) / name, manifest.number_of(run_dir))
    return [row for row in found if kind in (None, row.get("kind"))]


def is_idle(row: Mapping[str, Any]) -> bool:
    """Whether a training step had nothing to learn from: no answer was better than its group."""
    return row.get("flat_groups") == 1 or row.get("moved") == 0


def comparable(row: Mapping[str, Any]) -> dict[str, Any]:
    """The part of a row that a rerun must repeat exactly: everything but `time/`."""
    return {name: value for name, value in row.items() if not name.startswith("time/")}


def drop_rows(path: Path, first_step: int, run: str | None) -> tuple[list[dict], list[dict]]:
    """Moves the rows of step >= first_step from X.jsonl to X.replaced.jsonl.

    run   the number of the run, where it is known

    Nothing precedes step 0: with first_step 0 every row moves. Returns the rows that stay, with
    their lines as they are, and those that moved.
    """
    if not path.is_file():
        return [], []
    found, _ = rows.read_lines(path, run)
    stay = [first_step and row["step"] < first_step for row, _ in found]
    later = [row for (row, _), stays in zip(found, stay, strict=True) if not stays]
    if later:
        replaced = path.with_suffix(".replaced.jsonl")
        _append(replaced, "".join(json.dumps(row) + "\n" for row in later))
    kept = [one for one, stays in zip(found, stay, strict=True) if stays]
    write_text(path, "".join(f"{line}\n" for _, line in kept))
    return [row for row, _ in kept], later


def append_rows(path: Path, new: Iterable[Mapping[str, Any]], run: str | None) -> None:
    """Adds rows to a file of a run with that number."""
    lines, crc = [], rows.read_lines(path, run)[1]
    for row in new:
        line, crc = rows.line_of(row, crc)
        lines.append(line)
    _append(path, "".join(lines))


def _append(path: Path, text: str) -> None:
    """Raises NoRoom; of a line that was cut off there the next start reads nothing."""
    with telling_room(path), path.open("a", encoding="utf-8") as file:
        file.write(text)


def told_gap(kept: Sequence[Mapping], first_step: int) -> str:
    """What to say where the rows of a run do not reach its checkpoint; or ""."""
    steps = [row["step"] for row in kept if row["kind"] == "train"]
    last = max(steps, default=-1)
    if last + 1 >= first_step:
        return ""
    return f"{METRICS} lacks the rows of steps {last + 2} to {first_step}"


def progress(items: Iterable, label: str, total: int | None = None) -> Iterator:
    """Yields the items under a bar: live on a terminal, else a line every ten seconds."""
    total = len(items) if total is None else total
    if jax.process_index() != 0:
        yield from items
    elif sys.stdout.isatty():
        from rich.progress import track

        yield from track(items, description=label, total=total, transient=True)
    else:
        start = said = time.perf_counter()
        for done, item in enumerate(items, start=1):
            yield item
            now = time.perf_counter()
            if now - said > 10:
                left = (total - done) * (now - start) / done
                print(f"{label} {done}/{total} ({_duration(left)} left)", flush=True)
                said = now


def _scalar(name: str, value: Any) -> Any:
    if isinstance(value, str):
        return value
    if getattr(value, "shape", ()) != ():
        raise ValueError(f"metric {name} has shape {value.shape}; reduce it to a scalar first")
    return value.item() if hasattr(value, "item") else value


def _is_finite(value: Any) -> bool:
    return not isinstance(value, float) or math.isfinite(value)


def _short(value: Any) -> str:
    return f"{value:.4g}" if isinstance(value, float) else str(value)


def _duration(seconds: float) -> str:
    if seconds < 90:
        return f"{seconds:.0f} s"
    return f"{seconds / 60:.0f} min" if seconds < 5400 else f"{seconds / 3600:.1f} h"
