"""The pieces of the loss, each a few lines on tokens: ratio, objective, KL, weights.

All work on f32[B, G, T] and know nothing of models. What a token contributes is

    -objective(ratio, advantage) x mismatch weight + kl_coef * KL - entropy_coef * entropy

and `token_weights` says with which weight; the weights are those of the whole minibatch, so that
slices of any size add up to the same loss.
"""

import jax
import jax.numpy as jnp

from dig_jax.config import GrpoConfig

EXPONENT = 20.0  # log-ratios are clamped to this before exp: e^20 is already absurd


def importance_ratio(
    logp: jax.Array, old: jax.Array, valid: jax.Array, cfg: GrpoConfig
) -> jax.Array:
    """How much likelier the policy makes what was sampled than the policy that sampled it.

    logp, old  f32[B, G, T], finite
    valid      bool[B, G, T]
    ->         f32[B, G, T]   importance "token": of each token; "sequence": exp of the answer's
               *mean* log-ratio, the same for all its tokens (a sum would shrink with the length)
    """
    return _ratio(logp - old, valid, cfg.importance)


def mismatch_weight(
    own: jax.Array, sampled: jax.Array, valid: jax.Array, cfg: GrpoConfig
) -> jax.Array:
    """What the objective of a token is multiplied by, as sampler and learner are two programs.

    own, sampled  f32[B, G, T]   the learner's log-probs before the first update, the sampler's
    ->            f32[B, G, T]   exactly 1 where they are equal

    "truncate" (TIS): their ratio, at most mismatch_cap. "mask" (MIS): 0 where it is beyond that or
    below its inverse. A sequence's ratio is exp of the *mean* gap, as in `importance_ratio`.
    """
    ratio = _ratio(own - sampled, valid, cfg.mismatch_level)
    if cfg.mismatch == "truncate":
        return jnp.minimum(ratio, cfg.mismatch_cap)
    inside = (ratio <= cfg.mismatch_cap) & (ratio >= 1 / cfg.mismatch_cap)
    return jnp.where(inside, ratio, 0.0)


def _ratio(gap: jax.Array, valid: jax.Array, level: str) -> jax.Array:
    """exp of log-ratios f32[B, G, T], of each token or of its answer's mean."""
    if level == "sequence":
        count = jnp.maximum(valid.sum(-1, keepdims=True), 1)
        mean = jnp.where(valid, gap, 0.0).sum(-1, keepdims=True) / count
        gap = jnp.broadcast_to(mean, gap.shape)
    return jnp.exp(jnp.clip(gap, -EXPONENT, EXPONENT))


def surrogate(
    logp: jax.Array, ratio: jax.Array, advantage: jax.Array, cfg: GrpoConfig
) -> jax.Array:
    """The policy objective per token, to be maximised.

    logp, ratio, advantage  f32, same shape
    ->                      f32, same shape

    "clip": min(ratio A, clipped A), and not below dual_clip * A where A < 0. "cispo": the clipped
    ratio is a constant weight of A logp, so that no token loses its gradient. "sapo": a gate
    4 / slope x sigmoid(slope (ratio - 1)) in place of the ratio, whose derivative is 1 at a ratio
    of 1 and fades to both sides (SAPO, arXiv 2511.20347).
    """
    if cfg.objective == "sapo":
        slope = jnp.where(advantage > 0, cfg.sapo_up, cfg.sapo_down)
        return 4 / slope * jax.nn.sigmoid(slope * (ratio - 1)) * advantage
    clipped = jnp.clip(ratio, 1 - cfg.clip_low, 1 + cfg.clip_high)
    if cfg.objective == "cispo":
        return jax.lax.stop_gradient(clipped) * advantage * logp
    lower = jnp.minimum(ratio * advantage, clipped * advantage)
    if not cfg.dual_clip:
        return lower
    bounded = jnp.maximum(lower, cfg.dual_clip * advantage)
    return jnp.where(advantage < 0, bounded, lower)


def kl_per_token(logp: jax.Array, reference: jax.Array, kind: str) -> jax.Array:
    """Schulman's estimators of KL(policy, reference) for tokens sampled from the policy.

    k1   log-ratio: unbiased, of either sign; as a loss its expected gradient is 0
    abs  its absolute value
    k2   half its square: >= 0, its gradient as a loss is that of the KL
    k3   exp(-k1) - 1 + k1: >= 0, unbiased
    """
    gap = jnp.clip(reference - logp, -EXPONENT, EXPONENT)
    match kind:
        case "k1":
            return -gap
        case "abs":
            return jnp.abs(gap)
        case "k2":
            return 0.5 * gap**2
        case "k3":  # exp(gap) - 1 in float32 is noise below gaps of 1e-3, and < 0
            return jnp.expm1(gap) - gap
    raise ValueError(f"unknown KL estimator {kind!r}")


def kl_penalty(logp: jax.Array, reference: jax.Array, cfg: GrpoConfig) -> jax.Array:
    """`kl_per_token` as `cfg.kl` and `cfg.kl_max` say."""
    value = kl_per_token(logp, reference, cfg.kl)
    return jnp.clip(value, -cfg.kl_max, cfg.kl_max) if cfg.kl_max else value


def trained_tokens(valid: jax.Array, ended: jax.Array, cfg: GrpoConfig) -> jax.Array:
    """Tokens that the loss sees: all valid ones, or those of answers that came to an end.

    valid  bool[B, G, T];  ended  bool[B, G]
    """
    return valid & ended[..., None] if cfg.truncated == "mask" else valid


def most_uncertain(entropy: jax.Array, trained: jax.Array, share: float) -> jax.Array:
    """The trained tokens of a minibatch with the highest entropy, bool[B, G, T].

    entropy  f32[B, G, T];  trained  bool[B, G, T]
    share    of the trained tokens, rounded up; what ties with the last of them is in too

    Beyond the 80/20 rule (arXiv 2506.01939): the others carry the answer, these decide it.
    """
    ranked = jnp.sort(jnp.where(trained, entropy, -jnp.inf).ravel(), descending=True)
    count = jnp.ceil(share * trained.sum()).astype(jnp.int32)
    return trained & (entropy >= ranked[jnp.maximum(count - 1, 0)])


def token_weights(trained: jax.Array, cfg: GrpoConfig) -> jax.Array:
    """The weight of every token in the loss of a minibatch.

    trained  bool[B, G, T] of the whole minibatch
    ->       f32[B, G, T], 0 where not trained

    aggregate "token": 1 / tokens. "sequence": 1 / (answers x tokens of the answer), answers
    without a trained token not counted. Both sum to 1. "constant": 1 / (answers x T), all answers.
    """
    length = trained.sum(-1, keepdims=True)
    match cfg.aggregate:
        case "token":
            share = 1.0 / jnp.maximum(length.sum(), 1)
        case "sequence":
            share = 1.0 / (jnp.maximum((length > 0).sum(), 1) * jnp.maximum(length, 1))
        case "constant":
            share = jnp.float32(1.0 / trained.size)
    return jnp.where(trained, share.astype(jnp.float32), 0.0)
