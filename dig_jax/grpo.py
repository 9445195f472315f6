"""GRPO: group-relative advantages, a clipped surrogate, and a KL to the reference in the loss.

The loss of one batch of B pairs with G answers each, over all valid answer tokens:

    ratio     = exp(logp - old)
    surrogate = min(ratio A, clip(ratio, 1 - low, 1 + high) A),  not below dual * A where A < 0
    k3        = exp(ref - logp) - (ref - logp) - 1
    loss      = sum(-surrogate + beta k3) / tokens of the global minibatch

Where this departs from GRPO as first published:

- token mean over the whole minibatch, not the mean of answer means, so that micro-batches of
  any size and any mesh give the same gradient;
- asymmetric clipping and a dual clip (`GrpoConfig`);
- the advantage of a group whose rewards are all equal is exactly 0: in float32 the mean of
  equal numbers need not be that number, and dividing the rest by a tiny spread is noise;
- with one update per rollout, `old` is the policy itself and the ratio exactly 1.
"""

from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp
from flax import struct

from dig_jax.config import CurriculumConfig, GrpoConfig
from dig_jax.model.params import ModelConfig, Params
from dig_jax.optim import Optimizer
from dig_jax.prompt import PromptInputs
from dig_jax.rollout import Rollout, make_scorer

EXPONENT = 20.0  # log-ratios are clamped to this before exp: e^20 is already absurd


@struct.dataclass
class TrainState:
    """What a checkpoint holds; everything else is a function of `step`.

    params     f32, nested dict of the Spec table
    opt_state  of `optim.make_optimizer`
    reference  params that the KL pulls towards, or None when grpo.kl_coef is 0
    step       i32[]   rollout batches done
    """

    params: Params
    opt_state: object
    reference: Params | None
    step: jax.Array

    @classmethod
    def start(cls, params: Params, optimizer: Optimizer, *, keep_reference: bool) -> "TrainState":
        """Step 0: the policy is its own reference."""
        return cls(
            params=params,
            opt_state=optimizer.init(params),
            reference=jax.tree.map(jnp.copy, params) if keep_reference else None,
            step=jnp.int32(0),
        )


def enter_stage(cfg: CurriculumConfig, optimizer: Optimizer, state: TrainState) -> TrainState:
    """The state at the first step of a later curriculum stage.

    Relaunching a trainer per stage silently moves the reference and resets Adam; here both are
    choices: `cfg.reference` "per_stage" makes the policy the new reference, `cfg.optimizer`
    "reset" zeroes the moments.
    """
    if cfg.reference == "per_stage" and state.reference is not None:
        state = state.replace(reference=jax.tree.map(jnp.copy, state.params))
    if cfg.optimizer == "reset":
        state = state.replace(opt_state=jax.tree.map(jnp.zeros_like, state.opt_state))
    return state


@struct.dataclass
class Answers:
    """What the loss reads of a rollout; every leaf has leading axes [B, G] but the first two.

    prompt     PromptInputs of B rows
    images     u8[B, I, Y, X, 3]
    tokens     i32[B, G, T]
    valid      bool[B, G, T]
    sampled    f32[B, G, T]   the sampler's log-probs, for the gap metric
    old        f32[B, G, T]   log-probs before the first update; None: the policy's own
    reference  f32[B, G, T]   the reference's log-probs; None without KL
    advantage  f32[B, G]
    """

    prompt: PromptInputs
    images: jax.Array
    tokens: jax.Array
    valid: jax.Array
    sampled: jax.Array
    old: jax.Array | None
    reference: jax.Array | None
    advantage: jax.Array


def group_advantage(reward: jax.Array, eps: float) -> tuple[jax.Array, jax.Array]:
    """Rewards relative to their group: (r - mean) / (std + eps), std with ddof 1.

    reward  f32[B, G], G >= 2
    ->      f32[B, G], and bool[B]: groups without spread, whose advantage is exactly 0
    """
    assert reward.ndim == 2, reward.shape
    assert reward.shape[1] > 1, reward.shape
    flat = reward.max(-1) == reward.min(-1)
    centred = reward - reward.mean(-1, keepdims=True)
    spread = reward.std(-1, ddof=1, keepdims=True)
    return jnp.where(flat[:, None], 0.0, centred / (spread + eps)), flat


def surrogate(logp: jax.Array, old: jax.Array, advantage: jax.Array, cfg: GrpoConfig):
    """Clipped policy objective per token, to be maximised.

    logp, old, advantage  f32, same shape
    ->                    f32 objective, f32 ratio
    """
    ratio = jnp.exp(jnp.clip(logp - old, -EXPONENT, EXPONENT))
    clipped = jnp.clip(ratio, 1 - cfg.clip_low, 1 + cfg.clip_high)
    lower = jnp.minimum(ratio * advantage, clipped * advantage)
    bounded = jnp.maximum(lower, cfg.dual_clip * advantage)
    return jnp.where(advantage < 0, bounded, lower), ratio


def k3(logp: jax.Array, reference: jax.Array) -> jax.Array:
    """Schulman's third estimator of KL(policy, reference) per token: >= 0, 0 where equal.

    Unlike the plain log-ratio (k1), its gradient in a loss is not zero in expectation.
    """
    gap = jnp.clip(reference - logp, -EXPONENT, EXPONENT)
    return jnp.expm1(gap) - gap  # exp(gap) - 1 in float32 is noise below gaps of 1e-3, and < 0


class Unmoved(NamedTuple):
    """Whether the policy still has the weights that it is compared with; bool[] each.

    Equal weights have equal log-probs, but two compiled programs round differently. Where the
    weights are equal the policy's own log-probs are used, so that the ratio is exactly 1 and
    the KL exactly 0.
    """

    old: jax.Array | bool = False
    reference: jax.Array | bool = False


def token_loss(
    logp: jax.Array,
    entropy: jax.Array,
    batch: Answers,
    tokens,
    cfg: GrpoConfig,
    unmoved: Unmoved = Unmoved(),  # noqa: B008 (immutable)
):
    """The loss of a slice of the minibatch, and what it says about the update.

    logp, entropy  f32[B, G, T] of the policy being trained
    tokens         f32[]   valid tokens of the whole minibatch: slices add up exactly
    ->             f32[], {"sum": token sums, "max": maxima}
    """

    def kept(x):
        """0 outside the mask, whatever stands there: times the mask, inf would become NaN."""
        return jnp.where(batch.valid, x, 0.0)

    logp, sampled = kept(logp), kept(batch.sampled)
    own = jax.lax.stop_gradient(logp)
    old = own if batch.old is None else jnp.where(unmoved.old, own, kept(batch.old))
    advantage = jnp.broadcast_to(batch.advantage[..., None], logp.shape)
    objective, ratio = surrogate(logp, old, advantage, cfg)
    loss = -kept(objective).sum() / tokens
    up, down = advantage > 0, advantage < 0
    gap = jnp.abs(logp - sampled)
    sums = {
        "entropy": entropy,
        "clip_high": up & (ratio > 1 + cfg.clip_high),
        "clip_low": down & (ratio < 1 - cfg.clip_low),
        "clip_dual": down & (ratio > cfg.dual_clip),
        "sampler_gap": gap,
    }
    if batch.reference is not None:
        reference = jnp.where(unmoved.reference, own, kept(batch.reference))
        penalty = k3(logp, reference)
        loss = loss + cfg.kl_coef * kept(penalty).sum() / tokens
        sums |= {"kl": penalty, "kl_k1": logp - reference}
    maxima = {"ratio_max": kept(ratio).max(), "sampler_gap_max": gap.max()}
    return loss, {"sum": {name: kept(x).sum() for name, x in sums.items()}, "max": maxima}


def make_update(
    cfg: GrpoConfig, config: ModelConfig, optimizer: Optimizer, *, temperature: float
) -> Callable:
    """Bind the statics; returns update(state, prompt, images, rollout, advantage).

    prompt     PromptInputs of B rows
    images     u8[B, I, Y, X, 3]
    rollout    Rollout of the B pairs
    advantage  f32[B, G]
    ->         TrainState with `step` advanced, and metrics f32[] by name

    Runs epochs x minibatches optimiser updates, each over `accumulate` slices of pairs.
    """
    scorer = make_scorer(config, temperature=temperature, chunk=cfg.vocab_chunk)
    updates = cfg.epochs * cfg.minibatches

    def score(params, prompt, images, tokens):
        """Log-probs only, in the slices of the update: equal shapes give equal bits."""
        slices = _slices((prompt, images, tokens), cfg.minibatches * cfg.accumulate)
        logp = jax.lax.map(lambda s: scorer(params, *s)[0], slices)
        return _join(logp)

    def slice_loss(params, batch: Answers, tokens, unmoved):
        logp, entropy = scorer(params, batch.prompt, batch.images, batch.tokens)
        return token_loss(logp, jax.lax.stop_gradient(entropy), batch, tokens, cfg, unmoved)

    def gradient(params, minibatch: Answers, unmoved: Unmoved):
        tokens = jnp.maximum(minibatch.valid.sum(), 1).astype(jnp.float32)

        def add(total, batch):
            (loss, seen), grads = jax.value_and_grad(slice_loss, has_aux=True)(
                params, batch, tokens, unmoved
            )
            return jax.tree.map(jnp.add, total, grads), (loss, seen)

        zeros = jax.tree.map(jnp.zeros_like, params)
        grads, (losses, seen) = jax.lax.scan(add, zeros, _slices(minibatch, cfg.accumulate))
        metrics = {"loss": losses.sum()}
        metrics |= {name: x.sum() / tokens for name, x in seen["sum"].items()}
        return grads, metrics | {name: x.max() for name, x in seen["max"].items()}

    def update(state: TrainState, prompt, images, rollout: Rollout, advantage):
        known = (prompt, images, rollout.tokens)
        batch = Answers(
            prompt=prompt,
            images=images,
            tokens=rollout.tokens,
            valid=rollout.valid,
            sampled=rollout.logp,
            old=score(state.params, *known) if updates > 1 else None,
            reference=score(state.reference, *known) if cfg.kl_coef else None,
            advantage=advantage,
        )
        minibatches = _slices(batch, cfg.minibatches)

        def one(carry, number):
            params, opt_state = carry
            minibatch = jax.tree.map(lambda a: a[number % cfg.minibatches], minibatches)
            same = _equal(params, state.reference) if cfg.kl_coef else False
            grads, metrics = gradient(params, minibatch, Unmoved(old=number == 0, reference=same))
            params, opt_state, norm = optimizer.update(grads, opt_state, params, state.step)
            return (params, opt_state), metrics | {"grad_norm": norm}

        start = (state.params, state.opt_state)
        (params, opt_state), metrics = jax.lax.scan(one, start, jnp.arange(updates))
        state = state.replace(params=params, opt_state=opt_state, step=state.step + 1)
        return state, {
            name: x.max() if name.endswith("_max") else x.mean() for name, x in metrics.items()
        }

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
