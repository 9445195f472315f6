"""Attention on a TPU: JAX's splash kernels (Pallas), forward and backward.

Scores never leave the chip. A kernel takes one mask that is a function of positions and, for
what only the data know, one segment number per query and key: 1 may be read, 0 is padding.
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


def full(q, k, v, inside, *, interpret: bool) -> jax.Array:
    """See `attention.full`."""
    return _attend(q, k, v, inside, _full_mask, fused=True, interpret=interpret)


def causal(q, k, v, *, interpret: bool) -> jax.Array:
    """See `attention.causal`."""
    flat = (a.reshape(-1, *a.shape[2:]) for a in (q, k, v))
    seen = jnp.ones((q.shape[0] * q.shape[1], q.shape[2]), bool)
    return _attend(*flat, seen, _causal_mask, fused=True, interpret=interpret).reshape(q.shape)


def answers(q, k, v, prompt_k, prompt_v, prompt_valid, *, interpret: bool) -> jax.Array:
    """See `attention.answers`."""
    group, length = q.shape[1:3]
    row, k, v = (a.reshape(len(a), group * length, *a.shape[3:]) for a in (q, k, v))
    k, v = jnp.concatenate([prompt_k, k], 1), jnp.concatenate([prompt_v, v], 1)
    seen = jnp.pad(prompt_valid, ((0, 0), (0, group * length)), constant_values=True)
    mask = partial(AnswersMask, prompt=prompt_k.shape[1], answer=length)
    # the fused backward pass holds one dq per block of keys: too many with all answers' keys
    return _attend(row, k, v, seen, mask, fused=False, interpret=interpret).reshape(q.shape)


def _full_mask(queries: int, keys: int) -> pallas.Mask:
    return pallas.FullMask((queries, keys))


def _causal_mask(queries: int, keys: int) -> pallas.Mask:
    return pallas.CausalMask((queries, keys))


def _attend(q, k, v, seen, mask: Callable, *, fused: bool, interpret: bool) -> jax.Array:
    """One kernel call per batch row, spread over the mesh in context if there is one.

    q     f[B, T, N, H]
    k, v  f[B, S, K, H]
    seen  bool[B, S]       false: padding
    mask  (padded T, padded S) -> what positions alone decide
    """
    run = partial(_on_device, mask=mask, fused=fused, interpret=interpret)
    mesh = jax.sharding.get_abstract_mesh()
    if mesh.empty or mesh.size == 1:
        return run(q, k, v, seen)
    batch, heads = (mesh.shape[axis] for axis in (BATCH_AXIS, HEAD_AXIS))
    if len(q) % mesh.size == 0:  # the update's pairs are spread over all devices
        rows, columns = (BATCH_AXIS, HEAD_AXIS), None
    else:  # what an axis does not divide is computed whole on each of its devices
        rows = BATCH_AXIS if len(q) % batch == 0 else None
        columns = HEAD_AXIS if q.shape[2] % heads == 0 else None
    if columns and k.shape[2] % heads:  # too few key heads to go round
        copies = math.lcm(k.shape[2], heads) // k.shape[2]
        k, v = jnp.repeat(k, copies, axis=2), jnp.repeat(v, copies, axis=2)
    split = PartitionSpec(rows, None, columns)
    specs = (split, split, split, PartitionSpec(rows))
    return jax.shard_map(run, in_specs=specs, out_specs=split, check_vma=False)(q, k, v, seen)


def _on_device(q, k, v, seen, *, mask: Callable, fused: bool, interpret: bool) -> jax.Array:
    """Shapes as in `_attend`, of this device's rows and heads."""
    length, heads, dim = q.shape[1:]
    block_q, block_k = _block(length), _block(k.shape[1])
    q = _padded(q * dim**-0.5, block_q).swapaxes(1, 2)
    k, v = (_padded(a, block_k).swapaxes(1, 2) for a in (k, v))
    # padded queries read like real ones and are cut off: a row must have something to read
    ids = pallas.SegmentIds(
        q=jnp.ones((len(q), q.shape[2]), jnp.int32), kv=_padded(seen, block_k).astype(jnp.int32)
    )
    kernel = pallas.make_splash_mha(
        pallas.MultiHeadMask([mask(q.shape[2], k.shape[2])] * heads),
        block_sizes=_block_sizes(block_q, block_k, fused=fused),
        head_shards=1,
        q_seq_shards=1,
        residual_checkpoint_name="o",  # for remat "qkvo": output and log-sum-exp are kept
        interpret=interpret,
    )
    return jax.vmap(kernel)(q, k, v, ids)[:, :, :length].swapaxes(1, 2)


def _block(length: int) -> int:
    """The shortest block that covers `length` in the fewest blocks."""
    blocks = -(-length // BLOCK)
    return -(-length // (blocks * LANES)) * LANES


def _padded(a: jax.Array, block: int) -> jax.Array:
    """Axis 1 lengthened to whole blocks by zeros."""
    widths = [(0, 0), (0, -a.shape[1] % block), *[(0, 0)] * (a.ndim - 2)]
    return jnp.pad(a, widths)


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
