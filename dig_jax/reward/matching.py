"""One-to-one assignment of predicted to true boxes, inside jit.

Two interchangeable solvers, `f32[..., Q, M] -> i32[..., Q]`:

- `assign`      scipy on the host, one call for the whole array. The default.
- `assign_xla`  optax's Hungarian algorithm, entirely on the device: seconds to compile, no host.
                The tests hold the two against each other.

optax's door is `optim`; this file opens `optax.assignment` and nothing else of it.
"""

import jax
import jax.numpy as jnp
import numpy as np
import optax.assignment
from scipy.optimize import linear_sum_assignment

# The price of a pair that must not be matched. Above any sum of real costs in [0, 1], so that a
# solver prefers real pairs, and small enough that float32 still tells real costs apart beside it.
PAD_COST = 128.0
_TOGETHER = 512  # matrices per pass of the host solver: they stay in a core's cache


def price_padding(cost: jax.Array, pred_valid: jax.Array, true_valid: jax.Array) -> jax.Array:
    """Costs with every pair that involves padding, or is not finite, at PAD_COST.

    cost        f32[..., Q, M]   real pairs in [0, 1], min(Q, M) < PAD_COST; padding may be NaN
    pred_valid  bool[..., Q]
    true_valid  bool[..., M]
    """
    assert min(cost.shape[-2:]) < PAD_COST, cost.shape
    real = pred_valid[..., :, None] & true_valid[..., None, :] & jnp.isfinite(cost)
    return jnp.where(real, cost, PAD_COST)


def assign(cost: jax.Array) -> jax.Array:
    """Cheapest one-to-one assignment of predictions to truths, by scipy on the host.

    cost   f32[..., Q, M]   padding at PAD_COST
    ->     i32[..., Q]      matched column, or -1 where there is none

    As many real pairs as possible are matched, at the least total cost. No gradient flows
    through. One host call for all leading axes, vmapped ones included ("sequential" would call
    once per matrix). Under plain jit a sharded batch travels to device 0 first; inside shard_map
    every shard calls its own host with its own rows.
    """
    shape = jax.ShapeDtypeStruct(cost.shape[:-1], jnp.int32)
    cost = jax.lax.stop_gradient(cost)
    return jax.pure_callback(assign_on_host, shape, cost, vmap_method="expand_dims")


def assign_on_host(cost: np.ndarray) -> np.ndarray:
    """`assign` for NumPy arrays. It runs inside the callback, where calling jax may deadlock."""
    cost = np.asarray(cost)
    if cost.size == 0:
        return np.full(cost.shape[:-1], -1, np.int32)
    flat = cost.reshape(-1, *cost.shape[-2:])
    parts = [_assign(flat[at : at + _TOGETHER]) for at in range(0, len(flat), _TOGETHER)]
    return np.concatenate(parts).reshape(cost.shape[:-1])


def _assign(cost: np.ndarray) -> np.ndarray:
    """Matrices f32[N, Q, M] -> i32[N, Q]: scipy sees those that have to be solved."""
    real = cost < PAD_COST  # False for NaN
    match, hard = _assign_easy(cost, real)
    sizes = _leading_blocks(real[hard])
    for index, (q, m) in zip(np.flatnonzero(hard), sizes, strict=True):
        if q:
            rows, columns = linear_sum_assignment(cost[index, :q, :m])
            match[index] = -1
            match[index, rows] = columns
        else:
            match[index] = _assign_scattered(cost[index], real[index])
    return match


def _assign_easy(cost: np.ndarray, real: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Where no two rows want the same column, each takes its cheapest: no total can be lower.

    cost   f32[N, Q, M];  real  bool[N, Q, M], the pairs that may be matched
    ->     i32[N, Q] and bool[N], the matrices that are not that easy and have to be solved

    Where there are more real rows than columns it is the columns that choose, as in scipy. A tie
    is not easy: which of two equal assignments is taken stays scipy's choice.
    """
    # many small matrices: with N last, reductions over Q or M run over whole vectors
    cost, real = (np.ascontiguousarray(array.transpose(1, 2, 0)) for array in (cost, real))
    wide = _count(real.any(axis=1), 0) <= _count(real.any(axis=0), 0)
    by_row = np.fmin.reduce(cost, axis=1, keepdims=True)
    by_column = np.fmin.reduce(cost, axis=0, keepdims=True)
    chosen = real & (cost == np.where(wide, by_row, by_column))
    clash = (_count(chosen, 1) > 1).any(axis=0) | (_count(chosen, 0) > 1).any(axis=0)
    match = np.where(chosen.any(axis=1), chosen.argmax(axis=1), -1)
    return match.T.astype(np.int32), clash


def _count(mask, axis):
    # in 16 bits: summing to the default 64 takes four times as long
    return np.add.reduce(mask, axis=axis, dtype=np.uint16)


def _leading_blocks(real: np.ndarray) -> list[list[int]]:
    """[q, m] of matrices whose real pairs are all of the first q rows and m columns, else 0s."""
    q, m = real[:, :, 0].sum(axis=1), real[:, 0, :].sum(axis=1)
    rows, columns = (np.arange(size) for size in real.shape[1:])
    block = (rows < q[:, None])[:, :, None] & (columns < m[:, None])[:, None, :]
    whole = (block == real).all(axis=(1, 2))
    return np.where(whole[:, None], np.stack([q, m], axis=1), 0).tolist()


def _assign_scattered(cost: np.ndarray, real: np.ndarray) -> np.ndarray:
    """One matrix f32[Q, M] -> i32[Q], wherever its real pairs are."""
    match = np.full(len(cost), -1, np.int32)
    preds, trues = np.flatnonzero(real.any(axis=1)), np.flatnonzero(real.any(axis=0))
    inner = np.ix_(preds, trues)  # padding never reaches scipy
    chosen, columns = linear_sum_assignment(np.where(real[inner], cost[inner], PAD_COST))
    keep = real[preds[chosen], trues[columns]]
    match[preds[chosen[keep]]] = trues[columns[keep]]
    return match


def assign_xla(cost: jax.Array) -> jax.Array:
    """`assign` without a host: the same contract, optax's solver vmapped over leading axes.

    Between assignments whose totals differ by less than float32 can tell (about 1e-5 for costs
    in [0, 1]) the choice may differ from scipy's, which computes in float64. Under shard_map pass
    check_vma=False: optax's loops start from values that do not vary over the mesh.
    """
    q, m = cost.shape[-2:]
    if cost.size == 0:
        return jnp.full(cost.shape[:-1], -1, jnp.int32)
    # NaN fails the comparison: the solver's loops would not end on one
    flat = jnp.where(cost < PAD_COST, jax.lax.stop_gradient(cost), PAD_COST).reshape(-1, q, m)
    match = jax.vmap(_assign_one)(flat)
    return match.reshape(cost.shape[:-1])


def _assign_one(cost):
    preds, trues = optax.assignment.hungarian_algorithm(cost)
    real = cost[preds, trues] < PAD_COST
    return jnp.full(cost.shape[0], -1, jnp.int32).at[preds].set(jnp.where(real, trues, -1))
