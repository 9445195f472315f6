"""How far a long job is: a bar on a terminal, a line every few seconds elsewhere."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Callable, Iterator

from rich.console import Console
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    Progress,
    TextColumn,
    TimeElapsedColumn,
    TimeRemainingColumn,
)

_LINE_EVERY_S = 5.0


@contextlib.contextmanager
def progress(title: str, unit: str) -> Iterator[Callable[[int, int, str], None]]:
    """A function (done, total, what just happened or "") that tells the user."""
    console = Console()
    if not console.is_terminal:
        yield _Lines(title, unit)
        return
    columns = (
        TextColumn("{task.description:>12}"),
        BarColumn(),
        MofNCompleteColumn(),
        TextColumn(unit),
        TimeElapsedColumn(),
        TimeRemainingColumn(),
    )
    with Progress(*columns, console=console) as bars:
        task = bars.add_task(title, total=None)
        yield lambda done, total, note: bars.update(task, completed=done, total=total)


class _Lines:
    """Progress where there is no terminal."""

    def __init__(self, title: str, unit: str):
        self.title, self.unit = title, unit
        self.start, self.last, self.first_done = time.monotonic(), 0.0, None

    def __call__(self, done: int, total: int, note: str) -> None:
        now = time.monotonic()
        if self.first_done is None:
            self.first_done = done
        if now - self.last < _LINE_EVERY_S and done != total:
            return
        self.last = now
        rate = (done - self.first_done) / max(now - self.start, 1e-9)
        left = f", {(total - done) / rate:.0f} s left" if rate else ""
        print(f"{self.title}: {done}/{total} {self.unit}{left} {note}".rstrip(), flush=True)
