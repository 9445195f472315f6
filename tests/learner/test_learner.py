"""The update's choices on a small model: what is trained, what the reference is, what stops it."""

from dataclasses import replace
from functools import cache

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from dig_jax.config import Config, CurriculumConfig, GrpoConfig, LoraConfig, OptimConfig
from dig_jax.learner.grpo import make_update
from dig_jax.learner.optim import make_optimizer
from dig_jax.learner.state import TrainState, enter_stage
from dig_jax.learner.trainable import join, parameter_names, split, trained_names
from dig_jax.model import lora
from dig_jax.model.config import LoraShape
from dig_jax.model.params import param_shapes
from dig_jax.model.qwen3vl import see_images
from dig_jax.model.specs import model_specs
from dig_jax.sampler.rollout import Rollout, make_sampler
from dig_jax.sampler.scorer import make_scorer
from tests import tiny_model

PAIRS, GROUP, TOKENS = 4, 3, 5
# a single block each: most of the time goes into compiling
PLAIN = replace(
    tiny_model.CONFIG,
    text=replace(tiny_model.CONFIG.text, layers=1),
    vision=replace(tiny_model.CONFIG.vision, depth=1),
)
LORA = replace(PLAIN, lora=LoraShape(rank=2, scale=1.5, targets=("wq", "wo", "w_down")))
REWARD = np.float32(np.random.default_rng(1).normal(size=(PAIRS, GROUP)))


@cache
def weights():
    return tiny_model.make_tiny(jax.random.key(0), PLAIN)


@cache
def adapted():
    return lora.add_fresh(weights(), LORA, key=jax.random.key(7))


@cache
def played():
    rng = np.random.default_rng(3)
    prompt, images = tiny_model.pairs_of(PAIRS)
    valid = np.arange(TOKENS) < rng.integers(1, TOKENS + 1, (PAIRS, GROUP))[..., None]
    tokens = np.where(valid, rng.choice(tiny_model.WORDS, valid.shape), tiny_model.PAD).astype(
        np.int32
    )
    ended = np.ones((PAIRS, GROUP), bool)
    ended[0, 0] = False
    logp = jnp.zeros(valid.shape)
    return prompt, images, Rollout(*map(jnp.asarray, (tokens, valid, ended)), logp)


OPTIM = OptimConfig(rate=1e-2, weight_decay=0.0)


@cache
def compiled(cfg: GrpoConfig, config, names):
    optimizer = make_optimizer(OPTIM, 10, split(param_shapes(model_specs(config)), names)[0])
    return tiny_model.quick_jit(make_update(cfg, config, optimizer, names, temperature=1.0))


def step(
    cfg: GrpoConfig,
    *,
    config=PLAIN,
    names=None,
    params=None,
    images=None,
    before=None,
    reward=REWARD,
    reference=None,
):
    """One update; (state before, state after, metrics, answers)."""
    params = weights() if params is None else params
    names = frozenset(parameter_names(params)) if names is None else names
    optimizer = make_optimizer(OPTIM, 10, split(params, names)[0])
    cfg = replace(cfg, vocab_chunk=24)
    update = compiled(cfg, config, names)
    state = before or TrainState.start(params, optimizer, cfg, names)
    if reference is not None:
        state = state.replace(reference=reference)
    prompt, pixels, rollout = played()
    images = pixels if images is None else images
    return state, *update(state, prompt, images, rollout, jnp.asarray(reward))


def moved(before, after) -> set[str]:
    """Names of the parameters that differ."""
    leaves = zip(parameter_names(before), jax.tree.leaves(before), jax.tree.leaves(after),
                 strict=True)  # fmt: skip
    return {name for name, a, b in leaves if (np.asarray(a) != np.asarray(b)).any()}


# ---- what is trained


@pytest.mark.slow
def test_a_frozen_tower_has_no_moments_no_reference_and_is_seen_once():
    """Given the tower's tokens instead of the images, the update is the same, and cheaper."""
    cfg = Config(optim=OptimConfig(freeze=("vision",)))
    names = trained_names(cfg, weights())
    prompt, images, _ = played()
    seen = tiny_model.quick_jit(lambda *pair: see_images(weights(), PLAIN, *pair))(prompt, images)
    start, once, metrics, _ = step(GrpoConfig(), names=names, images=seen)
    _, each, expected, _ = step(GrpoConfig(), names=names)
    assert not any(name.startswith("vision") for name in parameter_names(start.reference))
    trained = sum(weights()[k].size for k in ("embed", "head", "norm"))
    trained += sum(leaf.size for leaf in jax.tree.leaves(weights()["blocks"]))
    moments = [leaf for leaf in jax.tree.leaves(start.opt_state) if leaf.ndim]
    assert sum(leaf.size for leaf in moments) == 2 * trained
    changed = moved(weights(), once.params)
    assert changed
    assert not any(name.startswith("vision") for name in changed)
    # two programs of the same float32 sums; Adam's first step is rate x sign, so compare the norm
    np.testing.assert_allclose(metrics["grad_norm"], expected["grad_norm"], rtol=1e-5)
    np.testing.assert_allclose(metrics["loss"], expected["loss"], rtol=1e-5)
    assert moved(each.params, once.params) <= changed


@pytest.mark.slow
def test_fresh_adapters_change_no_bit_and_are_all_that_moves():
    _, images, rollout = played()
    score = tiny_model.quick_jit(make_scorer(LORA, temperature=1.0, chunk=64))
    for params in (weights(), adapted()):
        logp = score(params, played()[0], images, rollout.tokens)[0]
        if params is weights():
            plain = logp
    np.testing.assert_array_equal(logp, plain)
    names = trained_names(Config(lora=LoraConfig(rank=2)), adapted())
    start, after, metrics, _ = step(GrpoConfig(), config=LORA, names=names, params=adapted())
    assert metrics["kl"] == 0
    # A's gradient is B's weights, which are 0 before the first update
    assert moved(adapted(), after.params) == {f"lora/{t}/b" for t in LORA.lora.targets}
    assert set(parameter_names(start.reference)) == names, "the reference is the base"
    assert len([x for x in jax.tree.leaves(start.opt_state) if x.ndim]) == 2 * len(names)


def trained_adapters():
    """B away from 0."""
    noise = {
        name: {**pair, "b": 0.1 * jax.random.normal(jax.random.key(i), pair["b"].shape)}
        for i, (name, pair) in enumerate(adapted()["lora"].items())
    }
    return adapted() | {"lora": noise}


@pytest.mark.slow
def test_merged_weights_compute_what_the_adapters_do():
    params = trained_adapters()
    merged = lora.merge(params, LORA)
    assert parameter_names(merged) == parameter_names(weights())
    assert moved(weights(), merged) == {f"blocks/{t}" for t in LORA.lora.targets}
    wq = weights()["blocks"]["wq"] + 1.5 * np.einsum(
        "ldr,lrnh->ldnh", params["lora"]["wq"]["a"], params["lora"]["wq"]["b"]
    )
    np.testing.assert_allclose(merged["blocks"]["wq"], wq, atol=1e-6)
    prompt, images, rollout = played()
    score = tiny_model.quick_jit(make_scorer(LORA, temperature=1.0, chunk=64))
    ours, plain, base = (
        score(p, prompt, images, rollout.tokens)[0] for p in (params, merged, weights())
    )
    # one rounding of a weight near 1 through two blocks, logits near 5: 1e-5
    np.testing.assert_allclose(ours, plain, atol=2e-5)
    assert jnp.abs(ours - base).max() > 1e-2, "the adapters must matter to be compared"
    sampler = make_sampler(LORA, group=2, max_tokens=4, temperature=1.0)
    sample = tiny_model.quick_jit(sampler)
    key = jax.random.key(3)
    drawn = [sample(p, prompt, images, key).tokens for p in (params, merged)]
    np.testing.assert_array_equal(*drawn)


def test_an_unknown_adapter_target_is_named():
    shape = LoraShape(2, 1.0, ("w_gat",))
    with pytest.raises(ValueError, match=r"lora.targets: 'w_gat' is no matrix .* w_gate"):
        lora.check_targets(shape, model_specs(PLAIN)["blocks"])
    lora.check_targets(LoraShape(2, 1.0, ("w_gate",)), model_specs(PLAIN)["blocks"])
    with pytest.raises(ValueError, match="'q_norm' is no matrix"):
        lora.check_targets(LoraShape(2, 1.0, ("q_norm",)), model_specs(PLAIN)["blocks"])


@pytest.mark.parametrize(
    ("freeze", "message", "followed"),
    [
        (("visoin",), "'visoin' names no parameter; nearest: vision", ("vision",)),
        (("blocks/w",), "'blocks/w' names no parameter; nearest: .*blocks/wq", ("blocks/wq",)),
        (
            ("embed", "blocks", "vision", "head", "norm"),
            "leaves nothing to train; freeze less of blocks, embed",
            ("embed", "vision", "head", "norm"),
        ),
    ],
)
def test_wrong_freeze_lists_are_named(freeze, message, followed):
    cfg = Config(optim=OptimConfig(freeze=freeze))
    with pytest.raises(ValueError, match=message):
        trained_names(cfg, param_shapes(model_specs(PLAIN)))
    less = Config(optim=OptimConfig(freeze=followed))
    assert trained_names(less, param_shapes(model_specs(PLAIN)))


@pytest.mark.parametrize("freeze", [(), ("vision",), ("blocks/wq", "embed"), ("head",)])
def test_a_tree_cut_in_two_joins_to_itself(freeze):
    names = trained_names(Config(optim=OptimConfig(freeze=freeze)), weights())
    trained, frozen = split(weights(), names)
    assert set(parameter_names(trained)) == names
    for both in (join(trained, frozen), join(frozen, trained)):
        assert jax.tree.structure(both) == jax.tree.structure(weights())
        assert not moved(both, weights())


# ---- the reference


@pytest.mark.slow
@pytest.mark.parametrize("kept", ["bfloat16", "host"])
def test_a_reference_kept_otherwise_still_has_no_kl_before_the_first_update(kept):
    start, after, metrics, _ = step(GrpoConfig(reference=kept))
    assert metrics["kl"] == 0
    dtypes = {leaf.dtype for leaf in jax.tree.leaves(start.reference)}
    assert dtypes == {jnp.dtype("bfloat16" if kept == "bfloat16" else "float32")}
    metrics = step(GrpoConfig(reference=kept), before=after)[2]
    # a step of 1e-2 on weights near 0.2 is far above bfloat16's rounding
    assert metrics["kl"] > 1e-4


@pytest.mark.slow
def test_a_stage_renews_the_reference_and_resets_the_moments_where_asked():
    names = frozenset(parameter_names(weights()))
    _, after, _, _ = step(GrpoConfig())
    kept = enter_stage(Config(), after, names)
    assert not moved(kept.reference, after.reference)
    renewed = enter_stage(
        Config(curriculum=CurriculumConfig(reference="per_stage", optimizer="reset")), after, names
    )
    assert not moved(renewed.reference, after.params)
    assert moved(renewed.reference, after.reference)
    assert not any(np.any(leaf) for leaf in jax.tree.leaves(renewed.opt_state))
    assert any(np.any(leaf) for leaf in jax.tree.leaves(kept.opt_state))


@pytest.mark.slow
def test_kl_in_the_reward_is_the_summed_estimate_taken_off_before_the_advantage():
    reference = jax.tree.map(lambda a: a * 1.05, weights())
    cfg = GrpoConfig(kl_in="reward", kl="k1", kl_coef=0.3, advantage="none")
    _, _, metrics, answers = step(cfg, reference=reference)
    prompt, images, rollout = played()
    score = tiny_model.quick_jit(make_scorer(PLAIN, temperature=1.0, chunk=24))
    own, other = (
        np.asarray(score(p, prompt, images, rollout.tokens)[0]) for p in (weights(), reference)
    )
    gap = np.where(rollout.valid, own - other, 0).sum(-1)
    shaped = REWARD - 0.3 * gap
    expected = shaped - shaped.mean(-1, keepdims=True)
    # log-probs near 5 in float32 through two programs: 1e-6 per token
    np.testing.assert_allclose(answers["advantage"], expected, atol=1e-5)
    assert np.abs(gap).max() > 1e-2
    assert "loss_kl" not in metrics
    assert metrics["kl"] > 0


# ---- what a step reports and what stops it


@pytest.mark.slow
def test_the_parts_of_the_loss_add_up_to_it():
    reference = jax.tree.map(lambda a: a * 1.05, weights())
    cfg = GrpoConfig(entropy_coef=0.01, kl_coef=0.1)
    _, _, metrics, answers = step(cfg, reference=reference)
    parts = ("policy", "kl", "entropy")
    total = sum(float(answers[name].sum()) for name in parts)
    np.testing.assert_allclose(total, metrics["loss"], rtol=1e-5)
    for name in parts:
        assert answers[name].shape == (1, PAIRS, GROUP)
        np.testing.assert_allclose(answers[name].sum(), metrics[f"loss_{name}"], rtol=1e-5)
    np.testing.assert_allclose(metrics["loss_entropy"], -0.01 * metrics["entropy"], rtol=1e-5)


@pytest.mark.slow
def test_an_entropy_bonus_raises_entropy():
    def entropy_after(coef):
        flat = np.zeros_like(REWARD)
        cfg = GrpoConfig(entropy_coef=coef, kl_coef=0.0)
        _, state, before, _ = step(cfg, reward=flat)
        after = step(cfg, reward=flat, before=state)[2]
        return float(before["entropy"]), float(after["entropy"])

    before, after = entropy_after(1.0)
    assert after > before + 0.01
    before, after = entropy_after(0.0)
    assert after == before, "flat groups and no bonus move nothing"


@pytest.mark.slow
def test_masked_answers_do_not_train():
    """The only answer with a reward is cut off: with truncated=mask nothing moves it."""
    reward = np.zeros_like(REWARD)
    reward[0] = [1.0, 0.0, 0.0]
    cfg = GrpoConfig(kl_coef=0.0, truncated="mask")
    _, _, _, answers = step(cfg, reward=reward)
    assert answers["advantage"][0, 0] > 1
    assert answers["policy"][0, 0, 0] == 0
    assert np.abs(answers["policy"][0, 0, 1:]).min() > 0


@pytest.mark.parametrize("bad", [np.nan, pytest.param(np.inf, marks=pytest.mark.slow)])
@pytest.mark.parametrize("minibatches", [1, pytest.param(2, marks=pytest.mark.slow)])
def test_a_loss_that_is_not_finite_moves_nothing(bad, minibatches):
    reward = REWARD.copy()
    reward[1, 2] = bad
    cfg = GrpoConfig(minibatches=minibatches, advantage="none")
    start, after, metrics, _ = step(cfg, reward=reward)
    assert metrics["finite"] == 0
    assert not np.isfinite(metrics["loss"])
    # of two minibatches the second has the bad pair: the first has moved, and no weight is spoilt
    assert all(np.isfinite(leaf).all() for leaf in jax.tree.leaves(after.params))
    assert all(np.isfinite(leaf).all() for leaf in jax.tree.leaves(after.opt_state))
    if minibatches == 1:
        assert not moved(start.params, after.params)
