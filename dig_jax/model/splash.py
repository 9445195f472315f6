"""Attention on a TPU: JAX's splash kernels (Pallas), forward and backward.

Scores never leave the chip. A kernel takes one mask that is a function of positions and, for
what only the data know, one segment number per query and key: equal ones may be read.
Sequences are padded to whole blocks here. XLA cannot partition a Pallas kernel, so on a mesh
each device runs its own batch rows and heads in a shard_map over the mesh in context.
"""

import math
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
from jax.experimental.pallas.ops.tpu import splash_attention as pallas
from jax.sharding import PartitionSpec

from dig_jax.model.placement import BATCH_AXIS, HEAD_AXIS

LANES = 128  # a block is a multiple of this
BLOCK = 512  # longest block: 512 x 512 scores in float32 are 1 MiB of on-chip memory


@dataclass(frozen=True)
class AnswersMask(pallas.Mask):
    """Rows are a pair's answers one after the other, columns its prompt and then those answers.

    Answer token (g, t) reads the whole prompt (segment numbers take out its padding) and the
    tokens (g, 0..t). Nothing is repeated per answer, and blocks of other answers are skipped.

    queries, keys  padded lengths
    prompt         keys before the first answer's
    answer         tokens per answer
    """

    queries: int
    keys: int
    prompt: int
    answer: int

    def __post_init__(self):
        if self.queries << self._bits >= 2**31:
            raise ValueError(
                f"{self.queries} answer tokens per pair in answers of {self.answer} do not fit "
                f"the mask's 31 bits; use a smaller rollout.group or rollout.max_tokens"
            )

    @property
    def shape(self) -> tuple[int, int]:
        return self.queries, self.keys

    @property
    def _bits(self) -> int:
        return max(self.answer - 1, 1).bit_length()

    @property
    def q_sequence(self) -> np.ndarray:
        """What the kernel knows of a row, i32[queries]: its answer's first row, and t below it.

        Packed into one number because the kernel cannot divide.
        """
        row = np.arange(self.queries, dtype=np.int32)
        t = row % self.answer
        return ((row - t) << self._bits) | t

    def mask_function(self, row, column):
        """Whether packed rows read columns; numpy on the host, jax inside the kernel."""
        first, t = row >> self._bits, row & ((1 << self._bits) - 1)
        own = column - self.prompt
        return (own < 0) | ((own >= first) & (own <= first + t))

    def __getitem__(self, index) -> np.ndarray:
        rows, columns = index
        return self.mask_function(
            self.q_sequence[rows][:, None],
            np.arange(self.keys, dtype=np.int32)[columns][None, :],
        )


@dataclass(frozen=True)
class StreamMask(pallas.Mask):
    """Rows are a stream's tokens, columns the prompts of its pairs and then those tokens.

    What a row reads only the data know: `rows_of` puts it into the numbers that the kernel is
    called with. Before, all that is known is which blocks of columns it may lie in: each is said
    to be half open, so that the kernel asks in all of them.

    queries, keys  padded lengths
    prompts        keys before the stream's first
    longest        the furthest reach
    """

    queries: int
    keys: int
    prompts: int
    longest: int

    def __post_init__(self):
        if self.queries << self._bits >= 2**31:
            raise ValueError(
                f"a stream of {self.queries} answer tokens of answers of {self.longest} does not "
                f"fit the mask's 31 bits; raise grpo.answer_slices or grpo.accumulate"
            )

    @property
    def shape(self) -> tuple[int, int]:
        return self.queries, self.keys

    @property
    def _bits(self) -> int:
        return max(self.longest, 1).bit_length()

    @property
    def q_sequence(self) -> np.ndarray:
        return self.rows_of(np.full(self.queries, self.longest, np.int32))

    def rows_of(self, reach):
        """A row's number and its reach in one i32[queries], as the kernel cannot divide."""
        return (np.arange(self.queries, dtype=np.int32) << self._bits) | reach

    def mask_function(self, row, column):
        """Whether rows of `rows_of` read columns, of the pair that the segment numbers allow."""
        row, reach = row >> self._bits, row & ((1 << self._bits) - 1)
        own = column - self.prompts
        return (own < 0) | ((own <= row) & (own >= row - reach))

    def __getitem__(self, index) -> np.ndarray:
        rows, columns = (np.arange(n)[i] for n, i in zip(self.shape, index, strict=True))
        row, own = rows[:, None], columns[None, :] - self.prompts
        near = (own <= row + 1) & (own >= row - self.longest - 1)
        return (own < 0) | (near & ((row + own) % 2 == 0))


def full(q, k, v, inside, *, interpret: bool) -> jax.Array:
    """See `attention.full`."""
    seen = _read(inside, q.shape[1])
    return _attend(q, k, v, seen, _full_mask, fused=True, interpret=interpret)


def causal(q, k, v, *, interpret: bool) -> jax.Array:
    """See `attention.causal`."""
    flat = (a.reshape(-1, *a.shape[2:]) for a in (q, k, v))
    seen = _read(jnp.ones((q.shape[0] * q.shape[1], q.shape[2]), bool), q.shape[2])
    return _attend(*flat, seen, _causal_mask, fused=True, interpret=interpret).reshape(q.shape)


def answers(q, k, v, prompt_k, prompt_v, prompt_valid, *, interpret: bool) -> jax.Array:
    """See `attention.answers`."""
    group, length = q.shape[1:3]
    row, k, v = (a.reshape(len(a), group * length, *a.shape[3:]) for a in (q, k, v))
    k, v = jnp.concatenate([prompt_k, k], 1), jnp.concatenate([prompt_v, v], 1)
    seen = jnp.pad(prompt_valid, ((0, 0), (0, group * length)), constant_values=True)
    mask = partial(AnswersMask, prompt=prompt_k.shape[1], answer=length)
    # the fused backward pass holds one dq per block of keys: too many with all answers' keys
    seen = _read(seen, group * length)
    return _attend(row, k, v, seen, mask, fused=False, interpret=interpret).reshape(q.shape)


def packed(
    q, k, v, *, prompt, prompt_valid, owner, reach, longest: int, interpret: bool
) -> jax.Array:
    """See `attention.packed`.

    A call per stream over all its pairs' prompts; segment numbers say which of them is read.
    """
    shape, (streams, pairs, length) = q.shape, prompt_valid.shape
    q, k, v = (a.reshape(streams, -1, *a.shape[3:]) for a in (q, k, v))
    prompt_k, prompt_v = (a.reshape(streams, -1, *a.shape[3:]) for a in prompt)
    k, v = jnp.concatenate([prompt_k, k], 1), jnp.concatenate([prompt_v, v], 1)
    rows = jnp.repeat(owner, shape[2], axis=1)
    pair = jnp.where(prompt_valid, jnp.arange(pairs)[:, None], -1).reshape(streams, -1)
    segments = (rows, jnp.concatenate([pair, rows], 1))
    mask = partial(StreamMask, prompts=pairs * length, longest=max(longest - 2, 0))
    how = {"fused": False, "interpret": interpret, "reach": reach.reshape(streams, -1)}
    return _attend(q, k, v, segments, mask, **how).reshape(shape)


def _full_mask(queries: int, keys: int) -> pallas.Mask:
    return pallas.FullMask((queries, keys))


def _causal_mask(queries: int, keys: int) -> pallas.Mask:
    return pallas.CausalMask((queries, keys))


def _read(seen: jax.Array, queries: int) -> tuple[jax.Array, jax.Array]:
    """Segment numbers where all queries read what is not padding; bool[B, S]."""
    return jnp.ones((len(seen), queries), jnp.int32), jnp.where(seen, 1, -1)


def _attend(q, k, v, segments, mask: Callable, *, fused: bool, interpret: bool, reach=None):
    """One kernel call per batch row, spread over the mesh in context if there is one.

    q         f[B, T, N, H]
    k, v      f[B, S, K, H]
    segments  i32[B, T] and i32[B, S]: equal where a query may read a key; -1: padding
    mask      (padded T, padded S) -> what positions alone decide
    reach     i32[B, T] for StreamMask, else None
    """
    run = partial(_on_device, mask=mask, fused=fused, interpret=interpret)
    given = (q, k, v, *segments, *([] if reach is None else [reach]))
    mesh = jax.sharding.get_abstract_mesh()
    if mesh.empty or mesh.size == 1:
        return run(*given)
    batch, heads = (mesh.shape[axis] for axis in (BATCH_AXIS, HEAD_AXIS))
    if len(q) % mesh.size == 0:  # the update's pairs are spread over all devices
        rows, columns = (BATCH_AXIS, HEAD_AXIS), None
    else:  # what an axis does not divide is computed whole on each of its devices
        rows = BATCH_AXIS if len(q) % batch == 0 else None
        columns = HEAD_AXIS if q.shape[2] % heads == 0 else None
    if columns and k.shape[2] % heads:  # too few key heads to go round
        copies = math.lcm(k.shape[2], heads) // k.shape[2]
        k, v = jnp.repeat(k, copies, axis=2), jnp.repeat(v, copies, axis=2)
        given = (q, k, v, *given[3:])
    split = PartitionSpec(rows, None, columns)
    specs = (split, split, split, *[PartitionSpec(rows)] * len(given[3:]))
    return jax.shard_map(run, in_specs=specs, out_specs=split, check_vma=False)(*given)


def _on_device(q, k, v, queries, keys, reach=None, *, mask: Callable, fused: bool, interpret: bool):
    """Shapes as in `_attend`, of this device's rows and heads."""
    length, heads, dim = q.shape[1:]
    block_q, block_k = _block(length), _block(k.shape[1])
    q = _padded(q * dim**-0.5, block_q).swapaxes(1, 2)
    k, v = (_padded(a, block_k).swapaxes(1, 2) for a in (k, v))
    # padded queries read like real ones and are cut off: a row must have something to read
    queries, keys = _padded(queries, block_q, "edge"), _padded(keys, block_k, -1)
    mask = mask(q.shape[2], k.shape[2])
    kernel = pallas.make_splash_mha(
        pallas.MultiHeadMask([mask] * heads),
        block_sizes=_block_sizes(block_q, block_k, fused=fused),
        head_shards=1,
        q_seq_shards=1,
        residual_checkpoint_name="o",  # for remat "qkvo": output and log-sum-exp are kept
        interpret=interpret,
    )

    def run(q, k, v, queries, keys, reach=None):
        call = kernel if reach is None else _with_rows(kernel, mask.rows_of(reach))
        return call(q, k, v, pallas.SegmentIds(q=queries, kv=keys))

    reach = [] if reach is None else [_padded(reach, block_q)]
    out = jax.vmap(run)(q, k, v, queries, keys, *reach)
    return out[:, :, :length].swapaxes(1, 2)


def _with_rows(kernel, rows: jax.Array):
    """The kernel with other numbers of its rows, which it knows the mask by."""
    (*infos,), kwargs = kernel.tree_flatten()
    infos = (info and info._replace(q_sequence=rows) for info in infos)
    return type(kernel)(*infos, **kwargs)


def _block(length: int) -> int:
    """The shortest block that covers `length` in the fewest blocks."""
    blocks = -(-length // BLOCK)
    return -(-length // (blocks * LANES)) * LANES


def _padded(a: jax.Array, block: int, fill: int | str = 0) -> jax.Array:
    """Axis 1 lengthened to whole blocks, by `fill` or by its last entry ("edge")."""
    widths = [(0, 0), (0, -a.shape[1] % block), *[(0, 0)] * (a.ndim - 2)]
    if fill == "edge":
        return jnp.pad(a, widths, mode="edge")
    return jnp.pad(a, widths, constant_values=fill)


def _block_sizes(block_q: int, block_k: int, *, fused: bool) -> pallas.BlockSizes:
    """fused: one backward kernel for dq, dk and dv instead of two."""
    return pallas.BlockSizes(
        block_q=block_q,
        block_kv=block_k,
        block_q_dkv=block_q,
        block_kv_dkv=block_k,
        block_q_dq=None if fused else block_q,
        block_kv_dq=None if fused else block_k,
        use_fused_bwd_kernel=fused,
    )
