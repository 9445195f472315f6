"""Pairs cut into equal slices and put together again, as they come or as a plan deals them."""

import jax
import jax.numpy as jnp

from dig_jax.learner.packing import Plan


def pair_slices(tree, count: int, plan: Plan | None = None):
    """[B, ...] -> [count, B/count, ...], as `plan` deals them.

    Without, slice i takes pairs i, i + count, ...: interleaved, so that a batch sharded over
    devices keeps every slice spread over all of them.
    """
    if plan is None:
        return jax.tree.map(lambda a: a.reshape(-1, count, *a.shape[1:]).swapaxes(0, 1), tree)
    return jax.tree.map(lambda a: a[plan.order].reshape(count, -1, *a.shape[1:]), tree)


def join_pairs(tree, plan: Plan | None = None):
    """The inverse of `pair_slices`."""
    if plan is None:
        return jax.tree.map(lambda a: a.swapaxes(0, 1).reshape(-1, *a.shape[2:]), tree)
    back = jnp.argsort(plan.order)
    return jax.tree.map(lambda a: a.reshape(-1, *a.shape[2:])[back], tree)


def turns_of(plan: Plan | None):
    """What `over_turns` takes of a plan, by slice; None: padded."""
    return None if plan is None else (plan.take, plan.turns)
