"""Attention of packed answers: streams of blocks, a block's tokens being answers to one pair.

A token reads its pair's prompt and, of the tokens just before it in the stream, its own answer's.
Those are within `longest` tokens, so a block reads itself and the few blocks before it: the cost
grows with the stream's length, not with its square.
"""

from collections.abc import Callable

import jax
import jax.numpy as jnp

from dig_jax.model.plain_attention import Segment, attend

Blocks = tuple[jax.Array, ...]  # q, near k and v, prompt k and v, its mask, own mask; axes E, N


def packed_xla(q, k, v, **how) -> jax.Array:
    """See `attention.packed`."""
    return _attend(*_blocks(q, k, v, **how))


def packed_chunked(q, k, v, **how) -> jax.Array:
    """A block of each stream at a time, its scores computed again in the backward pass."""
    # inside a loop XLA cannot merge the two computations, and the barrier has a price
    some = jax.checkpoint(lambda each: _attend(*each), prevent_cse=False)
    each = jax.tree.map(lambda a: a.swapaxes(0, 1)[:, :, None], _blocks(q, k, v, **how))
    return jax.lax.map(some, each)[:, :, 0].swapaxes(0, 1)


def packed_dot(kind: str) -> Callable:
    """By `jax.nn.dot_product_attention` over each block's keys, with their mask."""
    implementation = {"dot": "xla", "cudnn": "cudnn"}[kind]

    def compute(q, k, v, **how):
        q, *keys, open_prompt, open_own = _blocks(q, k, v, **how)
        rows = open_own.shape[2]
        open_prompt = jnp.repeat(open_prompt, rows, axis=2)
        near, shared = keys[:2], keys[2:]
        keys = [jnp.concatenate(both, axis=2) for both in zip(shared, near, strict=True)]
        mask = jnp.concatenate([open_prompt, open_own], axis=-1)
        # JAX refuses to differentiate cuDNN's attention over an odd length
        odd = mask.shape[-1] % 2
        mask = jnp.pad(mask, [(0, 0)] * 3 + [(0, odd)])
        keys = [jnp.pad(a, [(0, 0), (0, 0), (0, odd), (0, 0), (0, 0)]) for a in keys]
        flat = (a.reshape(-1, *a.shape[2:]) for a in (q, *keys))
        mask = mask.reshape(-1, 1, *mask.shape[2:])
        out = jax.nn.dot_product_attention(*flat, mask=mask, implementation=implementation)
        return out.reshape(q.shape)

    return compute


def _attend(q, near_k, near_v, prompt_k, prompt_v, open_prompt, open_own) -> jax.Array:
    shared = Segment(prompt_k, prompt_v, open_prompt)
    return attend(q, [shared, Segment(near_k, near_v, open_own)])


def _blocks(q, k, v, *, prompt, prompt_valid, owner, reach, longest: int) -> Blocks:
    """What each block reads.

    -> q f[E, N, S, ..]; keys and values that may be its answers', f[E, N, W + S, K, H], the last
       S its own; of its prompt f[E, N, P, K, H]; masks bool[E, N, 1, P] and bool[E, N, S, W + S]
    """
    size = q.shape[2]
    back = -(-(longest - 2) // size)  # blocks before a block that its answers may begin in
    near_k, near_v = (near(a, back) for a in (k, v))
    row, column = jnp.arange(size)[:, None] + back * size, jnp.arange((back + 1) * size)
    open_own = (column <= row) & (column >= row - reach[..., None])
    prompt_k, prompt_v = (of_owner(a, owner) for a in prompt)
    open_prompt = of_owner(prompt_valid, owner)[:, :, None]
    return q, near_k, near_v, prompt_k, prompt_v, open_prompt, open_own


def near(a: jax.Array, back: int) -> jax.Array:
    """f[E, N, S, ...] -> f[E, N, (back + 1) S, ...]: each block behind those before it, or zeros.

    By shifts, whose gradients are shifts: no row is gathered, none scattered.
    """
    padded = jnp.pad(a, [(0, 0), (max(back, 0), 0)] + [(0, 0)] * (a.ndim - 2))
    shifted = [padded[:, i : i + a.shape[1]] for i in range(max(back, 0) + 1)]
    return jnp.concatenate(shifted, axis=2)


def of_owner(a: jax.Array, owner: jax.Array) -> jax.Array:
    """[E, M, ...] of each stream's pairs, owner i32[E, N...] -> [E, N..., ...]."""
    return jax.vmap(lambda pairs, one: pairs[one])(a, owner)
