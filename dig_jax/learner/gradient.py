"""Loss and gradient of a minibatch, in slices of its pairs and in turns of their answers.

Added to as it comes: a gradient is as large as the weights, and two are too many.
"""

from collections.abc import Callable

import jax
import jax.numpy as jnp

from dig_jax.config import GrpoConfig
from dig_jax.learner.loss import Answers, Unmoved, token_loss
from dig_jax.learner.packing import Plan
from dig_jax.learner.slices import join_pairs, pair_slices, turns_of
from dig_jax.learner.trainable import join
from dig_jax.learner.turns import make_turn_scorer, over_turns
from dig_jax.model.config import ModelConfig
from dig_jax.model.qwen3vl import PromptCache, encode_prompt


def make_gradient(cfg: GrpoConfig, config: ModelConfig, *, temperature: float) -> Callable:
    """Bind the statics; returns gradient(part, frozen, pairs, minibatch, unmoved, plan).

    part, frozen  the parameters that move, and the others (`trainable.split`)
    pairs         (PromptInputs of B rows, images)
    minibatch     Answers of the B pairs
    unmoved       Unmoved
    plan          Plan of this minibatch, its leaves without M; None: padded
    ->            gradient of `part`; metrics f32[] by name; parts of the loss f32[B, G] by name

    `cfg.accumulate` slices of pairs, one after the other.
    """
    add_pairs = _make_add_pairs(cfg, config, temperature=temperature)

    def gradient(part, frozen, pairs, minibatch: Answers, unmoved: Unmoved, plan: Plan | None):
        def add(total, some):
            return add_pairs(total, part, frozen, *some, unmoved)

        zeros = jax.tree.map(jnp.zeros_like, part)
        slices, turns = pair_slices((pairs, minibatch), cfg.accumulate, plan), turns_of(plan)
        grads, seen = jax.lax.scan(add, zeros, (*slices, turns))
        tokens = jnp.maximum((minibatch.weight > 0).sum(), 1)
        parts = join_pairs(seen["loss"], plan)
        sums = {f"loss_{name}": x.sum() for name, x in parts.items()}
        metrics = {"loss": sum(sums.values())} | sums
        metrics |= {name: x.sum() / tokens for name, x in seen["sum"].items()}
        return grads, metrics | {name: x.max() for name, x in seen["max"].items()}, parts

    return gradient


def _make_add_pairs(cfg: GrpoConfig, config: ModelConfig, *, temperature: float) -> Callable:
    """add_pairs(total, part, frozen, pairs, answers, turns, unmoved) -> total + gradient, seen.

    Prompts are encoded once both ways, their answers follow turn by turn.
    """
    answer_gradient = _make_answer_gradient(cfg, config, temperature=temperature)

    def add_pairs(total, part, frozen, pairs, answers: Answers, turns, unmoved: Unmoved):
        def encode(part):
            cache = encode_prompt(join(part, frozen), config, *pairs)
            return _floats(cache), cache

        floats, pull, cache = jax.vjp(encode, part, has_aux=True)

        def turn(total, some: Answers, take):
            grads, seen = answer_gradient(part, frozen, cache, some, take, unmoved)
            return jax.tree.map(jnp.add, total, grads), seen

        zeros = jax.tree.map(lambda a: jnp.zeros(a.shape, jnp.float32), floats)
        start = (total, zeros)
        (total, through_prompt), seen = over_turns(turn, start, answers, turns, cfg.answer_slices)
        through_prompt = jax.tree.map(lambda a, like: a.astype(like.dtype), through_prompt, floats)
        return jax.tree.map(jnp.add, total, pull(through_prompt)[0]), seen

    return add_pairs


def _make_answer_gradient(cfg: GrpoConfig, config: ModelConfig, *, temperature: float) -> Callable:
    """answer_gradient(...) -> gradients of (part, the floats of the cache), seen."""
    scorer = make_turn_scorer(config, temperature=temperature, chunk=cfg.vocab_chunk)

    def answer_gradient(part, frozen, cache: PromptCache, answers: Answers, take, unmoved: Unmoved):
        def loss(part, floats):
            read = cache.replace(k=floats[0], v=floats[1], hidden=floats[2])
            logp, entropy, here = scorer(join(part, frozen), read, answers.tokens, take)
            entropy = entropy if cfg.entropy_coef else jax.lax.stop_gradient(entropy)
            some = answers.replace(weight=jnp.where(here, answers.weight, 0.0))
            return token_loss(logp, entropy, some, cfg, unmoved)

        return jax.grad(loss, argnums=(0, 1), has_aux=True)(part, _floats(cache))

    return answer_gradient


def _floats(cache: PromptCache) -> tuple[jax.Array, jax.Array, jax.Array]:
    """What a gradient can pass through."""
    return cache.k, cache.v, cache.hidden
