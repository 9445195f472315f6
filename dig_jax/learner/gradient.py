"""Loss and gradient of a minibatch, in slices of its pairs and of their answers.

Added to as it comes: a gradient is as large as the weights, and two are too many.
"""

from collections.abc import Callable

import jax
import jax.numpy as jnp

from dig_jax.config import GrpoConfig
from dig_jax.learner.loss import Answers, Unmoved, token_loss
from dig_jax.learner.trainable import join
from dig_jax.model.config import ModelConfig
from dig_jax.model.qwen3vl import PromptCache, encode_prompt
from dig_jax.sampler.scorer import group_slices, join_groups, make_answer_scorer


def make_gradient(cfg: GrpoConfig, config: ModelConfig, *, temperature: float) -> Callable:
    """Bind the statics; returns gradient(part, frozen, pairs, minibatch, unmoved).

    part, frozen  the parameters that move, and the others (`trainable.split`)
    pairs         (PromptInputs of B rows, images)
    minibatch     Answers of the B pairs
    unmoved       Unmoved
    ->            gradient of `part`; metrics f32[] by name; parts of the loss f32[B, G] by name

    `cfg.accumulate` slices of pairs, one after the other.
    """
    add_pairs = _make_add_pairs(cfg, config, temperature=temperature)

    def gradient(part, frozen, pairs, minibatch: Answers, unmoved: Unmoved):
        def add(total, some):
            return add_pairs(total, part, frozen, *some, unmoved)

        zeros = jax.tree.map(jnp.zeros_like, part)
        slices = pair_slices((pairs, minibatch), cfg.accumulate)
        grads, (losses, seen) = jax.lax.scan(add, zeros, slices)
        tokens = jnp.maximum((minibatch.weight > 0).sum(), 1)
        parts = join_pairs(jax.vmap(join_groups)(seen["loss"]))
        metrics = {"loss": losses.sum()} | {f"loss_{k}": x.sum() for k, x in parts.items()}
        metrics |= {name: x.sum() / tokens for name, x in seen["sum"].items()}
        return grads, metrics | {name: x.max() for name, x in seen["max"].items()}, parts

    return gradient


def _make_add_pairs(cfg: GrpoConfig, config: ModelConfig, *, temperature: float) -> Callable:
    """add_pairs(total, part, frozen, pairs, answers, unmoved) -> (total + gradient, what is seen).

    Prompts are encoded once both ways, their answers follow in `cfg.answer_slices` parts.
    """
    answer_gradient = _make_answer_gradient(cfg, config, temperature=temperature)

    def add_pairs(total, part, frozen, pairs, answers: Answers, unmoved: Unmoved):
        def encode(part):
            cache = encode_prompt(join(part, frozen), config, *pairs)
            return _floats(cache), cache

        floats, pull, cache = jax.vjp(encode, part, has_aux=True)

        def add(total, some):
            found, grads = answer_gradient(part, frozen, cache, some, unmoved)
            return jax.tree.map(jnp.add, total, grads), found

        zeros = jax.tree.map(lambda a: jnp.zeros(a.shape, jnp.float32), floats)
        slices = group_slices(answers, cfg.answer_slices)
        (total, through_prompt), found = jax.lax.scan(add, (total, zeros), slices)
        through_prompt = jax.tree.map(lambda a, like: a.astype(like.dtype), through_prompt, floats)
        return jax.tree.map(jnp.add, total, pull(through_prompt)[0]), found

    return add_pairs


def _make_answer_gradient(cfg: GrpoConfig, config: ModelConfig, *, temperature: float) -> Callable:
    """answer_gradient(...) -> (loss, seen), gradients of (part, the floats of the cache)."""
    scorer = make_answer_scorer(config, temperature=temperature, chunk=cfg.vocab_chunk)

    def answer_gradient(part, frozen, cache: PromptCache, answers: Answers, unmoved: Unmoved):
        def loss(part, floats):
            read = cache.replace(k=floats[0], v=floats[1], hidden=floats[2])
            logp, entropy = scorer(join(part, frozen), read, answers.tokens)
            entropy = entropy if cfg.entropy_coef else jax.lax.stop_gradient(entropy)
            return token_loss(logp, entropy, answers, cfg, unmoved)

        return jax.value_and_grad(loss, argnums=(0, 1), has_aux=True)(part, _floats(cache))

    return answer_gradient


def _floats(cache: PromptCache) -> tuple[jax.Array, jax.Array, jax.Array]:
    """What a gradient can pass through."""
    return cache.k, cache.v, cache.hidden


def pair_slices(tree, count: int):
    """[B, ...] -> [count, B/count, ...]; slice i takes pairs i, i + count, ...

    Interleaved, so that a batch sharded over devices keeps every slice spread over all of them.
    """
    return jax.tree.map(lambda a: a.reshape(-1, count, *a.shape[1:]).swapaxes(0, 1), tree)


def join_pairs(tree):
    """The inverse of `pair_slices`."""
    return jax.tree.map(lambda a: a.swapaxes(0, 1).reshape(-1, *a.shape[2:]), tree)
