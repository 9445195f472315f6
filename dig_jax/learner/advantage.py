"""Advantages: how much better an answer is than its group, in the published ways.

    group          (r - mean) / (std of the group + eps)           GRPO (arXiv 2402.03300)
    batch          (r - mean) / (std of the whole batch + eps)     scale shared by all groups
    none           r - mean                                        Dr. GRPO (arXiv 2503.20783)
    leave_one_out  r - mean of the group's other answers           RLOO (arXiv 2402.14740)
    parts          sum over the reward's parts of `group`'s value, then divided by the standard
                   deviation of the whole batch                    GDPO (arXiv 2601.05242)

`mean` is always the group's own. The advantage of a flat group, whose rewards span no more than
`min_spread`, is exactly 0 in all of them: in float32 the mean of equal numbers need not be that
number, and dividing what is left by a tiny spread is noise.
"""

from collections.abc import Sequence

import jax
import jax.numpy as jnp

from dig_jax.config import GrpoConfig


def flat_groups(reward: jax.Array, min_spread: float) -> jax.Array:
    """Groups that say nothing about what is better; reward f32[B, G, ...] -> bool[B, ...]."""
    return reward.max(1) - reward.min(1) <= min_spread


def group_advantage(
    cfg: GrpoConfig, reward: jax.Array, weights: Sequence[float] = ()
) -> tuple[jax.Array, jax.Array]:
    """Rewards relative to their group, as `cfg.advantage` says.

    reward   f32[B, G], G >= 2, all groups of the batch; with "parts" f32[B, G, parts]
    weights  of those parts: the scale that each has after its own is gone
    ->       f32[B, G], and bool[B]: flat groups, whose advantage is exactly 0
    """
    assert reward.ndim == 2 + (cfg.advantage == "parts"), reward.shape
    group = reward.shape[1]
    assert group > 1, reward.shape
    if cfg.advantage == "parts":
        return _of_parts(cfg, reward, weights)
    flat = flat_groups(reward, cfg.min_spread)
    centred = reward - reward.mean(-1, keepdims=True)
    match cfg.advantage:
        case "group":
            value = centred / (reward.std(-1, ddof=cfg.ddof, keepdims=True) + cfg.advantage_eps)
        case "batch":
            value = centred / (reward.std(ddof=cfg.ddof) + cfg.advantage_eps)
        case "leave_one_out":
            value = centred * (group / (group - 1))
        case "none":
            value = centred
    return jnp.where(flat[:, None], 0.0, value), flat


def _of_parts(cfg: GrpoConfig, parts: jax.Array, weights: Sequence[float]):
    flat = flat_groups(parts, cfg.min_spread)
    centred = parts - parts.mean(1, keepdims=True)
    each = centred / (parts.std(1, ddof=cfg.ddof, keepdims=True) + cfg.advantage_eps)
    value = (jnp.where(flat[:, None], 0.0, each) * jnp.asarray(weights, jnp.float32)).sum(-1)
    scaled = value / (value.std(ddof=cfg.ddof) + cfg.advantage_eps)
    flat = flat.all(-1)
    return jnp.where(flat[:, None], 0.0, scaled), flat
