"""The update's memory, read from the compiler: nothing in it grows with the vocabulary."""

from dataclasses import replace
from functools import cache

import jax
import jax.numpy as jnp
import pytest

from dig_jax.config import GrpoConfig, OptimConfig
from dig_jax.learner.grpo import make_update
from dig_jax.learner.optim import make_optimizer
from dig_jax.learner.state import TrainState
from dig_jax.learner.trainable import parameter_names, split
from dig_jax.model.params import param_shapes
from dig_jax.model.specs import model_specs
from dig_jax.sampler.rollout import Rollout
from tests import tiny_model

PAIRS, GROUP, LENGTH = 2, 8, 64  # 1,024 answer tokens: [tokens, V] would be 0.6 GB at Qwen's V
SMALL, QWEN = 32_000, 151_936
TABLES = ("embed", "head")


@cache
def peak(vocab: int, *, frozen: tuple[str, ...] = (), chunk: int = 4096) -> int:
    """Bytes that the compiled update needs beside its arguments; nothing is run."""
    text = replace(tiny_model.CONFIG.text, vocab=vocab, layers=1)
    vision = replace(tiny_model.CONFIG.vision, depth=1)
    config = replace(tiny_model.CONFIG, text=text, vision=vision)
    shapes = param_shapes(model_specs(config))
    names = frozenset(name for name in parameter_names(shapes) if name not in frozen)
    optimizer = make_optimizer(OptimConfig(), 10, split(shapes, names)[0])
    cfg = GrpoConfig(vocab_chunk=chunk)
    state = jax.eval_shape(lambda p: TrainState.start(p, optimizer, cfg, names), shapes)

    def array(*shape, dtype=jnp.float32):
        return jax.ShapeDtypeStruct((PAIRS, GROUP, *shape), dtype)

    rollout = Rollout(
        tokens=array(LENGTH, dtype=jnp.int32),
        valid=array(LENGTH, dtype=bool),
        ended=array(dtype=bool),
        logp=array(LENGTH),
    )
    update = make_update(cfg, config, optimizer, names, temperature=1.0)
    jitted = tiny_model.quick_jit(update, donate_argnums=0)
    compiled = jitted.lower(state, *tiny_model.pairs_of(PAIRS), rollout, array()).compile()
    return compiled.memory_analysis().temp_size_in_bytes


@pytest.mark.slow
def test_peak_memory_does_not_grow_with_the_vocabulary():
    small, large = (peak(vocab, frozen=TABLES) for vocab in (SMALL, QWEN))
    print(f"update beside its arguments: {small / 1e6:.1f} MB at V={SMALL}, {large / 1e6:.1f} MB "
          f"at V={QWEN}")  # fmt: skip
    assert abs(large / small - 1) < 0.10


@pytest.mark.slow
def test_one_chunk_of_the_whole_vocabulary_would_grow():
    """The ablation: without chunks the logits of all answer tokens exist, twice and more."""
    tokens = PAIRS * GROUP * LENGTH
    assert peak(QWEN, frozen=TABLES, chunk=QWEN) > 2 * 4 * tokens * QWEN


@pytest.mark.slow
def test_trained_tables_add_what_training_them_takes_and_no_logits():
    """Of both tables: gradient, its running sum, Adam's move. All logits once: 40 of these."""
    grown = peak(QWEN) - peak(SMALL)
    one_table = 4 * (QWEN - SMALL) * tiny_model.CONFIG.text.width
    assert grown < 2 * 3.5 * one_table
