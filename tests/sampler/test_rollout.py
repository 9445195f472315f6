"""Sampling: what is drawn, where it stops, and that the learner agrees on its probability."""

from functools import cache

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from dig_jax.model import qwen3vl
from dig_jax.sampler import rollout
from dig_jax.sampler.scorer import make_scorer
from tests import tiny_model

PAIRS, GROUP, TOKENS = 4, 4, 6
SIZES = [[tiny_model.SIZE, tiny_model.SIZE]] * PAIRS
WORDS = [2, 5, 3, 4]  # prompts of unequal length
STOPS = tiny_model.CONFIG.eos_tokens
VISION = [tiny_model.IMAGE, tiny_model.VIDEO, tiny_model.START, tiny_model.END]


@cache
def tiny():
    """A policy that stops about one time in six."""
    return tiny_model.leaning(tiny_model.make_tiny(jax.random.key(0)), STOPS, 5.0)


@cache
def asked():
    return tiny_model.fake_prompt(SIZES, WORDS), tiny_model.fake_images(SIZES)


@cache
def sampler(temperature: float = 1.0):
    return tiny_model.quick_jit(made(temperature))


@cache
def forward():
    def states(params, prompt, images, tokens):
        cached = qwen3vl.encode_prompt(params, tiny_model.CONFIG, prompt, images)
        return qwen3vl.score_tokens(params, tiny_model.CONFIG, cached, tokens)

    return tiny_model.quick_jit(states)


def allowed_logits(tokens) -> np.ndarray:
    """Logits f32[B, G, T, V] that precede each token; -inf at vision tokens."""
    logits = np.array(forward()(tiny(), *asked(), tokens) @ qwen3vl.unembed(tiny()))
    logits[..., VISION] = -np.inf
    return logits


def made(temperature: float, *, group: int = GROUP, tokens: int = TOKENS):
    return rollout.make_sampler(
        tiny_model.CONFIG, group=group, max_tokens=tokens, temperature=temperature
    )


@cache
def drawn(temperature: float = 1.0, seed: int = 0) -> rollout.Rollout:
    return jax.device_get(sampler(temperature)(tiny(), *asked(), jax.random.key(seed)))


def test_the_same_key_draws_the_same_tokens():
    again = sampler()(tiny(), *asked(), jax.random.key(0))
    jax.tree.map(np.testing.assert_array_equal, drawn(), jax.device_get(again))
    assert (drawn().tokens != drawn(seed=1).tokens).mean() > 0.5


def test_rows_of_a_batch_are_drawn_independently():
    """16 first tokens among 60: two rows that share a key would share their noise."""
    longer = drawn().valid[..., 1]
    opened = [tuple(row) for row in drawn().tokens[..., :2][longer]]
    assert len(set(opened)) >= len(opened) - 1 > 5


def test_draws_do_not_depend_on_the_slice_of_the_batch():
    """Pairs 0-3 at once, or 0-1 and 2-3 with the number of the slice's first row."""
    prompt, images = asked()
    for first in (0, 2):
        part = slice(first, first + 2)
        rows = jax.tree.map(lambda a, part=part: a[part], (prompt, images))
        found = sampler()(tiny(), *rows, jax.random.key(0), first)
        np.testing.assert_array_equal(found.tokens, drawn().tokens[part])
        np.testing.assert_allclose(found.logp, drawn().logp[part], atol=1e-5)


def test_greedy_ignores_the_key_and_takes_the_likeliest_token():
    one, two = (drawn(0.0, seed) for seed in (0, 1))
    jax.tree.map(np.testing.assert_array_equal, one, two)
    np.testing.assert_array_equal(one.tokens, np.repeat(one.tokens[:, :1], GROUP, axis=1))
    best = allowed_logits(one.tokens).argmax(-1)
    np.testing.assert_array_equal(one.tokens[one.valid], best[one.valid])


def test_masks_run_through_the_first_stop_token():
    """EOS and pad both stop: the stop is kept, valid and scored; behind it pad, not valid."""
    kinds = set()
    for answers in (drawn(), drawn(seed=1)):
        for b, g in np.ndindex(PAIRS, GROUP):
            tokens, logp = answers.tokens[b, g], answers.logp[b, g]
            at = np.flatnonzero(np.isin(tokens, STOPS))
            length = at[0] + 1 if len(at) else TOKENS
            kinds.add(int(tokens[at[0]]) if len(at) else "cut off")
            assert answers.ended[b, g] == bool(len(at))
            assert answers.lengths[b, g] == length
            np.testing.assert_array_equal(answers.valid[b, g], np.arange(TOKENS) < length)
            np.testing.assert_array_equal(tokens[length:], tiny_model.PAD)
            np.testing.assert_array_equal(logp[length:], 0)
            assert (logp[:length] < 0).all()
    assert kinds == {tiny_model.EOS, tiny_model.PAD, "cut off"}


@cache
def score_of(temperature: float):
    return tiny_model.quick_jit(make_scorer(tiny_model.CONFIG, temperature=temperature, chunk=24))


@pytest.mark.parametrize("temperature", [1.0, pytest.param(0.7, marks=pytest.mark.slow)])
def test_the_sampler_reports_the_log_probs_that_the_learner_computes(temperature):
    """The end token's included. Float32, logits near 8: 1e-5 (measured 1.4e-6)."""
    answers = drawn(temperature)
    logp, entropy = score_of(temperature)(tiny(), *asked(), answers.tokens)
    gap = np.abs(answers.logp - logp)[answers.valid]
    assert gap.max() < 1e-5
    assert ((entropy > 0) & (entropy < np.log(60))).all()


def test_greedy_reports_log_probs_at_temperature_one():
    answers = drawn(0.0)
    logp, _ = score_of(1.0)(tiny(), *asked(), answers.tokens)
    assert np.abs(answers.logp - logp)[answers.valid].max() < 1e-5


def test_samples_follow_the_scaled_distribution():
    """First tokens of 4 x 4,000 answers against softmax(logits / 0.7), four sigma per token."""
    group = 4000
    sample = tiny_model.quick_jit(made(0.7, group=group, tokens=1))
    tokens = np.asarray(sample(tiny(), *asked(), jax.random.key(3)).tokens)[..., 0]
    logits = allowed_logits(drawn().tokens)[:, 0, 0]
    expected = np.asarray(jax.nn.softmax(logits / 0.7)) * group
    counts = np.stack([np.bincount(row, minlength=64) for row in tokens])
    assert (np.abs(counts - expected) <= 4 * np.sqrt(expected) + 2).all()
    assert np.abs(counts - group / 60).max() > 200  # a uniform policy would fail


def test_no_vision_token_is_ever_sampled():
    """Not even by a policy that says nothing else."""
    eager = tiny_model.leaning(tiny_model.make_tiny(jax.random.key(0)), VISION, 1000.0)
    for temperature in (1.0, 0.0):
        answers = sampler(temperature)(eager, *asked(), jax.random.key(0))
        assert not np.isin(answers.tokens, VISION).any()
        assert np.isfinite(answers.logp).all()


def test_decoding_stops_when_every_answer_has_ended(monkeypatch):
    """One step for a policy that ends at once, however many tokens are allowed."""
    steps = []

    def counted(params, config, cache, answers, token, step):
        jax.debug.callback(lambda s: steps.append(int(s)), step)
        return qwen3vl.decode_token(params, config, cache, answers, token, step)

    monkeypatch.setattr(rollout, "decode_token", counted)
    sample = tiny_model.quick_jit(made(1.0, tokens=64))
    silent = tiny_model.leaning(tiny_model.make_tiny(jax.random.key(0)), [tiny_model.EOS], 1000.0)
    answers = jax.device_get(sample(silent, *asked(), jax.random.key(0)))
    jax.effects_barrier()
    assert steps == [0]
    np.testing.assert_array_equal(answers.lengths, 1)
    np.testing.assert_array_equal(answers.tokens[..., 0], tiny_model.EOS)
    np.testing.assert_array_equal(answers.tokens[..., 1:], tiny_model.PAD)
    assert answers.ended.all()

    steps.clear()
    answers = jax.device_get(sample(tiny(), *asked(), jax.random.key(0)))
    jax.effects_barrier()
    assert sorted(steps) == list(range(answers.lengths.max()))
    # more room changes nothing: the first tokens are those drawn with six allowed
    first = np.where(drawn().valid, drawn().tokens, tiny_model.PAD)
    np.testing.assert_array_equal(answers.tokens[..., :TOKENS], first)


def test_answers_are_scored_in_the_order_of_pairs_and_group():
    """Swapping two pairs, or two answers of one pair, swaps the scores."""
    answers = drawn()
    logp, _ = score_of(1.0)(tiny(), *asked(), answers.tokens)
    turned = jax.tree.map(lambda a: a[::-1], asked())
    found, _ = score_of(1.0)(tiny(), *turned, jnp.asarray(answers.tokens)[::-1, ::-1])
    np.testing.assert_allclose(found[::-1, ::-1], logp, atol=1e-5)


@pytest.mark.slow
def test_a_truncated_sampler_draws_only_kept_tokens():
    """First tokens of 4 x 1,000 answers: all within the three likeliest, each of those drawn."""
    sample = tiny_model.quick_jit(
        rollout.make_sampler(
            tiny_model.CONFIG, group=1000, max_tokens=1, temperature=1.0, top_k=3, top_p=0.999
        )
    )
    tokens = np.asarray(sample(tiny(), *asked(), jax.random.key(3)).tokens)[..., 0]
    logits = allowed_logits(drawn().tokens)[:, 0, 0]
    for row, likely in zip(tokens, np.argsort(logits)[:, -3:], strict=True):
        assert set(row.tolist()) <= set(likely.tolist())
        assert len(set(row.tolist())) >= 2
