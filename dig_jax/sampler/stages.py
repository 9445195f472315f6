"""When answers of unequal length are decoded in which shapes.

A rollout passes through stages, each a program of its own, and comes back to none. First the
answers' caches grow: room for `chunk` tokens, then twice that, up to the longest answer. Then, as
soon as so many answers have ended that the others fit into fewer rows, those are packed together.
Rows are E entries of S slots, an entry being a prompt with up to S of its answers, so that a prompt
is read once for several answers as long as several are running. Rows never leave their shard.

Filling a slot anew when its answer ends was the other way: S < G slots for each pair, its next
answer in the first that is free. Every slot is then at a token of its own, so a cache must have
room for the longest answer from the start, and the weights are read for G / S times as many steps.
docs/results/rollout.md has the figures of both.
"""

from dataclasses import dataclass
from itertools import pairwise

import numpy as np

SMALLEST = 8  # rows of a shard below which packing saves nothing: what is left is the weights


@dataclass(frozen=True)
class Stage:
    """A shape of decoding.

    entries  E, over all shards
    slots    S, answers decoded side by side with one prompt
    length   tokens that an answer's cache has room for
    """

    entries: int
    slots: int
    length: int

    @property
    def rows(self) -> int:
        return self.entries * self.slots


@dataclass(frozen=True)
class Plan:
    """The stages of a rollout of `pairs` x `group` answers, in order.

    shards  equal parts of the pairs that live on different devices

    Arguments and results of its methods may be NumPy's or JAX's arrays:

    rows    i32[E, S]               whose slot it is, pair x G + answer; pairs x G: nobody's
    done    bool[E, S]              that answer has ended, or the slot is nobody's
    counts  i[shards, pairs/shards] unfinished answers of each pair
    """

    pairs: int
    group: int
    shards: int
    stages: tuple[Stage, ...]

    @property
    def full(self) -> int:
        """How many of the stages, the first ones, hold all rows."""
        return sum(stage.rows == self.pairs * self.group for stage in self.stages)

    def packed_after(self, number: int) -> int | None:
        """The stage that the rows of stage `number` are packed into next, if there is one."""
        later = max(number + 1, self.full)
        return later if later < len(self.stages) else None

    def after(self, number: int, step: int, counts) -> int | None:
        """The stage that follows `number` after `step` tokens; None: it goes on."""
        packed = self.packed_after(number)
        if packed is not None and self.fits(counts, packed):
            return packed
        return number + 1 if step >= self.stages[number].length else None

    def counts(self, rows, done):
        owner = (rows.min(-1) // self.group).reshape(self.shards, -1, 1)
        unfinished = (~done).sum(-1).reshape(self.shards, -1, 1)
        pair = np.arange(self.pairs).reshape(self.shards, 1, -1)
        return ((owner == pair) * unfinished).sum(1)

    def fits(self, counts, number: int):
        """Whether a stage has slots for the unfinished answers of every shard, bool[]."""
        stage = self.stages[number]
        return (-(-counts // stage.slots)).sum(-1).max() * self.shards <= stage.entries

    def pack(self, rows: np.ndarray, done: np.ndarray, number: int):
        """Where the slots of a packed stage take their rows from.

        rows, done  of the stage before
        ->          take i32[E', S'], source i32[E']: slot (entry x S + slot) and entry of the
                    stage before, both counted within the shard; take is -1 for an empty slot
        """
        into, slots = self.stages[number], rows.shape[1]
        take = np.full((self.shards, into.entries // self.shards, into.slots), -1, np.int32)
        source = np.zeros(take.shape[:2], np.int32)
        for shard in range(self.shards):
            pairs, ended = (np.split(a, self.shards)[shard].ravel() for a in (rows, done))
            pairs, at = pairs // self.group, np.flatnonzero(~ended)
            at = at[np.argsort(pairs[at], kind="stable")]
            of_pairs = np.split(at, np.flatnonzero(np.diff(pairs[at])) + 1)
            entries = [
                some[k : k + into.slots]
                for some in of_pairs
                for k in range(0, len(some), into.slots)
            ]
            for entry, some in enumerate(entries):
                take[shard, entry, : len(some)] = some
                source[shard, entry] = some[0] // slots
        return take.reshape(into.entries, into.slots), source.reshape(into.entries)


def make_plan(
    pairs: int, group: int, max_tokens: int, *, chunk: int, compact: float, shards: int = 1
) -> Plan:
    """The stages of a rollout.

    chunk    tokens of the first cache; 0 or >= max_tokens: one cache of max_tokens
    compact  rows of a packed stage as a share of those of the stage before; 0: no packing

    All packed stages have room for max_tokens: with another length they would be as many again.
    """
    lengths = [max_tokens]
    while chunk and chunk < max_tokens:
        lengths.insert(-1, chunk)
        chunk *= 2
    stages = [Stage(pairs, group, length) for length in lengths]
    share, rows = compact, pairs // shards * group
    while share and share * rows >= SMALLEST:
        slots = 1 << max(0, int(group * share).bit_length() - 1)
        entries = -(-int(share * rows) // slots) * shards
        if entries * slots < stages[-1].rows:
            stages.append(Stage(entries, slots, max_tokens))
        share *= compact
    return Plan(pairs, group, shards, tuple(stages))


@dataclass(frozen=True)
class Cost:
    """What decoding answers of known lengths takes.

    used      share of the computed rows, over all steps, that were an unfinished answer's
    computed  rows x steps
    read      tokens whose keys and values were read: the answers' caches, the entries' prompts
    visits    (stage, steps in it), in order
    """

    used: float
    computed: int
    read: int
    visits: tuple[tuple[Stage, int], ...]


def cost(lengths: np.ndarray, plan: Plan, *, prompt: int = 0) -> Cost:
    """The cost of answers of these lengths i[B, G] to prompts of `prompt` tokens."""
    by_shard = lengths.reshape(plan.shards, -1, plan.group)
    ends = {*np.unique(lengths).tolist(), *(stage.length for stage in plan.stages)}
    number, visits = 0, {}
    for step, until in pairwise([0, *sorted(end for end in ends if end <= lengths.max())]):
        counts = (by_shard > step).sum(-1)
        while (later := plan.after(number, step, counts)) is not None:
            number = later
        visits[number] = visits.get(number, 0) + until - step
    found = tuple((plan.stages[number], steps) for number, steps in visits.items())
    computed = sum(stage.rows * steps for stage, steps in found)
    read = sum(n * (stage.rows * stage.length + stage.entries * prompt) for stage, n in found)
    return Cost(lengths.sum() / computed, computed, read, found)
