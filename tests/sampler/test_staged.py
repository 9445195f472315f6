"""Sampling in several programs draws what one program draws, and compiles once."""

import dataclasses
import logging
from functools import cache

import jax
import numpy as np
import pytest

from dig_jax.config import Config, EvalConfig, MeshConfig, RolloutConfig
from dig_jax.inputs.decoding import Decoding
from dig_jax.mesh import programs, sharding
from dig_jax.model import qwen3vl
from dig_jax.sampler import rollout
from dig_jax.sampler.stages import cost, make_plan
from tests import tiny_model

PAIRS, GROUP, TOKENS = 8, 4, 12
ONE = RolloutConfig(group=GROUP, max_tokens=TOKENS)  # a single program
GROWN = dataclasses.replace(ONE, chunk=3)
PACKED = dataclasses.replace(ONE, chunk=5, compact=0.5)
SIZES = [[tiny_model.SIZE, tiny_model.SIZE]] * PAIRS
WORDS = [2, 5, 3, 4, 2, 6, 3, 5]  # prompts of unequal length, which packing must keep apart


@cache
def layout(settings: RolloutConfig, fsdp: int = 1, tensor: int = 1) -> tiny_model.QuickLayout:
    cfg = Config(
        pairs_per_step=PAIRS,
        eval=EvalConfig(batch=PAIRS),
        rollout=settings,
        mesh=MeshConfig(fsdp=fsdp, tensor=tensor),
    )
    mesh = sharding.make_mesh(cfg.mesh, devices=jax.devices()[: fsdp * tensor])
    return tiny_model.QuickLayout(cfg, mesh, tiny_model.CONFIG)


@cache
def policy(strength: float):
    """Stops sooner the stronger it leans to its two stop tokens."""
    return tiny_model.leaning(
        tiny_model.make_tiny(jax.random.key(0)), tiny_model.CONFIG.eos_tokens, strength
    )


@cache
def sampler(settings: RolloutConfig, fsdp: int = 1, tensor: int = 1):
    return programs.jit_sampler(layout(settings, fsdp, tensor))


def draw(settings: RolloutConfig, *mesh: int, strength: float = 5.0, seed: int = 1, first: int = 0):
    on = layout(settings, *mesh)
    asked = tiny_model.fake_prompt(SIZES, WORDS), tiny_model.fake_images(SIZES)
    weights = programs.jit_reshard(on)(jax.device_put(policy(strength), on.shardings))
    given = (weights, *sharding.shard_global(asked, on.mesh), jax.random.key(seed))
    return jax.device_get(sampler(settings, *mesh)(*given, first))


def same(found: rollout.Rollout, expected: rollout.Rollout) -> None:
    for name in ("tokens", "valid", "ended"):
        np.testing.assert_array_equal(getattr(found, name), getattr(expected, name))
    # float32, sums in another order: as between two meshes (test_mesh)
    np.testing.assert_allclose(found.logp, expected.logp, atol=1e-5)


def plan_of(settings: RolloutConfig, shards: int = 1):
    how = {"chunk": settings.chunk, "compact": settings.compact, "shards": shards}
    return make_plan(PAIRS, GROUP, TOKENS, **how)


@cache
def expected():
    found = draw(ONE)
    assert not found.ended.all(), "some answers must be cut off"
    assert found.lengths.min() < PACKED.chunk
    return found


@pytest.mark.parametrize("settings", [pytest.param(GROWN, marks=pytest.mark.slow), PACKED])
def test_several_programs_draw_the_tokens_of_one(settings):
    same(draw(settings), expected())
    visited = [stage for stage, _ in cost(expected().lengths, plan_of(settings)).visits]
    assert len(visited) >= 3, "the case must pass through several shapes"
    assert bool(settings.compact) == (visited[-1].rows < PAIRS * GROUP)


def test_draws_of_a_packed_rollout_depend_on_the_global_row_alone():
    same(draw(PACKED, first=3), draw(ONE, first=3))
    assert (draw(PACKED, first=3).tokens != expected().tokens).any()


@pytest.mark.slow
def test_on_a_mesh_rows_are_packed_within_their_shard_and_drawn_alike():
    """Two shards of 16 rows, which are packed into 8; heads over two devices."""
    plan = plan_of(PACKED, shards=2)
    assert cost(expected().lengths, plan).visits[-1][0].rows == 16
    same(draw(PACKED, 2, 2), expected())


def test_nothing_is_compiled_after_the_first_call(caplog):
    """Whatever the answers' lengths: all end at once, none ends, some end."""
    draw(PACKED)
    with caplog.at_level(logging.WARNING), jax.log_compiles():
        lengths = [draw(PACKED, strength=s, seed=2).lengths.mean() for s in (1000.0, -1000.0, 6.0)]
    assert lengths[0] == 1
    assert lengths[1] == TOKENS
    assert 1 < lengths[2] < TOKENS
    compiled = [line for line in caplog.messages if "Compiling" in line and "sample" in line]
    assert not compiled


@pytest.mark.slow
def test_the_rows_computed_are_those_of_the_plan(monkeypatch):
    """Each step's slots, as `stages.cost` counts them: nothing waits for the longest answer."""
    steps = []

    def counted(params, config, cache, answers, token, step):
        shape = (*token.shape, answers.length)
        jax.debug.callback(lambda s: steps.append((int(s), shape)), step)
        return qwen3vl.decode_token(params, config, cache, answers, token, step)

    monkeypatch.setattr(rollout, "decode_token", counted)
    settings = dataclasses.replace(PACKED, chunk=0)
    same(draw(settings), expected())
    jax.effects_barrier()
    visits = cost(expected().lengths, plan_of(settings)).visits
    shapes = [(s.entries, s.slots, s.length) for s, count in visits for _ in range(count)]
    assert sorted(steps) == list(enumerate(shapes))


@pytest.mark.slow
def test_a_greedy_packed_rollout_of_every_answer_on_every_device():
    """As evaluation asks for it, with blocks one after the other and caches of their own."""
    settings = dataclasses.replace(PACKED, chunk=0, layers="unroll")
    found = {}
    for name, how in (("one", ONE), ("packed", settings)):
        on = layout(how)
        sample = programs.jit_sampler(on, group=2, decoding=Decoding(0.0), whole=True)
        asked = tiny_model.fake_prompt(SIZES, WORDS), tiny_model.fake_images(SIZES)
        found[name] = sample(policy(5.0), *asked, jax.random.key(0))
        assert found[name].tokens.sharding.is_fully_replicated
    same(jax.device_get(found["packed"]), jax.device_get(found["one"]))


def test_every_program_can_be_lowered_with_shapes_alone():
    """On a mesh, as a preflight does: no array, every argument with its place."""
    on = layout(PACKED, 2, 2)
    asked = sharding.shard_global(
        (tiny_model.fake_prompt(SIZES, WORDS), tiny_model.fake_images(SIZES)), on.mesh
    )
    shapes = jax.tree.map(lambda a: jax.ShapeDtypeStruct(a.shape, a.dtype, sharding=a.sharding),
                          asked)  # fmt: skip
    key = jax.eval_shape(lambda: jax.random.key(0))
    key = jax.ShapeDtypeStruct(key.shape, key.dtype, sharding=sharding.replicated(on.mesh))
    found = programs.sampler_programs(on, programs.rollout_shapes(on), *shapes, key)
    assert {"start", "finish", "decode_0", "grow_0", "pack_2", "settle_3"} <= set(found)
    cache = found["decode_2"].given[2].answers.k
    assert cache.shape[-2] == TOKENS
    for name, program in found.items():
        assert all(leaf.sharding for leaf in jax.tree.leaves(program.given)), name
        assert "sample_" + name in program.lower().as_text()
    one = programs.sampler_programs(layout(ONE), programs.rollout_shapes(layout(ONE)), *shapes, key)
    assert list(one) == ["sample"]
