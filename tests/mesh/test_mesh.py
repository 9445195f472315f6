"""Sampling, scoring and the update on eight virtual devices equal those on one."""

import dataclasses
import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from dig_jax.config import Config, EvalConfig, GrpoConfig, MeshConfig, OptimConfig, RolloutConfig
from dig_jax.mesh import programs, sharding
from dig_jax.sampler.scorer import make_scorer
from tests import tiny_model

PAIRS, GROUP, LENGTH = 8, 2, 6
CONFIG = Config(
    pairs_per_step=PAIRS,
    eval=EvalConfig(batch=PAIRS),
    rollout=RolloutConfig(group=GROUP, max_tokens=LENGTH),
    # Adam's first step is the gradient's sign unless eps outweighs it: rounding would flip it
    optim=OptimConfig(rate=0.1, eps=1.0, weight_decay=0.0),
    grpo=GrpoConfig(kl_coef=0.1),
)


@functools.cache
def layout(fsdp: int, tensor: int) -> tiny_model.QuickLayout:
    cfg = dataclasses.replace(CONFIG, mesh=MeshConfig(fsdp=fsdp, tensor=tensor))
    mesh = sharding.make_mesh(cfg.mesh, devices=jax.devices()[: fsdp * tensor])
    return tiny_model.QuickLayout(cfg, mesh, tiny_model.CONFIG)


@functools.cache
def run(fsdp: int, tensor: int) -> dict:
    """One step's programs on a mesh, as `train` runs them; numpy values and the sharded trees."""
    on = layout(fsdp, tensor)
    params = jax.device_put(tiny_model.make_tiny(jax.random.key(0)), on.shardings)
    prompt, images = sharding.shard_global(tiny_model.pairs_of(PAIRS), on.mesh)
    weights = programs.jit_reshard(on)(params)
    rollout = programs.jit_sampler(on)(weights, prompt, images, jax.random.key(1))
    scorer = make_scorer(tiny_model.CONFIG, temperature=1.0, chunk=32)
    logp, _ = on.jit(scorer)(params, prompt, images, rollout.tokens)
    reward = np.random.default_rng(2).normal(size=(PAIRS, GROUP)).astype(np.float32)
    start = on.jit(functools.partial(programs.start_state, on),
                   out_shardings=programs.state_shardings(on))  # fmt: skip
    state, update = start(params), programs.jit_update(on)
    reward = sharding.shard_global(reward, on.mesh)
    plan, _ = programs.plan_update(on, jax.device_get(rollout))
    state, stats, _ = update(state, prompt, images, rollout, reward, plan)
    return {
        "tokens": np.asarray(rollout.tokens),
        "sampled": np.asarray(rollout.logp),
        "logp": np.asarray(logp) * np.asarray(rollout.valid),
        "stats": jax.device_get(stats),
        "before": jax.device_get(params),
        "after": jax.device_get(state.params),
        "state": state,
        "weights": weights,
    }


# a minute of compiling each; the first line has the model's logits on a mesh, and the sampler's
MESHES = pytest.mark.parametrize(
    ("fsdp", "tensor"),
    [pytest.param(*one, marks=pytest.mark.slow) for one in ((2, 1), (8, 1), (2, 4))],
)


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
def test_every_device_holds_its_own_part_of_weights_moments_and_reference(fsdp, tensor):
    state = run(fsdp, tensor)["state"]
    for tree in (state.params, state.reference, state.opt_state[1].mu):
        for name in ("wq", "w_gate", "w_down"):
            leaf = tree["blocks"][name]
            assert leaf.addressable_shards[0].data.size * fsdp * tensor == leaf.size, name


@MESHES
def test_the_answering_copy_is_whole_along_fsdp_and_the_same_numbers(fsdp, tensor):
    weights, before = run(fsdp, tensor)["weights"], run(fsdp, tensor)["before"]
    for name in ("wq", "w_gate", "w_down"):
        leaf = weights["blocks"][name]
        assert leaf.addressable_shards[0].data.size * tensor == leaf.size, name
        np.testing.assert_array_equal(leaf, before["blocks"][name])


@pytest.mark.slow
def test_another_advantage_gives_another_update():
    """The comparison above could not fail if the update ignored its input."""
    changed = run(1, 1)["after"]["blocks"]["wq"] - run(1, 1)["before"]["blocks"]["wq"]
    assert jnp.abs(changed).max() > 0
