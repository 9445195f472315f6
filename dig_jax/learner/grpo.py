"""GRPO: group-relative advantages, a clipped surrogate, and a KL to the reference.

The loss of one minibatch of B pairs with G answers each, by default:

    ratio     = exp(logp - old)
    surrogate = min(ratio A, clip(ratio, 1 - low, 1 + high) A),  not below dual * A where A < 0
    k3        = exp(ref - logp) - (ref - logp) - 1
    loss      = sum(-surrogate + beta k3) / tokens of the minibatch

`advantage` and `objective` hold the pieces and their published variants; `GrpoConfig` chooses.
With one update per rollout, `old` is the policy itself and the ratio exactly 1.
"""

from collections.abc import Callable, Sequence
from functools import partial

import jax
import jax.numpy as jnp

from dig_jax.config import GrpoConfig
from dig_jax.learner.advantage import group_advantage
from dig_jax.learner.gradient import make_gradient
from dig_jax.learner.loss import Answers, Unmoved
from dig_jax.learner.objective import (
    kl_penalty,
    most_uncertain,
    token_weights,
    trained_tokens,
)
from dig_jax.learner.optim import Optimizer
from dig_jax.learner.packing import Plan
from dig_jax.learner.slices import join_pairs, pair_slices
from dig_jax.learner.state import TrainState, as_reference, fetched
from dig_jax.learner.trainable import join, split
from dig_jax.learner.turns import make_scores
from dig_jax.model.config import ModelConfig
from dig_jax.sampler.rollout import Rollout


def make_update(
    cfg: GrpoConfig,
    config: ModelConfig,
    optimizer: Optimizer,
    trained: frozenset[str],
    *,
    temperature: float,
    part_weights: Sequence[float] = (),
) -> Callable:
    """Bind the statics; returns update(state, prompt, images, rollout, reward, plan=None).

    trained       paths of the parameters that move (`trainable.trained_names`)
    part_weights  of the reward's parts, with `advantage` "parts"

    prompt    PromptInputs of B rows
    images    u8[B, I, Y, X, 3], or SeenImages
    rollout   Rollout of the B pairs
    reward    f32[B, G]; with `advantage` "parts" f32[B, G, parts]
    plan      how answers are packed (`packing.make_plan`); None: all of them T tokens long
    ->        TrainState with `step` advanced; metrics f32[] by name; and of every answer the
              advantage f32[B, G] and the parts of the loss f32[updates, B / minibatches, G]

    Runs epochs x minibatches optimiser updates, each over `accumulate` slices of pairs. Where loss
    or gradient is not finite nothing moves, nor after it: `finite` is then 0. Without a gradient
    (flat groups, masked answers) neither weights nor moments move, by which earlier gradients would
    go on; `moved` is the share of others.
    """
    judge = make_judge(cfg, config, temperature=temperature, part_weights=part_weights)
    gradient = make_gradient(cfg, config, temperature=temperature)

    def update(state: TrainState, prompt, images, rollout: Rollout, reward, plan=None):
        part, frozen = split(state.params, trained)
        pairs, reference = (prompt, images), fetched(cfg, state.reference)
        answers, flat = judge(part, frozen, reference, pairs, rollout, reward, plan)
        minibatches = pair_slices((pairs, answers), cfg.minibatches)

        def move(carry, number):
            part, opt_state, good = carry
            pick = partial(jax.tree.map, lambda a: a[number % cfg.minibatches])
            (pairs, minibatch), packed = pick(minibatches), pick(plan)
            minibatch = minibatch.replace(weight=token_weights(minibatch.weight > 0, cfg))
            unmoved = Unmoved(old=number == 0, reference=_unmoved(cfg, part, reference))
            grads, metrics, parts = gradient(part, frozen, pairs, minibatch, unmoved, packed)
            moved, moments, norm = optimizer.update(grads, opt_state, part, state.step)
            good = good & jnp.isfinite(metrics["loss"]) & jnp.isfinite(norm)
            moves = good & (norm > 0)
            new = jax.tree.map(
                lambda a, b: jnp.where(moves, a, b), (moved, moments), (part, opt_state)
            )
            seen = {"grad_norm": norm, "moved": moves.astype(jnp.float32)}
            return (*new, good), (metrics | seen, parts)

        start, updates = (part, state.opt_state, jnp.bool_(True)), cfg.epochs * cfg.minibatches
        (part, opt_state, good), (metrics, parts) = jax.lax.scan(move, start, jnp.arange(updates))
        state = state.replace(params=join(part, frozen), opt_state=opt_state, step=state.step + 1)
        metrics = {n: x.max() if n.endswith("_max") else x.mean() for n, x in metrics.items()}
        metrics |= {"flat_groups": flat.mean(), "finite": good.astype(jnp.float32)}
        return state, metrics, {"advantage": answers.advantage, **parts}

    return update


def make_judge(
    cfg: GrpoConfig, config: ModelConfig, *, temperature: float, part_weights: Sequence[float] = ()
) -> Callable:
    """Bind the statics; returns judge(part, frozen, reference, pairs, rollout, reward, plan).

    reference  the trained parameters that the KL pulls towards; None without
    ->         Answers of all B pairs, with what is compared with: the log-probs of the policy as
               it is and of the reference, as far as the loss needs them; which groups are flat,
               bool[B]
    """
    score = make_scores(cfg, config, temperature=temperature)
    shaped = cfg.kl_coef > 0 and cfg.kl_in == "reward"
    several, share = cfg.epochs * cfg.minibatches > 1, cfg.entropy_share

    def judge(part, frozen, reference, pairs, rollout: Rollout, reward, plan: Plan | None):
        old = theirs = chosen = None
        if several or shaped or share < 1:
            old, entropy = score(join(part, frozen), pairs, rollout.tokens, plan)
        if cfg.kl_coef:
            theirs, _ = score(join(reference, frozen), pairs, rollout.tokens, plan)
        if shaped:
            compared = jnp.where(_unmoved(cfg, part, reference), old, theirs)
            gap = jnp.where(rollout.valid, kl_penalty(old, compared, cfg), 0.0)
            reward = reward - cfg.kl_coef * gap.sum(-1)
        advantage, flat = group_advantage(cfg, reward, part_weights)
        trained = trained_tokens(rollout.valid, rollout.ended, cfg)
        if share < 1:
            minibatches = pair_slices((entropy, trained), cfg.minibatches)
            chosen = join_pairs(jax.vmap(partial(most_uncertain, share=share))(*minibatches))
        answers = Answers(
            tokens=rollout.tokens,
            weight=trained.astype(jnp.float32),
            sampled=rollout.logp,
            old=old if several else None,
            reference=theirs,
            advantage=advantage,
            chosen=chosen,
        )
        return answers, flat

    return judge


def _unmoved(cfg: GrpoConfig, part, reference) -> jax.Array | bool:
    """Whether the policy's trained weights are the reference's, to the bit; bool[]."""
    if not cfg.kl_coef:
        return False
    same = jax.tree.map(lambda a, b: (a == b).all(), as_reference(cfg, part), reference)
    return jax.tree.reduce(jnp.logical_and, same)
