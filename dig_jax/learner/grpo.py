"""GRPO: group-relative advantages, a clipped surrogate, and a KL to the reference.

The loss of one minibatch of B pairs with G answers each, by default:

    ratio     = exp(logp - old)
    surrogate = min(ratio A, clip(ratio, 1 - low, 1 + high) A),  not below dual * A where A < 0
    k3        = exp(ref - logp) - (ref - logp) - 1
    loss      = sum(-surrogate + beta k3) / tokens of the minibatch

`advantage` and `objective` hold the pieces and their published variants; `GrpoConfig` chooses.
With one update per rollout, `old` is the policy itself and the ratio exactly 1.
"""

from collections.abc import Callable

import jax
import jax.numpy as jnp
from flax import struct

from dig_jax.config import Config, CurriculumConfig, GrpoConfig
from dig_jax.learner.advantage import group_advantage
from dig_jax.learner.loss import Answers, Unmoved, token_loss
from dig_jax.learner.objective import kl_penalty, token_weights, trained_tokens
from dig_jax.learner.optim import Optimizer
from dig_jax.learner.trainable import join, split
from dig_jax.model.config import ModelConfig
from dig_jax.model.params import Params
from dig_jax.model.qwen3vl import PromptCache, encode_prompt
from dig_jax.sampler.rollout import (
    Rollout,
    group_slices,
    join_groups,
    make_answer_scorer,
    make_scorer,
)


@struct.dataclass
class TrainState:
    """What a checkpoint holds; everything else is a function of `step`.

    params     f32, nested dict of the Spec table
    opt_state  of `optim.make_optimizer`
    reference  trained part of the params that the KL pulls towards, in `grpo.reference`'s form;
               None when grpo.kl_coef is 0
    step       i32[]   rollout batches done
    """

    params: Params
    opt_state: object
    reference: Params | None
    step: jax.Array

    @classmethod
    def start(
        cls, params: Params, optimizer: Optimizer, cfg: GrpoConfig, trained: frozenset[str]
    ) -> "TrainState":
        """Step 0: the policy is its own reference."""
        part = split(params, trained)[0]
        return cls(
            params=params,
            opt_state=optimizer.init(part),
            reference=as_reference(cfg, part) if cfg.kl_coef else None,
            step=jnp.int32(0),
        )


def as_reference(cfg: GrpoConfig, trained: Params) -> Params:
    """A copy of the trained parameters as `cfg.reference` keeps them."""
    dtype = jnp.bfloat16 if cfg.reference == "bfloat16" else jnp.float32
    return jax.tree.map(lambda a: jnp.array(a, dtype, copy=True), trained)


def fetched(cfg: GrpoConfig, reference: Params | None) -> Params | None:
    """The reference in the device's memory, from wherever `cfg.reference` keeps it."""
    if cfg.reference != "host":
        return reference
    return jax.tree.map(lambda a: jax.device_put(a, jax.memory.Space.Device), reference)


def enter_stage(cfg: Config, state: TrainState, trained: frozenset[str]) -> TrainState:
    """The state at the first step of a later curriculum stage.

    Relaunching a trainer per stage silently moves the reference and resets Adam; here both are
    choices: `curriculum.reference` "per_stage" makes the policy the new reference,
    `curriculum.optimizer` "reset" zeroes the moments.
    """
    policy: CurriculumConfig = cfg.curriculum
    if policy.reference == "per_stage" and state.reference is not None:
        part = split(state.params, trained)[0]
        state = state.replace(reference=as_reference(cfg.grpo, part))
    if policy.optimizer == "reset":
        state = state.replace(opt_state=jax.tree.map(jnp.zeros_like, state.opt_state))
    return state


def make_update(
    cfg: GrpoConfig,
    config: ModelConfig,
    optimizer: Optimizer,
    trained: frozenset[str],
    *,
    temperature: float,
) -> Callable:
    """Bind the statics; returns update(state, prompt, images, rollout, reward).

    trained   paths of the parameters that move (`trainable.trained_names`)

    prompt    PromptInputs of B rows
    images    u8[B, I, Y, X, 3], or SeenImages
    rollout   Rollout of the B pairs
    reward    f32[B, G]
    ->        TrainState with `step` advanced; metrics f32[] by name; and of every answer the
              advantage f32[B, G] and the parts of the loss f32[updates, B / minibatches, G]

    Runs epochs x minibatches optimiser updates, each over `accumulate` slices of pairs. An update
    whose loss or gradient is not finite moves nothing, nor does any after it: `finite` is then 0.
    """
    how = {"temperature": temperature, "chunk": cfg.vocab_chunk}
    scorer = make_scorer(config, slices=cfg.answer_slices, **how)
    answer_scorer = make_answer_scorer(config, **how)
    updates = cfg.epochs * cfg.minibatches
    shaped = cfg.kl_coef > 0 and cfg.kl_in == "reward"

    def score(params, prompt, images, tokens):
        """Log-probs only, in the slices of the update: equal shapes give equal bits."""
        slices = _slices((prompt, images, tokens), cfg.minibatches * cfg.accumulate)
        logp = jax.lax.map(lambda s: scorer(params, *s)[0], slices)
        return _join(logp)

    def answer_gradient(part, frozen, cache: PromptCache, answers: Answers, unmoved):
        """(loss, seen), gradients of (part, the floats of the cache)."""
        floats = (cache.k, cache.v, cache.hidden)

        def loss(part, floats):
            read = cache.replace(k=floats[0], v=floats[1], hidden=floats[2])
            logp, entropy = answer_scorer(join(part, frozen), read, answers.tokens)
            entropy = entropy if cfg.entropy_coef else jax.lax.stop_gradient(entropy)
            return token_loss(logp, entropy, answers, cfg, unmoved)

        return jax.value_and_grad(loss, argnums=(0, 1), has_aux=True)(part, floats)

    def add_slice(total, part, frozen, pairs, answers: Answers, unmoved):
        """total + the gradient of some pairs: prompts once both ways, their answers in parts.

        Added to as it comes: a gradient is as large as the weights, and two are too many.
        """

        def encode(part):
            cache = encode_prompt(join(part, frozen), config, *pairs)
            return (cache.k, cache.v, cache.hidden), cache

        floats, pull, cache = jax.vjp(encode, part, has_aux=True)

        def add(total, some):
            found, grads = answer_gradient(part, frozen, cache, some, unmoved)
            return jax.tree.map(jnp.add, total, grads), found

        zeros = jax.tree.map(lambda a: jnp.zeros(a.shape, jnp.float32), floats)
        slices = group_slices(answers, cfg.answer_slices)
        (total, through_prompt), found = jax.lax.scan(add, (total, zeros), slices)
        through_prompt = jax.tree.map(lambda a, like: a.astype(like.dtype), through_prompt, floats)
        return jax.tree.map(jnp.add, total, pull(through_prompt)[0]), found

    def gradient(part, frozen, pairs, minibatch: Answers, unmoved: Unmoved):
        def add(total, some):
            return add_slice(total, part, frozen, *some, unmoved)

        zeros = jax.tree.map(jnp.zeros_like, part)
        slices = _slices((pairs, minibatch), cfg.accumulate)
        grads, (losses, seen) = jax.lax.scan(add, zeros, slices)
        tokens = jnp.maximum((minibatch.weight > 0).sum(), 1)
        parts = _join(jax.vmap(join_groups)(seen["loss"]))
        metrics = {"loss": losses.sum()} | {f"loss_{k}": x.sum() for k, x in parts.items()}
        metrics |= {name: x.sum() / tokens for name, x in seen["sum"].items()}
        return grads, metrics | {name: x.max() for name, x in seen["max"].items()}, parts

    def update(state: TrainState, prompt, images, rollout: Rollout, reward):
        part, frozen = split(state.params, trained)
        known = (prompt, images, rollout.tokens)
        needs_old = updates > 1 or shaped
        old = score(state.params, *known) if needs_old else None
        resident, reference = fetched(cfg, state.reference), None
        if cfg.kl_coef:
            reference = score(join(resident, frozen), *known)
        if shaped:
            still = _equal(as_reference(cfg, part), resident)
            gap = kl_penalty(old, jnp.where(still, old, reference), cfg)
            reward = reward - cfg.kl_coef * jnp.where(rollout.valid, gap, 0.0).sum(-1)
        advantage, flat = group_advantage(cfg, reward)
        batch = Answers(
            tokens=rollout.tokens,
            weight=trained_tokens(rollout.valid, rollout.ended, cfg).astype(jnp.float32),
            sampled=rollout.logp,
            old=old if updates > 1 else None,
            reference=reference,
            advantage=advantage,
        )
        minibatches = _slices(((prompt, images), batch), cfg.minibatches)

        def one(carry, number):
            part, opt_state, good = carry
            pairs, minibatch = jax.tree.map(lambda a: a[number % cfg.minibatches], minibatches)
            minibatch = minibatch.replace(weight=token_weights(minibatch.weight > 0, cfg))
            same = _equal(as_reference(cfg, part), resident) if cfg.kl_coef else False
            unmoved = Unmoved(old=number == 0, reference=same)
            grads, metrics, parts = gradient(part, frozen, pairs, minibatch, unmoved)
            moved, moments, norm = optimizer.update(grads, opt_state, part, state.step)
            good = good & jnp.isfinite(metrics["loss"]) & jnp.isfinite(norm)
            new = jax.tree.map(
                lambda a, b: jnp.where(good, a, b), (moved, moments), (part, opt_state)
            )
            return (*new, good), (metrics | {"grad_norm": norm}, parts)

        start = (part, state.opt_state, jnp.bool_(True))
        (part, opt_state, good), (metrics, parts) = jax.lax.scan(one, start, jnp.arange(updates))
        params = join(part, frozen)
        state = state.replace(params=params, opt_state=opt_state, step=state.step + 1)
        metrics = {n: x.max() if n.endswith("_max") else x.mean() for n, x in metrics.items()}
        metrics |= {"flat_groups": flat.mean(), "finite": good.astype(jnp.float32)}
        return state, metrics, {"advantage": advantage, **parts}

    return update


def _equal(a, b) -> jax.Array:
    """Whether two trees of arrays are the same numbers; bool[]."""
    same = jax.tree.map(lambda x, y: (x == y).all(), a, b)
    return jax.tree.reduce(jnp.logical_and, same)


def _slices(tree, count: int):
    """[B, ...] -> [count, B/count, ...]; slice i takes pairs i, i + count, ...

    Interleaved, so that a batch sharded over devices keeps every slice spread over all of them.
    """
    return jax.tree.map(lambda a: a.reshape(-1, count, *a.shape[1:]).swapaxes(0, 1), tree)


def _join(tree):
    """The inverse of `_slices`."""
    return jax.tree.map(lambda a: a.swapaxes(0, 1).reshape(-1, *a.shape[2:]), tree)
