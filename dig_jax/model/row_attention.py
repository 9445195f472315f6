"""Attention of one new token to its own row: a block of keys at a time, as many as the rows hold.

What a row reads is a function of the row alone, bit for bit: a block in which it holds nothing adds
exactly nothing, so neither the room of the cache nor a longer neighbour changes a sum.
"""

from functools import partial

import jax
import jax.numpy as jnp

from dig_jax.model.plain_attention import NEGATIVE


def row_token(
    kind: str,
    q: jax.Array,
    cache: tuple[jax.Array, jax.Array],
    place: jax.Array,
    blocks: jax.Array,
    *,
    size: int,
    new: tuple[jax.Array, jax.Array] | None = None,
) -> jax.Array:
    """Each row's new token reads what its row holds, and itself.

    kind    of `attention.choose`; "xla" multiplies and sums, which is faster on a CPU
    q       f[E, N, H];  N/K consecutive query heads share a key head
    cache   k, v f[E, K, C, H];  C is a multiple of size
    place   i32[E]   tokens of the cache that are read
    blocks  i32[]    blocks to look at: ceil(place / size) of the fullest row that matters
    size    tokens of a block
    new     k, v f[E, K, H], the new token's own, where the cache does not hold it yet
    ->      f[E, N, H]
    """
    rows, count, h = q.shape
    heads, length = cache[0].shape[1:3]
    assert length % size == 0, (length, size)
    q = q.reshape(rows, heads, count // heads, h) * h**-0.5
    score, weigh = _PRODUCTS["sum" if kind == "xla" else "dot"]

    def add(number, carry):
        top, total, out = carry
        start = number * size
        k, v = (jax.lax.dynamic_slice_in_dim(a, start, size, axis=2) for a in cache)
        inside = start + jnp.arange(size) < place[:, None]
        logits = jnp.where(inside[:, None, None], score(q, k), NEGATIVE)
        high = jnp.maximum(top, logits.max(-1))
        weights, kept = jnp.exp(logits - high[..., None]), jnp.exp(top - high)
        out = out * kept[..., None] + weigh(weights.astype(v.dtype), v)
        return high, total * kept + weights.sum(-1), out

    _, total, out = jax.lax.fori_loop(0, blocks, add, _start(q, new))
    return (out / total[..., None]).astype(q.dtype).reshape(rows, count, h)


def _start(q: jax.Array, new) -> tuple[jax.Array, jax.Array, jax.Array]:
    """Largest logit, sum of weights and weighted sum of values so far: nothing, or `new`."""
    wide = q.astype(jnp.float32)
    if new is None:
        nothing = jnp.zeros_like(wide)
        return nothing[..., 0] + NEGATIVE, nothing[..., 0], nothing
    top = (wide * new[0][:, :, None].astype(jnp.float32)).sum(-1)
    return (
        top,
        jnp.ones_like(top),
        jnp.broadcast_to(new[1][:, :, None].astype(jnp.float32), q.shape),
    )


def _score_sum(q, k):
    return (q[..., None, :].astype(jnp.float32) * k[:, :, None]).sum(-1)


def _weigh_sum(weights, v):
    return (weights[..., None].astype(jnp.float32) * v[:, :, None]).sum(-2)


_wide = partial(jnp.einsum, preferred_element_type=jnp.float32)
# scores f32[E, K, R, S] of q f[E, K, R, H] and k f[E, K, S, H], and the weighted sum of v
_PRODUCTS = {
    "sum": (_score_sum, _weigh_sum),
    "dot": (partial(_wide, "ekrh,eksh->ekrs"), partial(_wide, "ekrs,eksh->ekrh")),
}
