"""GRPO: the advantages, the clipped loss, and updates that do not depend on how they are cut."""

from dataclasses import replace
from functools import cache

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from dig_jax.config import GrpoConfig, OptimConfig
from dig_jax.learner.grpo import make_update
from dig_jax.learner.loss import Answers, token_loss
from dig_jax.learner.objective import token_weights
from dig_jax.learner.optim import Optimizer, make_optimizer
from dig_jax.learner.state import TrainState
from dig_jax.learner.trainable import parameter_names
from dig_jax.sampler.rollout import Rollout
from dig_jax.sampler.scorer import make_scorer
from tests import tiny_model

CFG = GrpoConfig(clip_low=0.2, clip_high=0.28, dual_clip=3.0, kl_coef=0.01, vocab_chunk=64)
PAIRS, GROUP, TOKENS = 8, 3, 6


def loss_of(
    logp, valid, advantage, *, entropy=None, sampled=None, old=None, reference=None, cfg=CFG,
    weight=None,
):  # fmt: skip
    """Loss, metrics and gradient of a whole minibatch."""
    zeros = np.zeros_like(logp)
    batch = Answers(
        tokens=None,  # token_loss does not read them
        weight=token_weights(jnp.asarray(valid), cfg) if weight is None else weight,
        sampled=zeros if sampled is None else sampled,
        old=old,
        reference=reference,
        advantage=np.float32(advantage),
    )
    run = jax.jit(jax.value_and_grad(token_loss, has_aux=True), static_argnums=3)
    entropy = zeros if entropy is None else entropy
    (loss, seen), slope = run(logp, entropy, batch, cfg)
    return loss, seen, np.asarray(slope)


def test_the_loss_is_a_mean_over_tokens_not_over_answers():
    """Lengths 5 and 1: every token weighs 1/6, whichever answer it is in."""
    valid = (np.arange(5) < np.array([5, 1])[:, None])[None]
    logp = np.full((1, 2, 5), -1, np.float32)
    loss, seen, slope = loss_of(logp, valid, [[1.0, -2.0]], entropy=logp / -2)
    np.testing.assert_allclose(loss, -(5 * 1.0 - 2.0) / 6, rtol=1e-6)
    np.testing.assert_allclose(slope[0, 0], -1 / 6, rtol=1e-6)
    np.testing.assert_allclose(slope[0, 1], [2 / 6, 0, 0, 0, 0], rtol=1e-6)
    np.testing.assert_allclose(seen["sum"]["entropy"], 6 * 0.5, rtol=1e-6)
    assert seen["max"]["ratio_max"] == 1


def test_clip_metrics_count_tokens():
    ratio = np.float32([[[1.5, 1.0, 0.5], [0.5, 4.0, 1.5]]])
    valid = np.ones(ratio.shape, bool)
    _, seen, _ = loss_of(np.log(ratio), valid, [[1.0, -1.0]], old=np.zeros_like(ratio))
    counted = {name: float(seen["sum"][name]) for name in ("clip_high", "clip_low", "clip_dual")}
    assert counted == {"clip_high": 1, "clip_low": 1, "clip_dual": 1}
    np.testing.assert_allclose(seen["max"]["ratio_max"], 4, rtol=1e-6)


@pytest.mark.parametrize("poison", [np.nan, np.inf, -np.inf])
def test_masked_tokens_are_never_read(poison):
    """Not even NaN outside the mask reaches loss, metrics or gradient."""
    names = ("logp", "old", "reference", "entropy", "sampled")
    valid = np.arange(4) < np.array([[4, 2], [1, 3]])[..., None]
    values = -np.random.default_rng(0).random((5, *valid.shape), np.float32)
    clean = dict(zip(names, values, strict=True))
    poisoned = {name: np.where(valid, x, np.float32(poison)) for name, x in clean.items()}
    advantage = [[1.0, -1.0], [0.5, 2.0]]
    expected = loss_of(valid=valid, advantage=advantage, **clean)
    found = loss_of(valid=valid, advantage=advantage, **poisoned)
    jax.tree.map(np.testing.assert_array_equal, found, expected)
    np.testing.assert_array_equal(expected[2][~valid], 0)
    assert (expected[2][valid] != 0).sum() > 5


# ---- whole updates


def recorder() -> Optimizer:
    """Leaves the parameters alone; its state is (sum of the gradients, number of updates)."""

    def init(params):
        return jax.tree.map(jnp.zeros_like, params), jnp.int32(0)

    def update(grads, state, params, step):
        del step
        norm = jnp.sqrt(sum((leaf**2).sum() for leaf in jax.tree.leaves(grads)))
        return params, (jax.tree.map(jnp.add, state[0], grads), state[1] + 1), norm

    return Optimizer(init, update)


@cache
def tiny():
    return tiny_model.make_tiny(jax.random.key(0))


@cache
def played():
    """Prompt, images and made-up answers of very different lengths (1 ... 6 tokens)."""
    rng = np.random.default_rng(3)
    prompt, images = tiny_model.pairs_of(PAIRS)
    length = rng.integers(1, TOKENS + 1, (PAIRS, GROUP))
    valid = np.arange(TOKENS) < length[..., None]
    tokens = np.where(valid, rng.choice(tiny_model.WORDS, valid.shape), tiny_model.PAD).astype(
        np.int32
    )
    rollout = Rollout(
        tokens=jnp.asarray(tokens),
        valid=jnp.asarray(valid),
        ended=jnp.ones((PAIRS, GROUP), bool),
        logp=jnp.zeros(valid.shape),
    )
    return prompt, images, rollout


ALL = frozenset(parameter_names(tiny_model.make_tiny(jax.random.key(0))))


@cache
def updater(minibatches: int, accumulate: int, remat: str = "none", **choices):
    """The advantage is the reward itself here: rewards without a mean, and no scale."""
    cfg = GrpoConfig(
        minibatches=minibatches, accumulate=accumulate, vocab_chunk=24, advantage="none", **choices
    )
    config = replace(tiny_model.CONFIG, remat=remat)
    return tiny_model.quick_jit(make_update(cfg, config, recorder(), ALL, temperature=1.0))


def whole():
    """One minibatch in one piece."""
    return updater(1, 1)


def run(update, advantage, *, rollout=None, reference=None, inputs=None):
    """Summed gradients, number of updates, new step and metrics."""
    prompt, images, answers = played()
    prompt, images = inputs or (prompt, images)
    state = TrainState(
        params=tiny(),
        opt_state=recorder().init(tiny()),
        reference=tiny() if reference is None else reference,
        step=jnp.int32(4),
    )
    state, metrics, _ = update(state, prompt, images, rollout or answers, jnp.asarray(advantage))
    return *state.opt_state, state.step, metrics


def advantages():
    drawn = np.random.default_rng(5).normal(size=(PAIRS, GROUP)).astype(np.float32)
    return drawn - drawn.mean(-1, keepdims=True)


def largest(tree) -> float:
    return max(float(jnp.abs(leaf).max()) for leaf in jax.tree.leaves(tree))


def assert_same_gradient(found, expected):
    """Float32 sums in another order: a few ulp of the terms, which here are up to a hundred
    times the sum; relative to the largest entry of all that is 100 x 2^-23 = 1e-5."""
    scale = largest(expected)
    gap = largest(jax.tree.map(jnp.subtract, found, expected))
    assert scale > 0.01
    assert gap < 1e-5 * scale, (gap, scale)


@pytest.mark.parametrize(
    ("minibatches", "accumulate"), [(1, 1), pytest.param(2, 2, marks=pytest.mark.slow)]
)
def test_the_first_update_has_no_kl_and_a_ratio_of_one_bit_for_bit(minibatches, accumulate):
    """Equal weights are equal policies, whatever two compiled programs round to. Fails where the
    policy's and the reference's numbers are compared: case 2-2 gave a KL of 2e-15.

    Only the first minibatch is the first update. The second of case 2-2 compares the old numbers
    with its own although the recorder moves nothing: equal to rounding, four ulp each of a
    logit and of a log-sum-exp near 5 (2^-21), and by luck of the pixels and of XLA to the bit."""
    update = updater(minibatches, accumulate)
    _, updates, step, metrics = run(update, advantages())
    assert updates == minibatches
    assert step == 5
    assert metrics["kl"] == 0
    assert metrics["kl_k1"] == 0
    assert abs(metrics["ratio_max"] - 1) <= (0 if minibatches == 1 else 8 * 2**-21)
    assert metrics["clip_high"] == metrics["clip_low"] == metrics["clip_dual"] == 0
    if minibatches == 1:
        length = np.asarray(played()[2].lengths)
        expected = -(advantages() * length).sum() / length.sum()
        np.testing.assert_allclose(metrics["loss"], expected, rtol=1e-5)


def test_the_reference_is_scored_as_the_policy_is():
    """One weight moved by one ulp: no longer equal, so the reference's own numbers count."""
    moved = tiny()["norm"].at[0].mul(1 + 2**-23)
    metrics = run(whole(), advantages(), reference=tiny() | {"norm": moved})[-1]
    # logits near 5 in float32 are good to 1e-6 each
    assert abs(metrics["kl_k1"]) < 1e-6
    assert metrics["kl"] < 1e-11


def test_flat_groups_move_nothing():
    grads, _, _, metrics = run(whole(), np.zeros((PAIRS, GROUP), np.float32))
    assert largest(grads) == 0
    assert metrics["loss"] == 0


@pytest.mark.slow
@pytest.mark.parametrize("why", ["flat", "masked"])
def test_a_step_that_teaches_nothing_moves_neither_weights_nor_moments(why):
    """By Adam's momentum of the step before all weights would go on; so would weight decay."""
    optimizer = make_optimizer(OptimConfig(rate=1e-2, weight_decay=0.1), 10, tiny())
    cfg = GrpoConfig(minibatches=2, advantage="none", kl_coef=0, truncated="mask", vocab_chunk=24)
    make = make_update(cfg, tiny_model.CONFIG, optimizer, ALL, temperature=1.0)
    update = tiny_model.quick_jit(make)
    prompt, images, answers = played()
    state = TrainState(tiny(), optimizer.init(tiny()), None, jnp.int32(0))
    state, metrics, _ = update(state, prompt, images, answers, jnp.asarray(advantages()))
    assert metrics["moved"] == 1
    assert largest(jax.tree.map(jnp.subtract, state.params, tiny())) > 1e-3
    rewards = jnp.ones((PAIRS, GROUP)) if why == "flat" else jnp.asarray(advantages())
    if why == "masked":
        answers = answers.replace(ended=jnp.zeros_like(answers.ended))
    after, metrics, _ = update(state, prompt, images, answers, rewards)
    assert metrics["moved"] == metrics["grad_norm"] == 0
    assert metrics["finite"] == 1
    assert after.step == state.step + 1
    same = jax.tree.map(
        jnp.array_equal, (after.params, after.opt_state), (state.params, state.opt_state)
    )
    assert all(jax.tree.leaves(same))


def test_kl_pulls_a_policy_with_flat_groups_towards_the_reference():
    reference = jax.tree.map(lambda a: a * 1.02, tiny())
    flat = np.zeros((PAIRS, GROUP), np.float32)
    grads, _, _, metrics = run(whole(), flat, reference=reference)
    assert metrics["kl"] > 1e-5
    np.testing.assert_allclose(metrics["loss"], GrpoConfig().kl_coef * metrics["kl"], rtol=1e-5)
    towards = jax.tree.map(lambda g, p, r: (g * (r - p)).sum(), grads, tiny(), reference)
    assert sum(jax.tree.leaves(towards)) < 0


def assert_same_metrics(found, expected):
    """Means of float32 sums in another order; counts and maxima of the same numbers."""
    assert found.keys() == expected.keys()
    for name in expected:
        # log-probs near 5 through another program differ by 1e-6, gaps between them as much
        np.testing.assert_allclose(found[name], expected[name], rtol=1e-5, atol=2e-6, err_msg=name)


@pytest.mark.slow
def test_a_group_taken_in_parts_has_the_whole_groups_gradient_and_metrics():
    """The prompt is encoded once; what its answers ask of it is summed before it goes back."""
    found, _, _, parts = run(updater(1, 2, answer_slices=GROUP), advantages())
    expected, _, _, metrics = run(whole(), advantages())
    assert_same_gradient(found, expected)
    for name, value in metrics.items():
        np.testing.assert_allclose(parts[name], value, rtol=1e-5, atol=1e-7, err_msg=name)


@pytest.mark.slow
@pytest.mark.parametrize("accumulate", [2, 4])
def test_accumulated_gradients_with_recomputed_blocks_equal_the_whole_batch(accumulate):
    """Both trade time for memory and nothing else."""
    expected, _, _, seen = run(whole(), advantages())
    parts, updates, _, again = run(updater(1, accumulate, "full"), advantages())
    assert updates == 1
    assert_same_gradient(parts, expected)
    assert_same_metrics(again, seen)


@pytest.mark.parametrize("aggregate", ["token", "sequence", "constant"])
@pytest.mark.parametrize("count", [2, 4, 8])
def test_slices_of_a_minibatch_add_up_to_its_loss_and_gradient(aggregate, count):
    """Whatever the mean is over: lengths 1 to 6 would tell a mean of means from the mean."""
    cfg = replace(CFG, aggregate=aggregate, entropy_coef=0.1)
    rng = np.random.default_rng(0)
    valid = np.arange(6) < rng.integers(1, 7, (PAIRS, GROUP))[..., None]
    names = ("logp", "entropy", "sampled", "old", "reference")
    values = dict(zip(names, -rng.random((5, *valid.shape), np.float32), strict=True))
    loss, seen, slope = loss_of(valid=valid, advantage=advantages(), cfg=cfg, **values)
    weight = np.asarray(token_weights(valid, cfg))
    total, slopes, sums = 0.0, np.zeros_like(slope), 0.0
    for part in range(count):
        mine = slice(part, None, count)
        cut = {name: x[mine] for name, x in values.items()}
        one, some, its_slope = loss_of(
            valid=valid[mine], advantage=advantages()[mine], cfg=cfg, weight=weight[mine], **cut
        )
        total, slopes[mine] = total + one, its_slope
        sums += some["sum"]["kl"]
    np.testing.assert_allclose(total, loss, rtol=1e-5, atol=1e-6)
    np.testing.assert_allclose(slopes, slope, rtol=1e-5, atol=1e-8)
    np.testing.assert_allclose(sums, seen["sum"]["kl"], rtol=1e-5)


def test_pairs_and_answers_may_come_in_any_order():
    prompt, images, answers = played()
    rng = np.random.default_rng(8)
    pairs, group = rng.permutation(PAIRS), rng.permutation(GROUP)
    expected, _, _, seen = run(whole(), advantages())
    moved = jax.tree.map(lambda a: a[pairs][:, group], answers)
    cut = (jax.tree.map(lambda a: a[pairs], prompt), images[pairs])
    found, _, _, again = run(whole(), advantages()[pairs][:, group], rollout=moved, inputs=cut)
    assert_same_gradient(found, expected)
    assert_same_metrics(again, seen)


@pytest.mark.slow
def test_padding_to_a_longer_answer_changes_nothing():
    """Four more places after the longest answer, filled with words."""
    answers = played()[2]
    rng = np.random.default_rng(2)

    def longer(a, fill):
        more = np.broadcast_to(fill, (PAIRS, GROUP, 4)).astype(a.dtype)
        return jnp.concatenate([a, more], axis=-1)

    padded = answers.replace(
        tokens=longer(answers.tokens, rng.choice(tiny_model.WORDS, (PAIRS, GROUP, 4))),
        valid=longer(answers.valid, False),
        logp=longer(answers.logp, 7.0),
    )
    expected, _, _, seen = run(whole(), advantages())
    found, _, _, again = run(whole(), advantages(), rollout=padded)
    assert_same_gradient(found, expected)
    assert_same_metrics(again, seen)


def flattened(tree):
    """[B, ...] prompts and images once per answer, as [B * G, ...]."""
    return jax.tree.map(lambda a: jnp.repeat(jnp.asarray(a), GROUP, axis=0), tree)


def scored_gradient(prompt, images, tokens, batch_shape):
    """Compiled (loss, gradient) of one minibatch through `token_loss`, whatever its shape."""
    answers = played()[2]
    to = lambda a: jnp.reshape(a, (*batch_shape, *a.shape[2:]))  # noqa: E731
    weight = token_weights(answers.valid, CFG)
    batch = Answers(
        tokens=to(tokens), weight=to(weight),
        sampled=to(answers.logp), old=None, reference=None,
        advantage=to(jnp.asarray(advantages())),
    )  # fmt: skip
    # unrolled: the compiler counts a loop's body once, however often it runs
    score = make_scorer(replace(tiny_model.CONFIG, layers="unroll"), temperature=1.0, chunk=64)

    def loss(params, pairs, batch):
        return token_loss(*score(params, *pairs, batch.tokens), batch, CFG)[0]

    given = (tiny(), (prompt, images), batch)
    compiled = tiny_model.quick_jit(jax.value_and_grad(loss)).lower(*given).compile()
    return compiled(*given), compiled.cost_analysis()["flops"]


def test_the_shared_prompt_learner_equals_the_flattened_one_at_less_cost(record_property):
    """One prompt per answer, as other trainers lay it out: the same loss and gradient."""
    prompt, images, answers = played()
    (loss, grads), cost = scored_gradient(prompt, images, answers.tokens, (PAIRS, GROUP))
    flat = flattened((prompt, images))
    (other, expected), dear = scored_gradient(*flat, answers.tokens, (PAIRS * GROUP, 1))
    np.testing.assert_allclose(loss, other, rtol=1e-5)
    assert_same_gradient(grads, expected)
    record_property("flops_ratio", dear / cost)
    print(f"flattened / shared: {dear / cost:.2f} times the FLOPs at G={GROUP}, "
          f"{prompt.tokens.shape[1]} prompt and {TOKENS} answer tokens")  # fmt: skip
    # images and prompt G times instead of once; answers are as dear either way
    assert 1.5 < dear / cost < GROUP


@pytest.mark.slow
def test_minibatches_are_token_means_of_their_own_pairs():
    """Two minibatches of interleaved pairs equal two updates with the other pairs masked."""
    summed, *_ = run(updater(2, 2), advantages())
    answers = played()[2]
    halves = []
    for half in range(2):
        mine = (np.arange(PAIRS) % 2 == half)[:, None, None]
        masked = answers.replace(valid=answers.valid & mine)
        halves.append(run(whole(), advantages(), rollout=masked)[0])
    assert_same_gradient(summed, jax.tree.map(jnp.add, *halves))


def test_what_stands_after_the_end_of_an_answer_does_not_matter():
    answers = played()[2]
    other = np.random.default_rng(9).choice(tiny_model.WORDS, answers.tokens.shape).astype(np.int32)
    changed = answers.replace(tokens=jnp.where(answers.valid, answers.tokens, other))
    assert (changed.tokens != answers.tokens).any()
    expected = run(whole(), advantages())[0]
    found = run(whole(), advantages(), rollout=changed)[0]
    assert_same_gradient(found, expected)


@pytest.mark.slow
def test_a_step_makes_better_answers_likelier_and_worse_ones_less_likely():
    """Without KL, so without a reference, and with the real optimiser."""
    prompt, images, answers = played()
    optimizer = make_optimizer(OptimConfig(rate=1e-3, weight_decay=0.0), 10, tiny())
    cfg = GrpoConfig(kl_coef=0.0, vocab_chunk=64)
    update = tiny_model.quick_jit(
        make_update(cfg, tiny_model.CONFIG, optimizer, ALL, temperature=1.0)
    )
    state = TrainState.start(tiny(), optimizer, cfg, ALL)
    reward = np.tile(np.float32([3.0, 2.0, 1.0]), (PAIRS, 1))
    after, metrics, _ = update(state, prompt, images, answers, jnp.asarray(reward))
    assert "kl" not in metrics
    assert after.reference is None
    assert after.step == 1

    score = tiny_model.quick_jit(make_scorer(tiny_model.CONFIG, temperature=1.0, chunk=64))
    before, now = (
        np.where(answers.valid, score(p, prompt, images, answers.tokens)[0], 0).sum(-1)
        for p in (tiny(), after.params)
    )
    gain = (now - before).mean(0)
    assert gain[0] > 0.01
    assert gain[2] < -0.01
