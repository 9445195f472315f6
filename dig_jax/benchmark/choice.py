"""Which questions are answered: some of them, or one of N shares, never apart from their kin."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence

from dig_jax.benchmarks.columns import clusters
from dig_jax.benchmarks.question import Question
from dig_jax.benchmarks.reading import CUT
from dig_jax.benchmarks.scored import Scored


def limited(questions: Sequence[Question], limit: int | None) -> list[Question]:
    """About `limit` questions, in their order: what shares a picture or a group comes whole.

    The choice depends on the ids alone, so it is the same for every model.
    """
    if not limit or limit >= len(questions):
        return [*questions]
    kin, kept = _kin(questions), set()
    for some in sorted(kin, key=lambda ids: hashlib.sha256(ids[0].encode()).digest()):
        if len(kept) >= limit:
            break
        kept.update(some)
    return [question for question in questions if question.id in kept]


def share(questions: Sequence[Question], shard: tuple[int, int]) -> list[str]:
    """Ids of the I-th of N shares, in order."""
    number, count = shard
    mine = {name for some in _kin(questions)[number - 1 :: count] for name in some}
    return [question.id for question in questions if question.id in mine]


def _kin(questions: Sequence[Question]) -> list[list[str]]:
    """Ids that belong together, sorted within and among one another."""
    number = clusters([Scored(question, 0, "", CUT, 0.0) for question in questions])
    found: dict[int, list[str]] = {}
    for name in sorted(number):
        found.setdefault(number[name], []).append(name)
    return [found[key] for key in sorted(found)]
