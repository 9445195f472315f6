"""A supervised update on four virtual devices equals that on one."""

import functools

import jax
import numpy as np
import pytest

from dig_jax.config import Config, MeshConfig, OptimConfig
from dig_jax.mesh import programs, sharding
from tests import tiny_model
from tests.learner import test_sft as supervised

# Adam's first step is the gradient's sign unless eps outweighs it: rounding would flip it
OPTIM = OptimConfig(rate=0.1, eps=1.0, weight_decay=0.0, warmup=0)


@functools.cache
def updated(fsdp: int, tensor: int) -> tuple:
    """(weights before, after, metrics) of one step on a mesh, as `sft` runs it."""
    mesh = MeshConfig(fsdp=fsdp, tensor=tensor)
    cfg = Config(learner="sft", sft=supervised.CFG, optim=OPTIM, mesh=mesh, pairs_per_step=4)
    devices = sharding.make_mesh(mesh, devices=jax.devices()[: fsdp * tensor])
    on = tiny_model.QuickLayout(cfg, devices, supervised.CONFIG)
    params = jax.device_put(supervised.params(), on.shardings)
    before = jax.device_get(params)
    start = on.jit(functools.partial(programs.start_state, on),
                   out_shardings=programs.state_shardings(on))  # fmt: skip
    update = programs.jit_sft_update(on, supervised.slots())
    rows = sharding.shard_batch(supervised.lessons(), on.mesh)
    state, stats = update(start(params), rows)
    return before, jax.device_get(state.params), jax.device_get(stats)


@pytest.mark.slow
@pytest.mark.parametrize(("fsdp", "tensor"), [(4, 1), (2, 2)])
def test_a_supervised_update_does_not_depend_on_the_mesh(fsdp, tensor):
    """Losses of answers and of labels, their means over the whole batch, and what moved."""
    (before, one, stats), (_, many, seen) = updated(1, 1), updated(fsdp, tensor)
    assert seen.keys() == stats.keys()
    for name, value in stats.items():
        np.testing.assert_allclose(seen[name], value, rtol=1e-4, atol=1e-6, err_msg=name)
    moved = jax.tree.map(lambda a, b: np.abs(a - b).max(), one, before)
    assert max(jax.tree.leaves(moved)) > 1e-4, "the update must move something to compare"
    jax.tree.map(functools.partial(np.testing.assert_allclose, atol=2e-6), many, one)


@pytest.mark.slow
def test_means_of_parts_would_be_seen():
    """The ablation: rows of half the batch alone have other losses."""
    half = jax.tree.map(lambda leaf: leaf[: len(leaf) // 2], supervised.lessons())
    _, seen = supervised.loss_of(half)[0]
    stats = updated(1, 1)[2]
    assert abs(seen["loss_questions"] / stats["loss_questions"] - 1) > 1e-3
