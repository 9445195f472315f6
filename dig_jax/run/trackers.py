"""What watches a run from outside: TensorBoard always, Weights & Biases and trackio on request.

Trackers are fed the rows of metrics.jsonl, which stays the truth: one that fails is reported and
switched off, and the run goes on. Their step counts steps done, as the console does: the row of
step 0 stands at 1, a validation before it at 0. A resumed run goes on in the same tracked run.
"""

import contextlib
import importlib.util
import secrets
import sys
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any, Protocol

import numpy as np

from dig_jax.common.files import read_sealed, write_sealed
from dig_jax.common.typed import to_plain
from dig_jax.config import Config, LogConfig, config_text
from dig_jax.run.manifest import RUN, check_number, number_of

FOLDER = "tensorboard"
IDS = "trackers.json"  # in the run folder: the name that each tracker knows the run by


class Tracker(Protocol):
    """One place that shows a run. What it raises switches it off."""

    def scalars(self, step: int, values: Mapping[str, float]) -> None:
        """Numbers of a step, by names such as "train/reward"."""

    def image(self, step: int, name: str, picture: np.ndarray) -> None:
        """A picture u8[Y,X,3] of a step."""

    def close(self) -> None:
        """Everything told so far is written or sent."""


class TensorBoard:
    """Event files in <run_dir>/tensorboard; `tensorboard --logdir <run_dir>` shows them.

    purge   first step that this start tells again: TensorBoard hides what is there of it

    Written at once and by this thread: a killed run loses no row, and a full disk is an error
    here. (tensorboardX's SummaryWriter leaves both to a thread, whose end nobody hears of.)
    """

    def __init__(self, cfg: Config, purge: int):
        from tensorboardX import event_file_writer, summary  # half a second to import
        from tensorboardX.proto.event_pb2 import Event, SessionLog

        self._event, self._summary = Event, summary
        folder = Path(cfg.run_dir) / FOLDER
        folder.mkdir(parents=True, exist_ok=True)
        start = f".{len(list(folder.iterdir())):04d}"  # two starts in one second are two files
        self._file = event_file_writer.EventsWriter(str(folder / "events"), start)
        log = SessionLog(status=SessionLog.START)
        self._file.write_event(Event(step=purge, session_log=log, wall_time=time.time()))
        lines = "".join(f"    {line}\n" for line in config_text(cfg).splitlines())
        self._tell(purge, [summary.text("config", lines)])  # indented: Markdown's verbatim

    def scalars(self, step: int, values: Mapping[str, float]) -> None:
        self._tell(step, [self._summary.scalar(name, value) for name, value in values.items()])

    def image(self, step: int, name: str, picture: np.ndarray) -> None:
        self._tell(step, [self._summary.image(name, picture, dataformats="HWC")])

    def close(self) -> None:
        self._file.close()

    def _tell(self, step: int, summaries: Iterable[Any]) -> None:
        now = time.time()
        try:
            for each in summaries:
                self._file.write_event(self._event(step=step, summary=each, wall_time=now))
            self._file.flush()
        except OSError:  # closed now, not when it is collected: that prints a second error
            with contextlib.suppress(OSError):
                self._file._py_recordio_writer.close()
            raise


class Online:
    """Weights & Biases or trackio, whose interfaces agree in what is called here.

    module   wandb or trackio
    until    newest step that an earlier start told: rows before it are there already
    start    the arguments of the module's `init`
    """

    def __init__(self, module: Any, until: int, start: Mapping[str, Any]):
        self._module, self._until = module, until
        self._run = module.init(**start)

    def scalars(self, step: int, values: Mapping[str, float]) -> None:
        if step >= self._until:
            self._run.log(dict(values), step=step)

    def image(self, step: int, name: str, picture: np.ndarray) -> None:
        if step >= self._until:
            self._run.log({name: self._module.Image(picture)}, step=step)

    def close(self) -> None:
        self._run.finish()


class Trackers:
    """All trackers of a run; none of them can stop it."""

    def __init__(self):
        self._open: dict[str, Tracker] = {}

    def open(self, name: str, make: Callable[[], Tracker], past: Iterable[Mapping] = ()) -> None:
        """Adds a tracker and tells it the rows of the past that it has never seen."""
        tracker = self._guarded(name, make)
        if tracker is not None:
            self._open[name] = tracker
            for row in past:
                self._tell(name, "scalars", steps_done(row), scalars_of(row))

    def row(self, row: Mapping[str, Any]) -> None:
        """A row of metrics.jsonl."""
        for name in list(self._open):
            self._tell(name, "scalars", steps_done(row), scalars_of(row))

    def image(self, step: int, label: str, picture: np.ndarray) -> None:
        """A picture u8[Y,X,3] after `step` steps."""
        for name in list(self._open):
            self._tell(name, "image", step, label, picture)

    def close(self) -> None:
        for name in list(self._open):
            self._tell(name, "close")
        self._open.clear()

    def _tell(self, name: str, what: str, *values) -> None:
        if name in self._open:
            self._guarded(name, getattr(self._open[name], what), *values)

    def _guarded(self, name: str, call: Callable, *values) -> Any:
        try:
            return call(*values)
        except Exception as error:  # a tracker may raise anything; training is worth more
            self._open.pop(name, None)
            reason = f"{type(error).__name__}: {error}"[:300]
            print(
                f"tracker {name} is switched off, the run goes on and metrics.jsonl has every "
                f"row: {reason}",
                file=sys.stderr,
                flush=True,
            )
            return None


def check_trackers(cfg: LogConfig) -> None:
    """Raises ValueError with the command that installs a tracker that is missing."""
    for name in cfg.trackers:
        if importlib.util.find_spec(name) is None:
            raise ValueError(
                f"log.trackers names {name!r}, which is not installed; use `pip install {name}`, "
                f"or take it out of log.trackers (TensorBoard is always written)"
            )


def open_trackers(
    cfg: Config, first_step: int, kept: Sequence[Mapping], replaced: Sequence[Mapping]
) -> Trackers:
    """The trackers of one start of a run, for process 0 alone.

    first_step   that this start computes first
    kept         rows of earlier starts that stand; a tracker new to the run is told them
    replaced     rows of earlier starts that this one computes again
    """
    folder, trackers = Path(cfg.run_dir), Trackers()
    purge = first_step + 1 if first_step else 0
    fresh = not (folder / FOLDER).is_dir()
    trackers.open("tensorboard", partial(TensorBoard, cfg, purge), kept if fresh else ())
    until = max((steps_done(row) for row in (*kept, *replaced)), default=0)
    ids = read_ids(folder)
    for name in cfg.log.trackers:
        fresh = name not in ids
        if fresh and first_step:
            print(f"tracker {name} begins another run: {folder / IDS} names none", flush=True)
        run_id = ids.setdefault(name, secrets.token_hex(4))
        # before the tracker hears of it: a kill makes no second run
        write_ids(folder, ids)
        make = partial(_STARTS[name], cfg, run_id, 0 if fresh else until)
        trackers.open(name, make, kept if fresh else ())
    return trackers


def write_ids(run_dir: str | Path, ids: Mapping[str, str]) -> None:
    """Tracker -> the name that it knows the run by."""
    write_sealed(Path(run_dir) / IDS, {**ids, RUN: number_of(run_dir)}, indent=2)


def read_ids(run_dir: str | Path, run: str | None = None) -> dict[str, str]:
    """Tracker -> the name that it knows the run by.

    run   the number of the run, where it is known

    Raises ValueError where the file is damaged or another run's.
    """
    path = Path(run_dir) / IDS
    remedy = "take its copy back, or move it away to go on: the trackers then begin another run"
    ids = read_sealed(path, remedy, missing={})
    check_number(path, ids, run, remedy)
    return {name: run_id for name, run_id in ids.items() if name != RUN}


def _wandb(cfg: Config, run_id: str, until: int) -> Tracker:
    import wandb

    start = {"project": cfg.log.project, "name": cfg.name, "id": run_id, "dir": cfg.run_dir}
    return Online(wandb, until, start | {"config": to_plain(cfg), "resume": "allow"})


def _trackio(cfg: Config, run_id: str, until: int) -> Tracker:
    import trackio  # knows runs by their names alone

    start = {"project": cfg.log.project, "name": f"{cfg.name}-{run_id}", "config": to_plain(cfg)}
    return Online(trackio, until, start | {"resume": "allow", "embed": False})


_STARTS = {"wandb": _wandb, "trackio": _trackio}


def steps_done(row: Mapping[str, Any]) -> int:
    """Where a tracker shows a row of metrics.jsonl."""
    return row["step"] + 1


def scalars_of(row: Mapping[str, Any]) -> dict[str, float]:
    """A row's numbers by their tracked names: "train/reward", "eval/greedy/f1", "time/rollout"."""
    train = row["kind"] == "train"
    values = {}
    for name, value in row.items():
        if name in ("kind", "step") or not isinstance(value, int | float):
            continue
        values[name if train and name.startswith("time/") else f"{row['kind']}/{name}"] = value
    return values
