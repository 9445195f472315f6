"""The update of packed answers is the padded one: loss, gradient and every metric, in all variants.

Both sum the same float32 numbers in another order: of each parameter's gradient less than 1e-6 of
the whole gradient's length is another (3.5e-7 measured). A mistake moves it by .07 or more.
"""

from dataclasses import replace
from functools import cache

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from dig_jax.config import Config, GrpoConfig, LoraConfig, OptimConfig
from dig_jax.learner import packing, turns
from dig_jax.learner.grpo import make_update
from dig_jax.learner.optim import make_optimizer
from dig_jax.learner.packing import make_packing, make_plan
from dig_jax.learner.state import TrainState
from dig_jax.learner.trainable import parameter_names, split, trained_names
from dig_jax.model import lora
from dig_jax.model.config import LoraShape
from dig_jax.model.qwen3vl import see_images
from dig_jax.sampler.rollout import Rollout
from tests import tiny_model
from tests.learner.test_grpo import recorder

PAIRS, GROUP, TOKENS = 8, 4, 40
CLOSE = 1e-6


@pytest.fixture(autouse=True)
def _many_turns(monkeypatch):
    """Of 64 tokens, so that every answer may stand beside every other."""
    monkeypatch.setattr(packing, "LEAST", 64)


@cache
def tiny():
    return tiny_model.make_tiny(jax.random.key(0))


ADAPTED = replace(
    tiny_model.CONFIG, lora=LoraShape(rank=2, scale=1.5, targets=("wq", "wo", "w_down"))
)


@cache
def with_adapters():
    """The weights with adapters that already do something, so that both factors have a gradient."""
    params = lora.add_fresh(tiny(), ADAPTED, key=jax.random.key(7))
    keys = iter(jax.random.split(jax.random.key(8), 8))
    noise = jax.tree.map(
        lambda a: a + 0.1 * jax.random.normal(next(keys), a.shape, a.dtype), params["lora"]
    )
    return params | {"lora": noise}


@cache
def played(seed: int = 3):
    """Prompt, images and answers of 1 to 40 tokens, some cut off, with the sampler's own doubts."""
    rng = np.random.default_rng(seed)
    prompt, images = tiny_model.pairs_of(PAIRS)
    length = rng.integers(1, TOKENS + 1, (PAIRS, GROUP))
    length[0] = TOKENS, 1, 2, TOKENS
    valid = np.arange(TOKENS) < length[..., None]
    tokens = np.where(valid, rng.choice(tiny_model.WORDS, valid.shape), tiny_model.PAD)
    rollout = Rollout(
        tokens=jnp.asarray(tokens, jnp.int32),
        valid=jnp.asarray(valid),
        ended=jnp.asarray(length < TOKENS - 6),
        logp=jnp.asarray(np.where(valid, -rng.random(valid.shape), 0), jnp.float32),
    )
    return prompt, images, rollout


def rewards():
    return np.random.default_rng(5).normal(size=(PAIRS, GROUP)).astype(np.float32)


def plan_of(cfg: GrpoConfig, rollout: Rollout):
    how = {name: getattr(cfg, name) for name in ("minibatches", "accumulate", "answer_slices")}
    shapes = make_packing(PAIRS, GROUP, TOKENS, **how)
    return make_plan(shapes, np.asarray(rollout.lengths))


ALL = frozenset(parameter_names(tiny_model.make_tiny(jax.random.key(0))))
TEXT = frozenset(name for name in ALL if not name.startswith("vision"))


def update_of(cfg: GrpoConfig, config=tiny_model.CONFIG, optimizer=None, trained=ALL):
    optimizer = optimizer or recorder()
    make = make_update(cfg, config, optimizer, trained, temperature=1.0)
    return tiny_model.quick_jit(make), optimizer


def both_ways(
    cfg: GrpoConfig, *, reference=True, trained=ALL, frozen=False, rollout=None, adapted=False
):
    """(summed gradient, metrics, parts) of the padded and of the packed update.

    reference  another than the policy, so that all of the KL is in the comparison
    adapted    the adapters alone are trained
    """
    params, config = (with_adapters(), ADAPTED) if adapted else (tiny(), tiny_model.CONFIG)
    if adapted:
        trained = trained_names(Config(lora=LoraConfig(rank=2)), params)
    update, optimizer = update_of(cfg, config, trained=trained)
    prompt, images, answers = played()
    answers = rollout or answers
    if frozen:
        images = see_images(tiny(), tiny_model.CONFIG, prompt, images)
    part, moved = split(params, trained)[0], jax.tree.map(lambda a: a * 1.02, params)
    state = TrainState(
        params=params,
        opt_state=optimizer.init(part),
        reference=split(moved if reference else params, trained)[0] if cfg.kl_coef else None,
        step=jnp.int32(0),
    )
    given = (state, prompt, images, answers, jnp.asarray(rewards()))
    for plan in (None, plan_of(cfg, answers)):
        after, metrics, parts = update(*given, plan)
        yield after.opt_state[0], metrics, parts


def norm(tree):
    return jnp.sqrt(sum(jnp.square(leaf).sum() for leaf in jax.tree.leaves(tree)))


def assert_equal(cfg: GrpoConfig, **how):
    (grads, metrics, parts), (found, other, others) = both_ways(cfg, **how)
    whole = float(norm(jax.tree.map(norm, grads)))
    assert whole > 1e-3
    gaps = jax.tree.map(lambda a, b: float(norm(a - b)) / whole, grads, found)
    # a mismatch weight is exp of a difference of log-probs near 5, good to 5e-7 each
    assert max(jax.tree.leaves(gaps)) < CLOSE * (1 if cfg.mismatch == "none" else 2), gaps
    assert metrics.keys() == other.keys()
    terms = sum(float(jnp.abs(leaf).sum()) for leaf in jax.tree.leaves(parts))
    for name in metrics:
        # sums of terms of either sign, or log-probs near 5, which are good to 5e-7 each
        atol = CLOSE * max(terms, 5.0 if name.startswith(("kl", "sampler", "ratio")) else 0.0)
        np.testing.assert_allclose(other[name], metrics[name], rtol=CLOSE, atol=atol, err_msg=name)
    jax.tree.map(
        lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-5, atol=CLOSE), others, parts
    )


VARIANTS = {
    "as it comes": {},
    "gspo, minibatches, epochs, slices": {
        "importance": "sequence",
        "aggregate": "sequence",
        "minibatches": 2,
        "epochs": 2,
        "accumulate": 2,
    },
    "entropy, masked": {"entropy_coef": 0.1, "truncated": "mask", "answer_slices": 2},
    "cispo": {"objective": "cispo", "aggregate": "constant", "minibatches": 2},
    "kl in reward": {"kl_in": "reward", "kl": "k1", "advantage": "batch", "accumulate": 4},
    "sapo, corrected": {
        "objective": "sapo",
        "minibatches": 2,
        "mismatch": "mask",
        "mismatch_level": "sequence",
    },
    "most uncertain": {"entropy_share": 0.3, "mismatch": "truncate", "minibatches": 2},
    "no kl": {"kl_coef": 0.0, "advantage": "leave_one_out", "aggregate": "sequence"},
}
QUICK = ("as it comes",)  # the others compile for half a minute each


@pytest.mark.parametrize(
    "name",
    [n if n in QUICK else pytest.param(n, marks=pytest.mark.slow) for n in VARIANTS],
)
def test_packed_answers_have_the_padded_ones_gradient_and_metrics(name):
    assert_equal(GrpoConfig(vocab_chunk=24, **VARIANTS[name]))


@pytest.mark.slow
def test_a_frozen_tower_seen_once_is_packed_alike():
    assert_equal(GrpoConfig(vocab_chunk=24), trained=TEXT, frozen=True)


@pytest.mark.slow
def test_adapters_are_trained_alike():
    assert_equal(GrpoConfig(vocab_chunk=24), adapted=True)


@pytest.mark.slow
def test_the_first_packed_update_has_no_kl_and_a_ratio_of_one_bit_for_bit():
    _, (_, metrics, _) = both_ways(GrpoConfig(vocab_chunk=24), reference=False)
    assert metrics["kl"] == metrics["kl_k1"] == 0
    assert metrics["ratio_max"] == 1


@pytest.mark.slow
@pytest.mark.parametrize("mistake", ["another prompt", "one token further", "first token"])
def test_a_mistake_in_packing_is_seen(mistake, monkeypatch):
    """The comparison can fail: by a wrong owner, reach, or state before the first token."""
    real = turns._stream

    def wrong(tokens, take):
        stream, wanted = real(tokens, take)
        match mistake:
            case "another prompt":
                return stream.replace(owner=(stream.owner + 1) % PAIRS), wanted
            case "one token further":
                further = jnp.where(stream.place > 0, stream.place + 1, 0)
                return stream.replace(place=further), wanted
            case _:
                return stream.replace(place=jnp.maximum(stream.place, 1)), wanted

    monkeypatch.setattr(turns, "_stream", wrong)
    with pytest.raises(AssertionError):
        assert_equal(GrpoConfig(vocab_chunk=24))


@pytest.mark.slow
def test_fifty_rollouts_of_any_lengths_are_one_program():
    """Counted by JAX itself: the lengths are data."""
    cfg = GrpoConfig(vocab_chunk=24, kl_coef=0.0)
    optimizer = make_optimizer(OptimConfig(rate=1e-4), 10, tiny())
    update, _ = update_of(cfg, optimizer=optimizer)
    state = TrainState.start(tiny(), optimizer, cfg, ALL)
    prompt, images, answers = played()
    rng, turned = np.random.default_rng(0), set()
    for _ in range(50):
        length = rng.integers(1, rng.integers(1, TOKENS + 1) + 1, (PAIRS, GROUP))
        valid = jnp.asarray(np.arange(TOKENS) < length[..., None])
        plan = plan_of(cfg, answers.replace(valid=valid))
        turned.add(int(plan.turns.max()))
        given = (answers.replace(valid=valid), jnp.asarray(rewards()), plan)
        state, metrics, _ = update(state, prompt, images, *given)
        assert metrics["finite"] == 1
    assert update._cache_size() == 1
    assert len(turned) > 5
