"""The optimiser: the step is its clock, frozen parts cost nothing, matrices alone decay."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from jax.sharding import PartitionSpec as P

from dig_jax.config import MeshConfig, OptimConfig
from dig_jax.learner import optim
from dig_jax.mesh import sharding

NAMES = ("embed", "blocks/wq", "blocks/attn_norm", "vision/patch", "vision/patch_bias", "head")


def tree():
    rng = np.random.default_rng(0)
    make = lambda *shape: jnp.asarray(rng.normal(size=shape), jnp.float32)  # noqa: E731
    return {
        "embed": make(8, 4),
        "blocks": {"wq": make(2, 4, 4), "attn_norm": make(2, 4)},
        "vision": {"patch": make(6, 4), "patch_bias": make(4)},
        "head": make(4, 8),
    }


def run(cfg, params, grads, steps, start=0, state=None):
    optimizer = optim.make_optimizer(cfg, 100, params)
    state = optimizer.init(params) if state is None else state
    update = jax.jit(optimizer.update)
    for step in range(start, start + steps):
        params, state, _ = update(grads, state, params, jnp.int32(step))
    return params, state


def test_equals_optax_adamw_with_the_same_mask():
    """Our chain is AdamW: same three updates as optax.adamw at a constant rate."""
    cfg = OptimConfig(rate=1e-2, weight_decay=0.1, max_grad_norm=1e9)
    params, grads = tree(), tree()
    mask = {
        "embed": False,
        "blocks": {"wq": True, "attn_norm": False},
        "vision": {"patch": True, "patch_bias": False},
        "head": True,
    }
    oracle = optax.adamw(1e-2, weight_decay=0.1, mask=mask)
    state, want = oracle.init(params), params
    for _ in range(3):
        moves, state = oracle.update(grads, state, want)
        want = optax.apply_updates(want, moves)
    got, _ = run(cfg, params, grads, 3)
    for a, b in zip(jax.tree.leaves(got), jax.tree.leaves(want), strict=True):
        np.testing.assert_allclose(a, b, rtol=2e-6, atol=1e-7)  # a few fp32 roundings


def test_decay_shrinks_matrices_only():
    params = tree()
    zero = jax.tree.map(jnp.zeros_like, params)
    moved, _ = run(OptimConfig(rate=1e-2, weight_decay=0.5), params, zero, 1)
    shrunk = jax.tree.map(lambda a, b: bool((a != b).any()), params, moved)
    names = [name for name in NAMES if shrunk_at(shrunk, name)]
    assert names == ["blocks/wq", "vision/patch", "head"]
    np.testing.assert_allclose(moved["head"], params["head"] * (1 - 0.005), rtol=1e-6)


def shrunk_at(flags, name):
    for part in name.split("/"):
        flags = flags[part]
    return flags


def test_the_norm_is_that_of_the_gradients_before_clipping():
    params = tree()
    grads = jax.tree.map(jnp.ones_like, params)
    optimizer = optim.make_optimizer(OptimConfig(max_grad_norm=0.1), 10, params)
    _, _, norm = optimizer.update(grads, optimizer.init(params), params, 0)
    assert norm == pytest.approx(np.sqrt(sum(p.size for p in jax.tree.leaves(params))), rel=1e-6)


def test_a_large_gradient_is_scaled_not_cut():
    """Adam hides the scale of one gradient, so the moments are looked at."""
    params = tree()
    grads = jax.tree.map(lambda p: 100.0 * p, params)
    optimizer = optim.make_optimizer(OptimConfig(max_grad_norm=1.0, b1=0.0), 10, params)
    _, state, norm = optimizer.update(grads, optimizer.init(params), params, 0)
    mu = next(leaf for leaf in jax.tree.leaves(state) if leaf.shape == (8, 4))
    np.testing.assert_allclose(mu, grads["embed"] / norm, rtol=1e-6)


@pytest.mark.parametrize(
    ("schedule", "expected"),
    [
        ("constant", [0.25, 0.5, 0.75, 1.0, 1.0, 1.0]),
        ("linear", [0.25, 0.5, 0.75, 1.0, 1.0, 0.5]),
        ("cosine", [0.25, 0.5, 0.75, 1.0, 1.0, 0.5]),
    ],
)
def test_the_rate_is_a_function_of_the_step(schedule, expected):
    cfg = OptimConfig(rate=2.0, warmup=4, schedule=schedule)
    rate = optim.make_schedule(cfg, 12)
    got = [float(rate(step)) / 2.0 for step in (0, 1, 2, 3, 4, 8)]
    np.testing.assert_allclose(got, expected, atol=1e-6)
    assert float(rate(11)) > 0


def test_the_rate_follows_the_step_that_is_passed_not_a_count():
    """Two updates in one step must both use that step's rate."""
    cfg = OptimConfig(rate=1e-2, schedule="linear", weight_decay=0.0, b1=0.0, b2=0.0)
    params, grads = tree(), tree()
    optimizer = optim.make_optimizer(cfg, 10, params)
    once, state, _ = optimizer.update(grads, optimizer.init(params), params, jnp.int32(8))
    twice, _, _ = optimizer.update(grads, state, once, jnp.int32(8))
    first = np.abs(np.asarray(once["head"] - params["head"]))
    second = np.abs(np.asarray(twice["head"] - once["head"]))
    np.testing.assert_allclose(first, 2e-3, rtol=1e-3)  # rate(8) = 0.2 * 1e-2, sign descent
    np.testing.assert_allclose(second, 2e-3, rtol=1e-3)


def test_moments_are_sharded_like_their_parameters():
    mesh = sharding.make_mesh(MeshConfig(fsdp=4, tensor=2))
    params = tree()
    split = jax.tree.map(lambda _: sharding.batch_sharding(mesh), params)
    optimizer = optim.make_optimizer(OptimConfig(), 10, params)
    tree_of = optim.opt_shardings(optimizer, params, split, sharding.replicated(mesh))
    state = jax.eval_shape(optimizer.init, params)
    pairs = list(zip(jax.tree.leaves(state), jax.tree.leaves(tree_of), strict=True))
    assert {s.spec for leaf, s in pairs if leaf.ndim} == {P("fsdp")}
    assert {s.spec for leaf, s in pairs if not leaf.ndim} == {P()}
    assert len(pairs) == 2 * 6 + 1


def test_bfloat16_weights_are_refused():
    params = jax.tree.map(lambda p: p.astype(jnp.bfloat16), tree())
    with pytest.raises(TypeError, match=r"blocks/attn_norm is bfloat16; train float32 .* and set"):
        optim.make_optimizer(OptimConfig(), 10, params)
    optim.make_optimizer(OptimConfig(), 10, tree())


def test_a_warmup_longer_than_the_run_is_named():
    with pytest.raises(ValueError, match=r"optim.warmup=12 leaves no step of steps=12 .*shorten"):
        optim.make_schedule(OptimConfig(warmup=12, schedule="cosine"), 12)
    assert optim.make_schedule(OptimConfig(warmup=11, schedule="cosine"), 12)(11) > 0
