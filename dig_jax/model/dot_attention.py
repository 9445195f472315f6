"""Attention by `jax.nn.dot_product_attention`: cuDNN's kernels, or the same calls by XLA."""

from collections.abc import Callable

import jax
import jax.numpy as jnp


def full_dot(kind: str) -> Callable:
    """cuDNN masks keys by a length alone, so padding is moved behind the patches it lies between.

    Attention does not depend on the order of keys. A dense mask would be a bias of U x U.
    """

    def compute(q, k, v, inside):
        order = jnp.argsort(~inside, axis=1, stable=True)[..., None, None]
        k, v = (jnp.take_along_axis(a, order, axis=1) for a in (k, v))
        # an empty image slot reads one patch of its padding: over no keys cuDNN divides by 0
        lengths = jnp.maximum(inside.sum(1), 1).astype(jnp.int32)
        return _dot(kind, q, k, v, key_value_seq_lengths=lengths)

    return compute


def causal_dot(kind: str) -> Callable:
    """JAX refuses to differentiate cuDNN's attention over an odd length, so that gets a token.

    It comes last, so causality keeps it from all others.
    """

    def compute(q, k, v):
        flat = (a.reshape(-1, *a.shape[2:]) for a in (q, k, v))
        length = q.shape[2]
        even = (jnp.pad(a, [(0, 0), (0, length % 2), (0, 0), (0, 0)]) for a in flat)
        return _dot(kind, *even, is_causal=True)[:, :length].reshape(q.shape)

    return compute


def answers_dot(kind: str) -> Callable:
    """Every answer behind a copy of its prompt's keys, causal: the one mask cuDNN has for this.

    Two calls, over the prompt and over the answer, could not be merged by their log-sum-exps:
    neither JAX's nor cuDNN's rule lets a gradient through those. The queries of the prompt's
    places are zero and cost P^2 / 2 products a head, little beside the answers' matrices.
    """
    read = causal_dot(kind)

    def compute(q, k, v, prompt, prompt_valid):
        lengths, group, own = prompt_valid.sum(-1), q.shape[1], q.shape[2]
        behind = _answer_behind_prompt(lengths, prompt_valid.shape[1], own)

        def line(shared, a):
            shared = jnp.broadcast_to(shared[:, None], (len(a), group, *shared.shape[1:]))
            return _reordered(jnp.concatenate([shared, a], axis=2), behind)

        nothing = jnp.zeros((len(q), prompt_valid.shape[1], *q.shape[3:]), q.dtype)
        out = read(line(nothing, q), line(prompt[0], k), line(prompt[1], v))
        return _reordered(out, lengths[:, None] + jnp.arange(own))

    return compute


def _answer_behind_prompt(lengths: jax.Array, most: int, own: int) -> jax.Array:
    """Of rows of `most` prompt tokens and `own` of the answer: which token is where; i32[B, P + T].

    The prompt's padding goes last, where causality keeps it from all others.
    """
    at, end = jnp.arange(most + own), lengths[:, None]
    return jnp.where(at < end, at, jnp.where(at < end + own, most - end + at, at - own))


def _reordered(a: jax.Array, order: jax.Array) -> jax.Array:
    """f[B, G, S, ...] -> f[B, G, M, ...]; order i32[B, M] without repeats: gradients just move."""

    def one(row, order):
        return row.at[:, order].get(unique_indices=True, mode="promise_in_bounds")

    return jax.vmap(one)(a, order)


def _dot(kind: str, q, k, v, **masks) -> jax.Array:
    implementation = {"dot": "xla", "cudnn": "cudnn"}[kind]
    return jax.nn.dot_product_attention(q, k, v, implementation=implementation, **masks)
