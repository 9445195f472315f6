"""One function over many shards, on several cores."""

from __future__ import annotations

import multiprocessing
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ProcessPoolExecutor
from typing import Any


def map_in_order(work: Callable[..., Any], workers: int, *columns: Iterable[Any]) -> Iterator[Any]:
    """`map(work, *columns)` by `workers` processes, results in order; one works right here.

    The processes are spawned: a fork of a program with threads may hang.
    """
    if workers == 1:
        yield from map(work, *columns)
        return
    with ProcessPoolExecutor(workers, multiprocessing.get_context("spawn")) as pool:
        yield from pool.map(work, *columns)
