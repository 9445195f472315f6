"""configs/easyr1_parity.py is EasyR1's GRPO: its numbers, and its formulas on random batches."""

from dataclasses import replace

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from dig_jax.config import load_config
from dig_jax.learner.advantage import group_advantage
from dig_jax.learner.loss import Answers, token_loss
from dig_jax.learner.objective import token_weights
from tests.learner import easyr1_formulas as easyr1

CFG = load_config("configs/easyr1_parity.py")
PAIRS, GROUP, TOKENS = 6, 5, 9


def test_the_numbers_are_easyr1s():
    """Of its config.yaml and the defaults of its dataclasses."""
    grpo, optim, rollout = CFG.grpo, CFG.optim, CFG.rollout
    assert (grpo.clip_low, grpo.clip_high, grpo.dual_clip) == (0.2, 0.3, 3.0)
    assert (grpo.kl_coef, grpo.kl, grpo.kl_in, grpo.kl_max) == (0.01, "k3", "loss", 10.0)
    assert (grpo.aggregate, grpo.advantage, grpo.ddof) == ("token", "group", 1)
    assert (grpo.advantage_eps, grpo.epochs, grpo.minibatches) == (1e-6, 1, 4)
    assert (optim.rate, optim.weight_decay, optim.b1, optim.b2) == (1e-6, 0.01, 0.9, 0.999)
    assert (optim.eps, optim.max_grad_norm, optim.schedule) == (1e-8, 1.0, "constant")
    assert (optim.warmup, optim.freeze) == (0, ())
    assert (CFG.pairs_per_step, rollout.group, rollout.temperature) == (512, 5, 1.0)
    assert CFG.pairs_per_step // grpo.minibatches == 128
    assert (rollout.max_tokens, CFG.prompt.max_tokens) == (2048, 2048)
    assert (CFG.data.min_pixels, CFG.data.max_pixels) == (262144, 4194304)


def batch(seed: int):
    """Log-probs whose ratios reach every clip, lengths 1 to 9, rewards with spread."""
    rng = np.random.default_rng(seed)
    shape = (PAIRS, GROUP, TOKENS)
    logp = -rng.gamma(2.0, 1.0, shape)
    old = logp + rng.normal(0, 0.6, shape)
    reference = logp + rng.normal(0, 1.5, shape)
    mask = np.arange(TOKENS) < rng.integers(1, TOKENS + 1, shape[:2])[..., None]
    return *(np.float32(x) for x in (logp, old, reference)), mask, rng.random(shape[:2])


def ours(cfg, logp, old, reference, mask, advantage):
    """Loss and its gradient by logp."""
    answers = Answers(
        tokens=None, weight=token_weights(jnp.asarray(mask), cfg),
        sampled=jnp.zeros(mask.shape), old=old, reference=reference, advantage=advantage,
    )  # fmt: skip
    run = jax.jit(jax.value_and_grad(lambda x: token_loss(x, jnp.zeros(x.shape), answers, cfg)[0]))
    return run(logp)


VARIANTS = {
    "grpo": (CFG.grpo, {"low": 0.2, "high": 0.3, "dual": 3.0, "mode": "token", "kind": "grpo"}),
    "grpo_seq": (
        replace(CFG.grpo, aggregate="sequence"),
        {"low": 0.2, "high": 0.3, "dual": 3.0, "mode": "seq", "kind": "grpo"},
    ),
    "gspo": (
        replace(
            CFG.grpo, importance="sequence", aggregate="sequence", clip_low=3e-4, clip_high=4e-4
        ),
        {"low": 3e-4, "high": 4e-4, "dual": 3.0, "mode": "seq", "kind": "gspo"},
    ),
}


@pytest.mark.parametrize("seed", range(4))
@pytest.mark.parametrize("variant", VARIANTS)
def test_loss_and_gradient_agree_with_the_published_formulas(variant, seed):
    cfg, clip = VARIANTS[variant]
    logp, old, reference, mask, reward = batch(seed)
    advantage = np.asarray(group_advantage(cfg, np.float32(reward))[0])
    np.testing.assert_allclose(advantage, easyr1.grpo_advantage(reward), atol=1e-5)

    rows = [x.reshape(-1, TOKENS).astype(np.float64) for x in (logp, old, reference, mask)]
    args = (*rows[1:3], advantage.reshape(-1).astype(np.float64), rows[3])

    def published(x):
        return easyr1.actor_loss(x, *args, kl_coef=cfg.kl_coef, **clip)

    loss, slope = ours(cfg, logp, old, reference, mask, advantage)
    assert abs(loss - published(rows[0])) < 1e-6
    rng = np.random.default_rng(9)
    for token in rng.choice(np.flatnonzero(mask), 12, replace=False):
        nudge = np.zeros(mask.size)
        nudge[token] = 1e-6
        nudge = nudge.reshape(rows[0].shape)
        numeric = (published(rows[0] + nudge) - published(rows[0] - nudge)) / 2e-6
        assert abs(slope.reshape(-1)[token] - numeric) < 1e-6


def test_the_batches_reach_every_clip():
    """Else the agreement above would say little."""
    logp, old, _, mask, reward = batch(0)
    advantage = easyr1.grpo_advantage(reward)[..., None] * np.ones_like(logp)
    ratio = np.exp(logp - old)
    assert ((ratio > 1.3) & (advantage > 0) & mask).sum() > 5
    assert ((ratio < 0.8) & (advantage < 0) & mask).sum() > 5
    assert any(
        ((np.exp(b[0] - b[1]) > 3) & (easyr1.grpo_advantage(b[4])[..., None] < 0) & b[3]).any()
        for b in map(batch, range(4))
    )


def test_another_clip_would_not_agree():
    cfg, clip = VARIANTS["grpo"]
    logp, old, reference, mask, reward = batch(0)
    advantage = np.asarray(group_advantage(cfg, np.float32(reward))[0])
    loss = ours(replace(cfg, clip_high=0.28), logp, old, reference, mask, advantage)[0]
    rows = [x.reshape(-1, TOKENS).astype(np.float64) for x in (logp, old, reference, mask)]
    flat = advantage.reshape(-1).astype(np.float64)
    published = easyr1.actor_loss(*rows[:3], flat, rows[3], kl_coef=cfg.kl_coef, **clip)
    assert abs(loss - published) > 1e-4


def test_a_flat_group_of_five_is_where_they_differ():
    """The known defect: a float32 mean of five equal rewards is not that reward."""
    values = np.float32(np.linspace(0.05, 0.95, 200))
    groups = np.repeat(values[:, None], 5, axis=1)
    mean = (groups.sum(-1, dtype=np.float32) / np.float32(5))[:, None]
    theirs = (groups - mean) / (groups.std(-1, ddof=1, keepdims=True) + np.float32(1e-6))
    assert np.abs(theirs).max() > 0.01
    assert not np.any(group_advantage(CFG.grpo, groups)[0])
