"""The loss of one slice of a minibatch, from log-probabilities of what was sampled.

`objective` holds the pieces, `GrpoConfig` chooses among them; `grpo` makes the update around it.
"""

from typing import NamedTuple

import jax
import jax.numpy as jnp
from flax import struct

from dig_jax.config import GrpoConfig
from dig_jax.learner.objective import (
    importance_ratio,
    kl_penalty,
    kl_per_token,
    mismatch_weight,
    surrogate,
)


@struct.dataclass
class Answers:
    """What the loss reads of a rollout; every leaf has leading axes [B, G].

    tokens     i32[B, G, T]
    weight     f32[B, G, T]   of each token in the loss of the whole minibatch; 0 = not trained
    sampled    f32[B, G, T]   the sampler's log-probs, for the gap metric
    old        f32[B, G, T]   log-probs before the first update; None: the policy's own
    reference  f32[B, G, T]   the reference's log-probs; None without KL
    advantage  f32[B, G]
    chosen     bool[B, G, T]  tokens whose objective counts; None: all that are trained
    """

    tokens: jax.Array
    weight: jax.Array
    sampled: jax.Array
    old: jax.Array | None
    reference: jax.Array | None
    advantage: jax.Array
    chosen: jax.Array | None = None


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
    cfg: GrpoConfig,
    unmoved: Unmoved = Unmoved(),  # noqa: B008 (immutable)
):
    """The loss of a slice of the minibatch, and what it says about the update.

    logp, entropy  f32[B, G, T] of the policy being trained
    ->             f32[], {"loss": its parts f32[B, G], "sum": token sums, "max": maxima}; slices
                   of a minibatch add up exactly
    """
    trained = batch.weight > 0

    def kept(x):
        """0 outside the mask, whatever stands there: times the mask, inf would become NaN."""
        return jnp.where(trained, x, 0.0)

    logp, sampled = kept(logp), kept(batch.sampled)
    own = jax.lax.stop_gradient(logp)
    old = own if batch.old is None else jnp.where(unmoved.old, own, kept(batch.old))
    advantage = jnp.broadcast_to(batch.advantage[..., None], logp.shape)
    ratio = importance_ratio(logp, old, trained, cfg)
    objective = surrogate(logp, ratio, advantage, cfg)
    if batch.chosen is not None:
        objective = jnp.where(batch.chosen, objective, 0.0)
    if cfg.mismatch != "none":
        objective = mismatch_weight(old, sampled, trained, cfg) * objective
    terms = {"policy": -objective}
    up, down, gap = advantage > 0, advantage < 0, jnp.abs(logp - sampled)
    sums = {
        "entropy": entropy,
        "clip_high": up & (ratio > 1 + cfg.clip_high),
        "clip_low": down & (ratio < 1 - cfg.clip_low),
        "clip_dual": down & (ratio > (cfg.dual_clip or jnp.inf)),
        "sampler_gap": gap,
    }
    if cfg.entropy_coef:
        terms["entropy"] = -cfg.entropy_coef * entropy
    if batch.reference is not None:
        reference = jnp.where(unmoved.reference, own, kept(batch.reference))
        sums |= {"kl": kl_per_token(own, reference, "k3"), "kl_k1": own - reference}
        if cfg.kl_in == "loss":
            terms["kl"] = cfg.kl_coef * kl_penalty(logp, reference, cfg)
    parts = {name: (kept(x) * batch.weight).sum(-1) for name, x in terms.items()}
    loss = sum(part.sum() for part in parts.values())
    return loss, {
        "loss": parts,
        "sum": {name: kept(x).sum() for name, x in sums.items()},
        "max": {"ratio_max": kept(ratio).max(), "sampler_gap_max": gap.max()},
    }
