"""EasyR1's published formulas in NumPy float64, for comparison with the learner.

After its core algorithms as of commit b44b311. Left out as defects: the group's advantage where
all rewards are equal (its rounded mean gives up to 0.1 instead of 0), the re-weighting of `seq`
losses between micro-batches, and a logged KL that is that of the last micro-batch.
"""

import numpy as np

EPS = 1e-6


def grpo_advantage(reward: np.ndarray) -> np.ndarray:
    """f64[B, G]: outcome advantage of each answer, std with ddof 1."""
    mean = reward.mean(-1, keepdims=True)
    return (reward - mean) / (reward.std(-1, ddof=1, keepdims=True) + EPS)


def masked_mean(x: np.ndarray, mask: np.ndarray, mode: str) -> float:
    """Mode "token": over all tokens; "seq": mean over answers of their token means."""
    if mode == "token":
        return (x * mask).sum() / mask.sum()
    return ((x * mask).sum(-1) / mask.sum(-1)).mean()


def policy_loss(logp, old, advantage, mask, *, low, high, dual, mode, kind) -> float:
    """Clipped in log space; `kind` "grpo" or "gspo" (mean log-ratio of the answer).

    logp, old, mask  [N, T];  advantage  [N]
    """
    gap = logp - old
    if kind == "gspo":
        gap = ((gap * mask).sum(-1) / mask.sum(-1))[:, None] * np.ones_like(gap)
    gap = np.clip(gap, -20, 20)
    ratio = np.exp(gap)
    clipped = np.exp(np.clip(gap, np.log(1 - low), np.log(1 + high)))
    a = advantage[:, None]
    worst = np.maximum(-a * ratio, -a * clipped)
    bounded = np.minimum(worst, -a * dual)
    return masked_mean(np.where(a < 0, bounded, worst), mask, mode)


def low_var_kl(logp, reference) -> np.ndarray:
    """k3 with its exponent clamped to 20 and its value to 10."""
    gap = np.clip(reference - logp, -20, 20)
    return np.clip(np.exp(gap) - gap - 1, -10, 10)


def actor_loss(logp, old, reference, advantage, mask, *, kl_coef, mode, **clip) -> float:
    """Policy loss plus kl_coef times the mean KL, aggregated in the same mode."""
    policy = policy_loss(logp, old, advantage, mask, mode=mode, **clip)
    return policy + kl_coef * masked_mean(low_var_kl(logp, reference), mask, mode)
