"""How answers of unequal length share the turns of an update.

A device's answers of a gradient slice stand one after another in streams of blocks, as many
streams as it takes; each is a turn of one program, whatever the lengths. Nothing is cut: an answer
is within one turn, and a block's tokens belong to one pair, whose prompt they read. All devices
take as many turns as the one with most, so pairs are dealt out by their tokens.

The lengths are known on the host when an update begins, so the layout is plain NumPy: numbers of
tokens, which the device gathers by.
"""

from dataclasses import dataclass

import jax
import numpy as np
from flax import struct

PARTS = 32  # turns that a slice takes if every answer has its longest, or as many as these allow:
LEAST = 256  # tokens of a turn below which matrix products no longer keep a core busy
BLOCKS = (16, 512)  # shortest and longest block


@dataclass(frozen=True)
class Packing:
    """The shapes of an update.

    minibatches, accumulate  of GrpoConfig
    devices   streams side by side
    pairs     of one device in one slice
    group     G
    longest   T
    block     tokens of a block
    blocks    of a stream
    """

    minibatches: int
    accumulate: int
    devices: int
    pairs: int
    group: int
    longest: int
    block: int
    blocks: int

    @property
    def tokens(self) -> int:
        """Of a turn, on each device."""
        return self.block * self.blocks

    @property
    def turns(self) -> int:
        """That no lengths exceed: first fit leaves one turn at most with room for any answer."""
        answers, each = self.pairs * self.group, -(-self.longest // self.block)
        return min(answers, 1 + answers * each // (self.blocks - each + 1))

    @property
    def shapes(self) -> "Plan":
        """Of a Plan's arrays."""
        both = (self.minibatches, self.accumulate)
        take = (*both, self.turns, self.devices, self.blocks, self.block)
        return Plan(order=(both[0], both[1] * self.devices * self.pairs), take=take, turns=both)


@struct.dataclass
class Plan:
    """Which tokens are computed when, in an update of M minibatches of A slices.

    order  i32[M, B/M]            pairs of a minibatch as they are dealt to slices and devices
    take   i32[M, A, R, E, N, S]  tokens of the stream of each turn and device: (pair x G + answer)
                                  x T + place, pairs counted within device and slice; -1: nothing
    turns  i32[M, A]              how many of the R turns there are
    """

    order: jax.Array | np.ndarray
    take: jax.Array | np.ndarray
    turns: jax.Array | np.ndarray


def make_packing(
    pairs: int, group: int, longest: int, *, devices: int = 1, minibatches: int = 1,
    accumulate: int = 1, answer_slices: int = 1,
) -> Packing:  # fmt: skip
    """The shapes for `pairs` x `group` answers of up to `longest` tokens.

    A stream has room for the longest answer, and at most the tokens that one of `answer_slices`
    parts of all answers would have. The pairs of a slice are a multiple of `devices`.
    """
    here = pairs // (minibatches * accumulate * devices)
    least, most = BLOCKS
    block = min(max(least, 1 << max(0, (longest - 1) // 8).bit_length()), most)
    padded = here * group * longest
    wanted = min(max(padded // PARTS, LEAST), padded // answer_slices)
    blocks = max(-(-longest // block), -(-wanted // block))
    return Packing(minibatches, accumulate, devices, here, group, longest, block, blocks)


def make_plan(packing: Packing, lengths: np.ndarray) -> Plan:
    """The layout of answers of `lengths` i[B, G]; 0: not computed at all."""
    p = packing
    minibatches = lengths.reshape(-1, p.minibatches, p.group).swapaxes(0, 1)
    order = np.stack([deal(p, some.sum(-1)) for some in minibatches])
    take = np.full((*p.shapes.take[:-2], p.tokens), -1, np.int32)
    turns = np.zeros(p.shapes.turns, np.int32)
    for m, some in enumerate(minibatches):
        dealt = some[order[m]].reshape(p.accumulate, p.devices, p.pairs, p.group)
        for a, slices in enumerate(dealt):
            for device, here in enumerate(slices):
                streams = first_fit(p, here)
                turns[m, a] = max(turns[m, a], len(streams))
                for turn, stream in enumerate(streams):
                    _write(take[m, a, turn, device], stream, p)
    return Plan(order=order.astype(np.int32), take=take.reshape(p.shapes.take), turns=turns)


def used(packing: Packing, plan: Plan, lengths: np.ndarray) -> float:
    """Real tokens as a share of those that are computed."""
    computed = int(np.sum(plan.turns)) * packing.devices * packing.tokens
    return float(lengths.sum() / max(computed, 1))


def deal(packing: Packing, tokens: np.ndarray) -> np.ndarray:
    """The order i[N] in which a minibatch's pairs, of `tokens` i[N] each, go to slices and devices.

    A slice takes pairs of like size; its devices in turn take the largest that is left, the one
    with the fewest tokens first. On one device in one slice they stay as they are.
    """
    slices, devices = packing.accumulate, packing.devices
    if slices * devices == 1:
        return np.arange(len(tokens))
    largest = np.argsort(-tokens, kind="stable").reshape(slices, -1)
    dealt = []
    for some in largest:
        hands, load = [[] for _ in range(devices)], np.zeros(devices)
        for pair in some:
            full = [len(hand) == packing.pairs for hand in hands]
            device = int(np.argmin(np.where(full, np.inf, load)))
            hands[device].append(pair)
            load[device] += tokens[pair]
        dealt += hands
    return np.concatenate(dealt)


def first_fit(packing: Packing, lengths: np.ndarray) -> list[dict[int, list[tuple[int, int]]]]:
    """Streams of one device: by pair, the (answer, length) that stand in it, in order.

    lengths  i[pairs, G]

    Pair after pair, the largest first, and of each the longest answer first, an answer joins the
    first stream with room for it.
    """
    streams, filled = [], []
    for pair in np.argsort(-lengths.sum(-1), kind="stable").tolist():
        row = lengths[pair]
        for answer in np.argsort(-row, kind="stable").tolist():
            length = int(row[answer])
            if length:
                at, more = _room(packing, streams, filled, pair, length)
                if at == len(streams):
                    streams.append({})
                    filled.append(0)
                streams[at].setdefault(pair, []).append((answer, length))
                filled[at] += more
    return streams


def _room(packing: Packing, streams, filled, pair: int, length: int) -> tuple[int, int]:
    """The first stream with room for an answer, maybe a new one; and the blocks it takes there."""
    for at, (stream, full) in enumerate(zip(streams, filled, strict=True)):
        there = sum(n for _, n in stream.get(pair, ()))
        more = -(-(there + length) // packing.block) - -(-there // packing.block)
        if full + more <= packing.blocks:
            return at, more
    return len(streams), -(-length // packing.block)


def _write(take: np.ndarray, stream: dict[int, list[tuple[int, int]]], packing: Packing) -> None:
    """The entries of one stream into i32[C]; every pair begins at a block."""
    at = 0
    for pair, answers in stream.items():
        for answer, length in answers:
            first = (pair * packing.group + answer) * packing.longest
            take[at : at + length] = np.arange(first, first + length)
            at += length
        at += -at % packing.block
