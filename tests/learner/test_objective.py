"""The loss's pieces: by hand at the corners, by invariants everywhere else."""

import math

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from dig_jax.config import GrpoConfig
from dig_jax.learner.objective import (
    importance_ratio,
    kl_penalty,
    kl_per_token,
    mismatch_weight,
    most_uncertain,
    surrogate,
    token_weights,
    trained_tokens,
)

CFG = GrpoConfig(clip_low=0.2, clip_high=0.28, dual_clip=3.0)

# advantage, ratio -> objective, d objective / d logp (ratio * advantage, or 0 where clipped)
CLIPS = [
    (1.0, 1.0, 1.0, 1.0),
    (1.0, 1.2, 1.2, 1.2),
    (1.0, 1.5, 1.28, 0.0),
    (1.0, 0.5, 0.5, 0.5),
    (2.0, 1.3, 2.56, 0.0),
    (-1.0, 1.0, -1.0, -1.0),
    (-1.0, 0.9, -0.9, -0.9),
    (-1.0, 0.5, -0.8, 0.0),
    (-1.0, 1.5, -1.5, -1.5),
    (-1.0, 4.0, -3.0, 0.0),
    (-0.5, 10.0, -1.5, 0.0),
    (0.0, 7.0, 0.0, 0.0),
]


def objective(cfg, logp, old, advantage):
    """Values and gradients of single-token answers."""

    def value(logp, old, advantage):
        ratio = importance_ratio(logp[None], old[None], jnp.ones((1,), bool), cfg)[0]
        return surrogate(logp, ratio, advantage, cfg)

    return jax.jit(jax.vmap(jax.value_and_grad(value)))(logp, old, advantage)


def test_the_surrogate_is_clipped_where_the_definition_says():
    advantage, ratio, value, slope = np.float32(CLIPS).T
    old = np.full(ratio.shape, -2, np.float32)
    found = objective(CFG, old + np.log(ratio), old, advantage)
    # the log-ratio is a difference of numbers up to 2: good to 2^-23
    np.testing.assert_allclose(found, (value, slope), rtol=1e-6)


def test_without_dual_clip_a_bad_answer_is_pushed_down_without_bound():
    cfg = GrpoConfig(dual_clip=0.0)
    old = np.float32([-9.0])
    found = objective(cfg, old + np.float32(math.log(100)), old, np.float32([-1.0]))
    np.testing.assert_allclose(found, [[-100.0], [-100.0]], rtol=1e-5)


# advantage, ratio -> weight: the clipped ratio, whatever the sign of the advantage
CISPO = [(1.0, 1.0, 1.0), (1.0, 1.5, 1.28), (-1.0, 1.5, 1.28), (1.0, 0.5, 0.8), (-2.0, 0.9, 0.9)]


def test_cispo_weighs_log_probs_by_a_constant_clipped_ratio():
    advantage, ratio, weight = np.float32(CISPO).T
    logp = np.full(ratio.shape, -2, np.float32)
    cfg = GrpoConfig(objective="cispo", clip_low=0.2, clip_high=0.28)
    value, slope = objective(cfg, logp, logp - np.log(ratio), advantage)
    np.testing.assert_allclose(value, weight * advantage * -2, rtol=1e-6)
    np.testing.assert_allclose(slope, weight * advantage, rtol=1e-6)
    assert (slope != 0).all(), "no token loses its gradient, unlike under the clip"


# advantage, ratio -> gate x A, and ratio x 4 s (1 - s) x A with s = sigmoid(slope (ratio - 1));
# with slopes 2 above and 4 below s is 1/2, 3/4, 1/4 and 4/5 at these ratios
SAPO = [
    (1.0, 1.0, 1.0, 1.0),
    (1.0, 1 + math.log(3) / 2, 1.5, 0.75 * (1 + math.log(3) / 2)),
    (2.0, 1 - math.log(3) / 2, 1.0, 1.5 * (1 - math.log(3) / 2)),
    (-1.0, 1.0, -0.5, -1.0),
    (-1.0, 1 + math.log(4) / 4, -0.8, -0.64 * (1 + math.log(4) / 4)),
]


def test_sapo_fades_out_softly_with_a_slope_for_each_sign():
    advantage, ratio, value, slope = np.float32(SAPO).T
    logp = np.full(ratio.shape, -2, np.float32)
    cfg = GrpoConfig(objective="sapo", sapo_up=2.0, sapo_down=4.0)
    found = objective(cfg, logp, logp - np.log(ratio), advantage)
    np.testing.assert_allclose(found, (value, slope), rtol=2e-6)


def test_on_policy_sapo_has_the_clips_gradient():
    """Whatever its slopes: the gate's own slope at a ratio of 1 is 1."""
    advantage = np.float32([-2, -0.5, 0, 1, 3])
    logp = np.full(5, -1, np.float32)
    soft = objective(GrpoConfig(objective="sapo"), logp, logp, advantage)[1]
    np.testing.assert_allclose(soft, objective(CFG, logp, logp, advantage)[1], rtol=1e-6)


# kind, level -> weights of answers with ratios 1/4, 1, 4 and 2, 8; cap 3.
# The means of the log-ratios are those of 1 and 4.
MISMATCH = {
    ("truncate", "token"): [[0.25, 1, 3], [2, 3, 1]],
    ("mask", "token"): [[0, 1, 0], [2, 0, 1]],
    ("truncate", "sequence"): [[1, 1, 1], [3, 3, 3]],
    ("mask", "sequence"): [[1, 1, 1], [0, 0, 0]],
}


@pytest.mark.parametrize(("kind", "level"), MISMATCH)
def test_mismatch_weights_by_hand(kind, level):
    ratio = np.float32([[0.25, 1, 4], [2, 8, 1]])
    valid = np.array([[True, True, True], [True, True, False]])
    cfg = GrpoConfig(mismatch=kind, mismatch_level=level, mismatch_cap=3.0)
    sampled = np.full((2, 3), -2, np.float32)
    found = mismatch_weight(sampled + np.log(ratio), sampled, valid, cfg)
    expected = np.float32(MISMATCH[kind, level])
    np.testing.assert_allclose(found[valid], expected[valid], rtol=1e-6)


@pytest.mark.parametrize("kind", ["truncate", "mask"])
@pytest.mark.parametrize("level", ["token", "sequence"])
def test_equal_log_probs_have_no_mismatch_to_the_bit(kind, level):
    logp = -np.random.default_rng(0).exponential(size=(3, 4, 5)).astype(np.float32)
    cfg = GrpoConfig(mismatch=kind, mismatch_level=level, mismatch_cap=1.0)
    valid = np.arange(5) < np.array([1, 5, 3, 2])[:, None]
    found = mismatch_weight(logp, logp, np.broadcast_to(valid, logp.shape), cfg)
    np.testing.assert_array_equal(found, 1.0)


@pytest.mark.parametrize(
    ("share", "kept"),
    [(0.2, [1]), (0.21, [1, 3]), (0.6, [0, 1, 3]), (0.8, [0, 1, 3, 4, 5]), (1.0, [0, 1, 3, 4, 5])],
)
def test_the_most_uncertain_tokens_by_hand(share, kept):
    """Of five trained tokens, all but number 2: .2 is one, .21 two; the last two of them tie."""
    entropy = np.float32([[2.0, 5.0, 9.0], [3.0, 1.0, 1.0]])
    trained = np.array([[True, True, False], [True, True, True]])
    found = most_uncertain(jnp.asarray(entropy), jnp.asarray(trained), share)
    assert np.flatnonzero(found).tolist() == kept


def test_no_floor_leaves_small_ratios_alone():
    cfg = GrpoConfig(objective="cispo", clip_low=1.0)
    logp = np.float32([-5.0])
    slope = objective(cfg, logp, np.float32([-1.0]), np.float32([1.0]))[1]
    np.testing.assert_allclose(slope, math.exp(-4), rtol=1e-6)


def test_a_sequence_ratio_is_that_of_the_mean_log_ratio():
    """Lengths 4 and 1 with the same gap per token: the same ratio. A sum would give e^2, e^0.5."""
    valid = np.arange(4) < np.array([4, 1])[:, None]
    logp = np.where(valid, -1.0, np.float32(7)).astype(np.float32)
    old = np.where(valid, -1.5, np.float32(-7)).astype(np.float32)
    cfg = GrpoConfig(importance="sequence")
    ratio = importance_ratio(logp, old, valid, cfg)
    np.testing.assert_allclose(ratio, math.exp(0.5), rtol=1e-6)


def test_a_sequence_ratio_spreads_its_gradient_evenly_over_the_answer():
    valid = np.arange(4) < np.array([4, 2])[:, None]
    logp = np.where(valid, -np.random.default_rng(0).random((2, 4)), 0).astype(np.float32)
    cfg = GrpoConfig(importance="sequence", aggregate="sequence", clip_low=1.0, clip_high=9.0)

    def value(logp):
        ratio = importance_ratio(logp, jnp.full(logp.shape, -1.0) * valid, valid, cfg)
        return (surrogate(logp, ratio, jnp.ones(logp.shape), cfg) * token_weights(valid, cfg)).sum()

    total, slope = jax.value_and_grad(value)(logp)
    ratio = [math.exp(np.mean(row[ok]) + 1) for row, ok in zip(logp, valid, strict=True)]
    np.testing.assert_allclose(total, np.mean(ratio), rtol=1e-6)
    # d exp(mean gap) / d logp_t = ratio / length, halved by the mean over two answers
    np.testing.assert_allclose(slope[0], ratio[0] / 4 / 2, rtol=1e-6)
    np.testing.assert_allclose(slope[1], np.array([1, 1, 0, 0]) * ratio[1] / 2 / 2, rtol=1e-6)


def test_an_absurd_ratio_stays_finite():
    logp = np.float32([0.0, -1e30])
    ratio = importance_ratio(logp, logp[::-1], np.ones(2, bool), CFG)
    np.testing.assert_allclose(ratio, [math.exp(20), math.exp(-20)], rtol=1e-6)
    assert np.isfinite(surrogate(logp, ratio, np.float32([-1.0, 1.0]), CFG)).all()


# ---- KL

KL_BY_HAND = {  # policy 1/4 against reference 1/2, and the other way round
    "k1": [-math.log(2), math.log(2)],
    "abs": [math.log(2), math.log(2)],
    "k2": [math.log(2) ** 2 / 2, math.log(2) ** 2 / 2],
    "k3": [1 - math.log(2), math.log(2) - 0.5],
}


@pytest.mark.parametrize("kind", KL_BY_HAND)
def test_kl_by_hand(kind):
    logp, reference = np.log(np.float32([[0.25, 0.5, 0.3], [0.5, 0.25, 0.3]]))
    found = kl_per_token(logp, reference, kind)
    np.testing.assert_allclose(found, [*KL_BY_HAND[kind], 0.0], rtol=1e-6)


def expected_gradient(kind: str) -> tuple[np.ndarray, np.ndarray]:
    """Of sum_x pi(x) kl(x) with fixed samples, and of the true KL, by the logits of pi."""
    logits = jnp.float32([0.3, -0.5, 1.1, 0.0])
    reference = jax.nn.log_softmax(jnp.float32([0.0, 0.4, 0.2, -0.3]))

    def loss(logits):
        logp = jax.nn.log_softmax(logits)
        weight = jnp.exp(jax.lax.stop_gradient(logp))
        return (weight * kl_per_token(logp, reference, kind)).sum()

    def exact(logits):
        logp = jax.nn.log_softmax(logits)
        return (jnp.exp(logp) * (logp - reference)).sum()

    return np.asarray(jax.grad(loss)(logits)), np.asarray(jax.grad(exact)(logits))


def test_k1_in_the_loss_does_not_pull_and_k2_pulls_as_the_kl_itself():
    k1, _ = expected_gradient("k1")
    np.testing.assert_allclose(k1, 0, atol=1e-7)
    k2, exact = expected_gradient("k2")
    assert np.abs(exact).max() > 0.05
    np.testing.assert_allclose(k2, exact, atol=1e-6)
    k3, _ = expected_gradient("k3")
    assert (k3 * exact).sum() > 0, "k3 pulls the same way, though not by the same amount"
    assert np.abs(k3 - exact).max() > 1e-3


def test_k1_and_k3_are_unbiased_and_k2_and_abs_are_not():
    logp = np.log(np.float64([0.1, 0.2, 0.3, 0.4]))
    reference = np.log(np.float64([0.4, 0.3, 0.2, 0.1]))
    exact = (np.exp(logp) * (logp - reference)).sum()
    mean = {k: float((np.exp(logp) * kl_per_token(logp, reference, k)).sum()) for k in KL_BY_HAND}
    assert mean["k1"] == pytest.approx(exact, rel=1e-6)
    assert mean["k3"] == pytest.approx(exact, rel=1e-6)
    assert abs(mean["k2"] - exact) > 0.01
    assert abs(mean["abs"] - exact) > 0.01


def test_k3_is_never_negative_and_accurate_for_small_gaps():
    """Fails for exp(gap) - gap - 1, which is -6e-8 at some gaps and 20 % off at 1e-3."""
    size = np.logspace(-12, 1.3, 20_001)
    gap = np.float32(np.concatenate([-size, size]))
    found = np.asarray(jax.jit(kl_per_token, static_argnums=2)(np.zeros_like(gap), gap, "k3"))
    exact = np.expm1(np.float64(gap)) - gap
    assert found.min() >= 0
    # k3 is g^2 / 2 of the gap g, and expm1 good to 1 ulp of it (jax 0.12) or 3 (jax 0.10):
    # relative error 3 x 2^-23 g / (g^2 / 2) = 7.2e-4 at a gap of 1e-3
    large = np.abs(gap) > 1e-3
    np.testing.assert_allclose(found[large], exact[large], rtol=7.5e-4)


@pytest.mark.parametrize("kind", KL_BY_HAND)
def test_absurd_gaps_stay_finite_and_kl_max_bounds_them(kind):
    logp, reference = np.float32([0.0, -1e30, 0.0]), np.float32([-1e30, 0.0, 0.0])
    assert np.isfinite(kl_per_token(logp, reference, kind)).all()
    bounded = kl_penalty(logp, reference, GrpoConfig(kl=kind, kl_max=10.0))
    assert np.abs(bounded).max() == 10
    assert bounded[2] == 0


# ---- weights

TRAINED = (np.arange(4) < np.array([[4, 1], [0, 3]])[..., None]).astype(bool)
WEIGHTS = {
    "token": [[1 / 8, 1 / 8], [0, 1 / 8]],
    "sequence": [[1 / 12, 1 / 3], [0, 1 / 9]],
    "constant": [[1 / 16, 1 / 16], [0, 1 / 16]],
}


@pytest.mark.parametrize("aggregate", WEIGHTS)
def test_weights_by_hand(aggregate):
    cfg = GrpoConfig(aggregate=aggregate)
    expected = np.where(TRAINED, np.array(WEIGHTS[aggregate])[..., None], 0)
    np.testing.assert_allclose(token_weights(TRAINED, cfg), expected, rtol=1e-6)


@pytest.mark.parametrize("aggregate", WEIGHTS)
def test_nothing_to_train_weighs_nothing(aggregate):
    """A batch of cut-off answers under truncated=mask: 0, not 0/0."""
    none = np.zeros((2, 3, 4), bool)
    np.testing.assert_array_equal(token_weights(none, GrpoConfig(aggregate=aggregate)), 0)


def test_masking_drops_cut_off_answers_and_nothing_else():
    ended = np.array([[True, False], [True, True]])
    kept = trained_tokens(TRAINED, ended, GrpoConfig(truncated="mask"))
    np.testing.assert_array_equal(kept, TRAINED & ended[..., None])
    np.testing.assert_array_equal(trained_tokens(TRAINED, ended, GrpoConfig()), TRAINED)
