"""Attention written out: all scores at once, the reference, or ROWS queries at a time."""

from collections.abc import Callable

import jax
import jax.numpy as jnp
from flax import struct

NEGATIVE = -1e30  # finite: a fully masked padding row must not become NaN
ROWS = 512  # queries whose scores "chunked" holds at a time, per batch row and head


@struct.dataclass
class Segment:
    """Keys and values that a query may read.

    k, v     f[B, P, K, H] shared by the group, or f[B, G, S, K, H] of each answer
    allowed  bool, broadcastable to [B, G, T, keys]
    """

    k: jax.Array
    v: jax.Array
    allowed: jax.Array


def attend(q: jax.Array, segments: list[Segment]) -> jax.Array:
    """Attention of answer-shaped queries over all segments, one float32 softmax.

    q   f[B, G, T, N, H]; N/K consecutive query heads share a key head
    ->  f[B, G, T, N, H]
    """
    b, g, t, n, h = q.shape
    kv_heads = segments[0].k.shape[-2]
    q = q.reshape(b, g, t, kv_heads, n // kv_heads, h) * h**-0.5
    logits = []
    for s in segments:
        keys = "bskh" if s.k.ndim == 4 else "bgskh"
        part = jnp.einsum(f"bgtkrh,{keys}->bgkrts", q, s.k, preferred_element_type=jnp.float32)
        logits.append(part + jnp.where(s.allowed, 0.0, NEGATIVE)[:, :, None, None])
    weights = jax.nn.softmax(jnp.concatenate(logits, -1), axis=-1).astype(q.dtype)
    out, start = 0.0, 0
    for s in segments:
        keys = "bskh" if s.v.ndim == 4 else "bgskh"
        stop = start + s.v.shape[-3]
        out = out + jnp.einsum(f"bgkrts,{keys}->bgtkrh", weights[..., start:stop], s.v)
        start = stop
    return out.reshape(b, g, t, n, h)


def full_xla(q, k, v, inside) -> jax.Array:
    logits = jnp.einsum("eunh,evnh->enuv", q, k, preferred_element_type=jnp.float32)
    logits = logits * q.shape[-1] ** -0.5 + jnp.where(inside, 0.0, NEGATIVE)[:, None, None, :]
    weights = jax.nn.softmax(logits, axis=-1).astype(v.dtype)
    return jnp.einsum("enuv,evnh->eunh", weights, v)


def causal_xla(q, k, v, rows: jax.Array | None = None) -> jax.Array:
    """rows  i32[T]   the queries' places in the sequence, if they are not all of it"""
    return attend(q, [_own(k, v, rows)])


def answers_xla(q, k, v, prompt, prompt_valid, rows: jax.Array | None = None) -> jax.Array:
    shared = Segment(*prompt, prompt_valid[:, None, None])
    return attend(q, [shared, _own(k, v, rows)])


def _own(k, v, rows: jax.Array | None) -> Segment:
    """The row's own keys, up to the query."""
    columns = jnp.arange(k.shape[2])
    rows = columns if rows is None else rows
    return Segment(k, v, (columns <= rows[:, None])[None, None])


def full_chunked(q, k, v, inside) -> jax.Array:
    return _by_rows(lambda q, _: full_xla(q, k, v, inside), q, ROWS)


def causal_chunked(q, k, v) -> jax.Array:
    return _by_rows(lambda q, rows: causal_xla(q, k, v, rows), q, ROWS // q.shape[1])


def answers_chunked(q, k, v, prompt, prompt_valid) -> jax.Array:
    return _by_rows(
        lambda q, rows: answers_xla(q, k, v, prompt, prompt_valid, rows), q, ROWS // q.shape[1]
    )


def _by_rows(some: Callable, q: jax.Array, rows: int) -> jax.Array:
    """`some` applied to `rows` queries at a time, its scores computed again in the backward pass.

    some  (f[..., rows, N, H], their numbers i32[rows]) -> f[..., rows, N, H]
    q     f[..., T, N, H]
    """
    length, rows = q.shape[-3], max(rows, 1)
    if length <= rows:
        return jax.checkpoint(some)(q, jnp.arange(length))
    lead, heads = q.shape[:-3], q.shape[-2:]
    q = jnp.pad(q, [(0, 0)] * len(lead) + [(0, -length % rows), (0, 0), (0, 0)])
    chunks = jnp.moveaxis(q.reshape(*lead, -1, rows, *heads), -4, 0)
    numbers = jnp.arange(q.shape[-3]).reshape(-1, rows)
    # inside a loop XLA cannot merge the two computations, and the barrier has a price
    some = jax.checkpoint(some, prevent_cse=False)
    out = jax.lax.map(lambda chunk: some(*chunk), (chunks, numbers))
    return jnp.moveaxis(out, 0, -4).reshape(q.shape)[..., :length, :, :]
