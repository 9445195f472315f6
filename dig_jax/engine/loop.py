"""The host of an engine: who waits, who gets a row, who has ended."""

from collections import deque
from collections.abc import Callable, Collection, Iterator
from dataclasses import dataclass
from typing import Any

import jax
import numpy as np

from dig_jax.engine.jobs import Asked, Batch
from dig_jax.engine.slots import Admission, Engine, Slots
from dig_jax.mesh import sharding
from dig_jax.mesh.layout import Layout
from dig_jax.model.params import Params
from dig_jax.model.qwen3vl import PromptCache
from dig_jax.model.rows import BLOCK
from dig_jax.sampler.sampling import RowDecoding


@dataclass(frozen=True)
class Answered:
    """An answer that is there.

    tokens  ids, a stop token included
    logp    nats of each, of the distribution before truncation
    ended   false: cut off at its most tokens
    """

    tag: Any
    tokens: np.ndarray
    logp: np.ndarray
    ended: bool


@dataclass
class _Waiting:
    """Questions whose prefixes are encoded."""

    prefix: PromptCache
    width: tuple[int, int]  # P, Q
    asked: deque[tuple[int, Asked]]  # row of the prefix, question


def answer_all(
    engine: Engine,
    layout: Layout,
    params: Params,
    more: Callable[[bool], Batch | None],
    *,
    rows: int,
    chunk: int,
    room: int = 0,
    watch: Callable[[list[Answered]], Collection[Any]] | None = None,
) -> Iterator[Answered]:
    """Answers in the order in which they end.

    more   (idle) -> the next batch, or None where there is none now; called with idle where no
           row is going: then None is the end
    rows   F: questions that are admitted together, and prefixes of a batch
    chunk  tokens after which the host looks
    room   tokens that every row has room for from the start: where none needs more, nothing grows
    watch  called after every chunk with the answers so far of all rows that are going; returns the
           tags of those that nobody waits for any more: their rows are free at once
    """
    slots, owner = None, [None] * engine.slots
    held, waiting = np.zeros(engine.slots, int), None
    while True:
        free = [e for e, one in enumerate(owner) if one is None]
        idle = len(free) == engine.slots
        while idle or len(free) >= rows:
            if waiting is None or not waiting.asked:
                waiting = _see(engine, layout, params, more(idle))
            if waiting is None:
                break
            slots = _with_room(engine, slots, sum(waiting.width), room)
            slots = _admitted(engine, layout, params, slots, waiting, free[:rows], owner, held)
            free, idle = [e for e, one in enumerate(owner) if one is None], False
        going = [e for e, one in enumerate(owner) if one is not None]
        if not going:
            return
        slots = _with_room(engine, slots, int(held[going].max()) + chunk, room)
        enough = max(rows - len(free), 1) if waiting is not None else engine.slots + 1
        slots, told = engine.decode(params, slots, np.int32(chunk), np.int32(enough))
        done, held = (np.array(a) for a in jax.device_get(told))
        over = [e for e in going if done[e]]
        if over or watch:
            read = jax.device_get(engine.fetch(slots))
        for e in over:
            yield _answer(owner[e], read, e)
            owner[e] = None
        if watch:
            going = [e for e in going if owner[e] is not None]
            left = set(watch([_answer(owner[e], read, e) for e in going]))
            if left:
                slots = _let_go(engine, layout, slots, waiting, left, owner)


def _answer(one: Asked, read, e: int) -> Answered:
    tokens, logp, count, ended = read
    n = int(count[e])
    return Answered(one.tag, tokens[e, :n], logp[e, :n], bool(ended[e]))


def _let_go(engine: Engine, layout: Layout, slots, waiting: _Waiting | None, left, owner) -> Slots:
    """Frees the rows of the tags in `left`, and forgets those that have none yet."""
    gone = np.array([one is not None and one.tag in left for one in owner])
    for e in np.flatnonzero(gone):
        owner[e] = None
    if waiting is not None:
        kept = [pair for pair in waiting.asked if pair[1].tag not in left]
        waiting.asked.clear()
        waiting.asked.extend(kept)
    return engine.release(slots, sharding.replicate(gone, layout.mesh))


def _see(engine: Engine, layout: Layout, params, batch: Batch | None) -> _Waiting | None:
    if batch is None:
        return None
    given = sharding.shard_global((batch.prompt, batch.images), layout.mesh)
    asked = deque((n, one) for n, group in enumerate(batch.groups) for one in group.asked)
    width = (batch.shape.prefix, batch.shape.suffix)
    return _Waiting(engine.see(params, *given), width, asked)


def _admitted(engine, layout, params, slots, waiting: _Waiting, free, owner, held) -> Slots:
    """Takes as many questions as there are free slots; marks whose they are."""
    some = [waiting.asked.popleft() for _ in range(min(len(free), len(waiting.asked)))]
    for e, (_, one) in zip(free, some, strict=False):
        owner[e] = one
        held[e] = sum(waiting.width)
    rows = len(waiting.prefix.length)
    given = admission(engine.slots, some, free, waiting.width[1], rows=rows)
    return engine.admit(params, slots, waiting.prefix, sharding.replicate(given, layout.mesh))


def admission(slots: int, some, free, width: int, *, rows: int) -> Admission:
    """The arrays of `some` (row of the prefix, question), padded to `rows` questions."""
    padded = [*some, *[some[0]] * (rows - len(some))]
    tokens = np.zeros((rows, width), np.int32)
    for n, (_, one) in enumerate(padded):
        tokens[n, : len(one.suffix)] = one.suffix
    source = np.full(slots, -1, np.int32)
    source[free[: len(some)]] = np.arange(len(some))

    def column(value, dtype):
        return np.array([value(one) for _, one in padded], dtype)

    return Admission(
        take=np.array([row for row, _ in padded], np.int32),
        count=column(lambda one: len(one.suffix), np.int32),
        tokens=tokens,
        source=source,
        how=RowDecoding(
            temperature=column(lambda one: one.how.temperature, np.float32),
            top_k=column(lambda one: one.how.top_k, np.int32),
            top_p=column(lambda one: one.how.top_p, np.float32),
            min_p=column(lambda one: one.how.min_p, np.float32),
            seed=column(lambda one: one.seed, np.uint32),
        ),
        most=column(lambda one: one.most, np.int32),
    )


def _with_room(engine: Engine, slots: Slots | None, needed: int, first: int) -> Slots:
    """Slots with room for `needed` tokens a row: `first` if that is enough, else a power of two."""
    if slots is not None and slots.rows.room >= needed:
        return slots
    if slots is None and first >= needed:
        return engine.start(-(-first // BLOCK) * BLOCK)
    room = BLOCK
    while room < needed:
        room *= 2
    return engine.start(room) if slots is None else engine.grow(slots, room)
