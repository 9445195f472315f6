"""Sampling, scoring and the update on eight virtual devices equal those on one."""

import functools

import fakes
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from dig_jax import sharding
from dig_jax.config import GrpoConfig, MeshConfig, OptimConfig
from dig_jax.grpo import TrainState, make_update
from dig_jax.model.params import model_specs, param_shapes
from dig_jax.optim import make_optimizer, opt_shardings
from dig_jax.rollout import make_sampler, make_scorer
from dig_jax.trainable import parameter_names

PAIRS, GROUP, LENGTH = 8, 2, 6
SPECS = model_specs(fakes.CONFIG)
ALL = frozenset(parameter_names(param_shapes(SPECS)))
# Adam's first step is the gradient's sign unless eps outweighs it: rounding would flip it
OPTIM = OptimConfig(rate=0.1, eps=1.0, weight_decay=0.0)
GRPO = GrpoConfig(kl_coef=0.1, minibatches=1, accumulate=1)


@functools.cache
def run(fsdp: int, tensor: int) -> dict:
    """One rollout, its scores and one update on a mesh; numpy values and the sharded params."""
    devices = jax.devices()[: fsdp * tensor]
    mesh = sharding.make_mesh(MeshConfig(fsdp=fsdp, tensor=tensor), devices=devices)
    where = sharding.param_shardings(SPECS, mesh)
    params = jax.device_put(fakes.make_tiny(jax.random.key(0)), where)
    prompt, images = sharding.shard_global(fakes.pairs_of(PAIRS), mesh)
    sampler = make_sampler(fakes.CONFIG, group=GROUP, max_tokens=LENGTH, temperature=1.0)
    rollout = fakes.quick_jit(sampler)(params, prompt, images, jax.random.key(1))
    scorer = make_scorer(fakes.CONFIG, temperature=1.0, chunk=32)
    logp, _ = fakes.quick_jit(scorer)(params, prompt, images, rollout.tokens)

    optimizer = make_optimizer(OPTIM, 1, param_shapes(SPECS))
    whole = sharding.replicated(mesh)
    moments = opt_shardings(optimizer, param_shapes(SPECS), where, whole)
    state_at = TrainState(params=where, opt_state=moments, reference=where, step=whole)
    start = functools.partial(TrainState.start, optimizer=optimizer, cfg=GRPO, trained=ALL)
    state = fakes.quick_jit(start, out_shardings=state_at)(params)
    advantage = np.random.default_rng(2).normal(size=(PAIRS, GROUP)).astype(np.float32)
    update = fakes.quick_jit(
        make_update(GRPO, fakes.CONFIG, optimizer, ALL, temperature=1.0),
        out_shardings=(state_at, whole, None),
    )
    state, stats, _ = update(state, prompt, images, rollout, sharding.shard_global(advantage, mesh))
    return {
        "tokens": np.asarray(rollout.tokens),
        "sampled": np.asarray(rollout.logp),
        "logp": np.asarray(logp) * np.asarray(rollout.valid),
        "stats": jax.device_get(stats),
        "before": jax.device_get(params),
        "after": jax.device_get(state.params),
        "sharded": state.params,
    }


MESHES = pytest.mark.parametrize(("fsdp", "tensor"), [(2, 1), (8, 1), (2, 4)])


@MESHES
def test_the_same_answers_are_drawn_on_any_mesh(fsdp, tensor):
    one, many = run(1, 1), run(fsdp, tensor)
    np.testing.assert_array_equal(many["tokens"], one["tokens"])
    # float32 sums of 32 terms in another order, through two blocks: 1e-5 nats
    np.testing.assert_allclose(many["sampled"], one["sampled"], atol=1e-5)


@MESHES
def test_scores_and_the_update_do_not_depend_on_the_mesh(fsdp, tensor):
    one, many = run(1, 1), run(fsdp, tensor)
    np.testing.assert_allclose(many["logp"], one["logp"], atol=1e-5)
    for name in ("loss", "grad_norm", "entropy"):
        np.testing.assert_allclose(many["stats"][name], one["stats"][name], rtol=1e-4, atol=1e-6)
    assert many["stats"]["kl"] == 0
    moved = jax.tree.map(lambda a, b: np.abs(a - b).max(), one["after"], one["before"])
    assert max(jax.tree.leaves(moved)) > 1e-4, "the update must move something to compare"
    jax.tree.map(
        lambda a, b: np.testing.assert_allclose(a, b, atol=2e-6), many["after"], one["after"]
    )


@MESHES
def test_weights_and_moments_really_are_split(fsdp, tensor):
    for name in ("wq", "w_gate"):
        leaf = run(fsdp, tensor)["sharded"]["blocks"][name]
        assert leaf.addressable_shards[0].data.size * fsdp * tensor == leaf.size, name


def test_another_advantage_gives_another_update():
    """The comparison above could not fail if the update ignored its input."""
    changed = run(1, 1)["after"]["blocks"]["wq"] - run(1, 1)["before"]["blocks"]["wq"]
    assert jnp.abs(changed).max() > 0
