"""The lessons of a run, step by step: what a step learns from is a function of the step alone."""

import os
from collections.abc import Iterator, Sequence

import grain

from dig_jax.config import Config
from dig_jax.data.feed.pipeline import WHOLE, Shares
from dig_jax.learner.sft import Lessons
from dig_jax.lessons.pairs import PairLessons
from dig_jax.lessons.questions import QuestionLessons


class StepLessons:
    """The lessons from `first` on of a process, as a Grain random-access source.

    shares  (numbers, count): of every step's rows, cut into `count` equal shares, these are made
    """

    def __init__(
        self,
        cfg: Config,
        pairs: PairLessons | None,
        questions: QuestionLessons | None,
        first: int = 0,
        shares: Shares = WHOLE,
    ):
        self._cfg, self._first = cfg, first
        rows = {"pairs": cfg.pairs_per_step, "questions": cfg.sft.questions_per_step}
        makers = {"pairs": pairs, "questions": questions}
        self._makers = {name: maker for name, maker in makers.items() if maker is not None}
        self._which = {name: _rows_of(rows[name], shares) for name in self._makers}

    def __len__(self) -> int:
        return max(0, self._cfg.steps - self._first)

    def __getitem__(self, index: int) -> Lessons:
        step = self._first + index
        return Lessons(**{n: m.rows(step, self._which[n]) for n, m in self._makers.items()})


def stream(source: StepLessons, ahead: int) -> Iterator[Lessons]:
    """The lessons in order, up to `ahead` of them made ahead by threads."""
    if not len(source):
        return iter(())
    threads = min(ahead, os.cpu_count() or 1)
    options = grain.ReadOptions(num_threads=threads, prefetch_buffer_size=ahead)
    return iter(grain.MapDataset.source(source).to_iter_dataset(options))


def _rows_of(rows: int, shares: Shares) -> Sequence[int]:
    numbers, count = shares
    each = rows // count
    return [number * each + row for number in numbers for row in range(each)]
