"""Scored answers as columns, and the sums that benchmarks' rules are made of."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np

from dig_jax.benchmarks.scored import Scored
from dig_jax.scoring.ratios import Ratio, ratio

# What makes two questions one observation: they share a picture, or a rule judges them together.
SHARED = ("picture", "pair", "figure", "set", "question", "object")


@dataclass(frozen=True, eq=False)
class Columns:
    """Columns of N answers.

    rows                 the answers themselves
    weight               f64[N]   1 / (samples of the answer's question)
    cluster              i64[N]   what is drawn together, see `clusters`
    correct, iou, best   f64[N]   of `Scored`; 0 where a kind has none
    said_yes, is_yes     bool[N]  what was read, what is right
    """

    rows: tuple[Scored, ...]
    weight: np.ndarray
    cluster: np.ndarray
    correct: np.ndarray
    iou: np.ndarray
    best: np.ndarray
    said_yes: np.ndarray
    is_yes: np.ndarray

    def group(self, name: str) -> list[str]:
        """The answers' keys of a group; "" where a question has none."""
        return [row.question.groups.get(name, "") for row in self.rows]

    def where(self, chosen: np.ndarray) -> Columns:
        """The answers that a bool[N] chooses."""
        columns = {name: column[chosen] for name, column in vars(self).items() if name != "rows"}
        return Columns(tuple(self.rows[at] for at in np.flatnonzero(chosen)), **columns)

    def weighted(self, times: np.ndarray) -> Columns:
        """The same with each answer counted so many times."""
        return replace(self, weight=self.weight * times)

    def parts(self, *names: str) -> dict[str, Columns]:
        """key -> its answers, of a group or of several joined by " / ", in sorted order."""
        keys = [" / ".join(each) for each in zip(*map(self.group, names), strict=True)]
        column = np.array(keys, object)
        return {key: self.where(column == key) for key in sorted(set(keys))}

    def mean(self, column: np.ndarray | None = None) -> Ratio:
        """Mean over questions of a column, by default of what is right."""
        values = self.correct if column is None else column
        return ratio(self.weight * values, self.weight, self.cluster)

    def all_right(self, name: str) -> Ratio:
        """Share of the groups of a name all of whose questions are right: an entry per group.

        A group's samples are those that all its questions have; a group without any is left out.
        """
        groups: dict[str, dict[str, dict[int, float]]] = defaultdict(lambda: defaultdict(dict))
        place = {}
        for row, key, cluster in zip(self.rows, self.group(name), self.cluster, strict=True):
            groups[key][row.question.id][row.sample] = row.correct
            place[key] = cluster
        shares = {}
        for key, questions in groups.items():
            samples = set.intersection(*map(set, questions.values()))
            if samples:
                right = [all(by[s] for by in questions.values()) for s in samples]
                shares[key] = float(np.mean(right))
        return ratio([*shares.values()], 1.0, [place[key] for key in shares])


def columns_of(scored: Sequence[Scored]) -> Columns:
    """The columns of scored answers, in order."""
    rows = tuple(scored)
    times = Counter(row.question.id for row in rows)
    number = clusters(rows)
    return Columns(
        rows,
        weight=np.array([1 / times[row.question.id] for row in rows], np.float64),
        cluster=np.array([number[row.question.id] for row in rows], np.int64),
        correct=np.array([row.correct for row in rows], np.float64),
        iou=np.array([row.iou or 0.0 for row in rows], np.float64),
        best=np.array([row.best or 0.0 for row in rows], np.float64),
        said_yes=np.array([row.reading.value == "yes" for row in rows], bool),
        is_yes=np.array([row.question.target == "yes" for row in rows], bool),
    )


def clusters(rows: Sequence[Scored]) -> dict[str, int]:
    """id -> number of its cluster, from 0.

    Questions that have one key of a `SHARED` group are in one cluster, also by way of others. The
    numbers follow the smallest id of each cluster, whatever the order of the rows.
    """
    root: dict = {}

    def find(node):
        while root[node] != node:
            root[node] = node = root[root[node]]
        return node

    for row in rows:
        own = find(root.setdefault(("", row.question.id), ("", row.question.id)))
        for name in SHARED:
            key = (name, row.question.groups.get(name))
            if key[1]:
                root[find(root.setdefault(key, key))] = own
    smallest: dict = {}
    for key in sorted({row.question.id for row in rows}):
        smallest.setdefault(find(("", key)), len(smallest))
    return {row.question.id: smallest[find(("", row.question.id))] for row in rows}
