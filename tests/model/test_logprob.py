"""The one log-probability: chunks, bans, temperature, entropy and gradient against log_softmax."""

from functools import cache, partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.sharding import NamedSharding, PartitionSpec

from dig_jax.config import MeshConfig
from dig_jax.mesh import sharding
from dig_jax.model import logprob
from dig_jax.model.logprob import answer_logits, banned_tokens, token_logp
from tests import tiny_model
from tpu import hlo_report

VOCAB, WIDTH = 41, 16
BANNED = np.isin(np.arange(VOCAB), [*range(11), 20, 40])
ALLOWED = np.flatnonzero(~BANNED)  # 28 tokens
CHUNKS = [11, 8192]  # the first chunk of 11 holds banned tokens only, the last is short


def case(seed: int = 0):
    """Hidden states, head and allowed tokens; logits of standard deviation 4."""
    rng = np.random.default_rng(seed)
    hidden = rng.normal(size=(3, 5, WIDTH)).astype(np.float32)
    head = rng.normal(size=(WIDTH, VOCAB)).astype(np.float32)
    return hidden, head, rng.choice(ALLOWED, (3, 5)).astype(np.int32)


def plain(hidden, head, tokens, temperature: float):
    """The definition: log_softmax over the scaled logits of the allowed tokens."""
    logp = jax.nn.log_softmax(hidden @ head[:, ALLOWED] / temperature)
    entropy = -(jnp.exp(logp) * logp).sum(-1)
    place = jnp.searchsorted(ALLOWED, tokens)
    return jnp.take_along_axis(logp, place[..., None], -1)[..., 0], entropy


def bound(temperature: float, chunk: int):
    return partial(token_logp, temperature=temperature, banned=BANNED, chunk=chunk)


@cache
def ours(temperature: float, chunk: int):
    return tiny_model.quick_jit(bound(temperature, chunk))


@pytest.mark.parametrize(("temperature", "chunk"), [(1.0, 11), (1.0, 8192), (0.7, 11)])
def test_chunked_equals_log_softmax_of_scaled_masked_logits(chunk, temperature):
    hidden, head, tokens = case()
    expected = plain(hidden, head, tokens, temperature)
    # |logit| up to 25: float32 sums of 16 products and of 28 exponentials are good to 1e-5
    for a, b in zip(ours(temperature, chunk)(hidden, head, tokens), expected, strict=True):
        np.testing.assert_allclose(a, b, atol=1e-5, rtol=0)


@cache
def gradient(chunk: int | None):
    """Gradient of a weighted sum of log-probs and entropies; None: of the definition."""
    pull = np.random.default_rng(2).normal(size=(2, 3, 5)).astype(np.float32)

    function = bound(0.7, chunk) if chunk else partial(plain, temperature=0.7)

    def value(hidden, head, tokens):
        logp, entropy = function(hidden, head, tokens)
        return (pull[0] * logp + pull[1] * entropy).sum()

    return tiny_model.quick_jit(jax.grad(value, argnums=(0, 1)))(*case(1))


@pytest.mark.parametrize("chunk", CHUNKS)
def test_gradients_of_logp_and_entropy_equal_the_unchunked_ones(chunk):
    for a, b in zip(gradient(chunk), gradient(None), strict=True):
        assert np.abs(b).max() > 1
        np.testing.assert_allclose(a, b, atol=2e-5, rtol=0)
    np.testing.assert_array_equal(gradient(chunk)[1][:, BANNED], 0)


@pytest.mark.parametrize("chunk", CHUNKS)
def test_a_banned_token_has_no_probability_and_stays_finite(chunk):
    hidden, head, _ = case()
    tokens = np.resize(np.flatnonzero(BANNED), (3, 5)).astype(np.int32)
    logp, entropy = ours(1.0, chunk)(hidden, head, tokens)
    np.testing.assert_allclose(logp, -1e30, rtol=1e-6)
    assert np.isfinite(entropy).all()
    logits = np.asarray(answer_logits(hidden, head, temperature=1.0, banned=BANNED))
    assert not BANNED[logits.argmax(-1)].any()
    np.testing.assert_array_equal(np.exp(logits[..., BANNED] - logits.max()), 0)


def test_entropy_by_hand():
    """Equal logits over 28 allowed tokens: ln 28; one logit far above: 0."""
    hidden, head, tokens = (np.zeros_like(x) for x in case())
    hidden[0, :, 0] = 1
    head[0, 12] = 100
    logp, entropy = ours(1.0, 11)(hidden, head, tokens + 12)
    np.testing.assert_allclose(logp[:2, 0], [0, -np.log(28)], atol=1e-6)
    np.testing.assert_allclose(entropy[:2, 0], [0, np.log(28)], atol=1e-6)


def test_huge_logits_do_not_overflow():
    hidden, head, tokens = case()
    logp, entropy = ours(1.0, 11)(hidden * np.float32(1e4), head, tokens)
    assert np.isfinite(logp).all()
    assert (np.asarray(entropy) > -0.02).all()  # log-sum minus mean of logits near 1e5, ulp 0.008


def test_bfloat16_states_give_float32_log_probabilities():
    """The matmul reads bfloat16; the softmax does not lose the digits a ratio needs."""
    hidden, head, tokens = case()
    narrow = hidden.astype(jnp.bfloat16)
    logp, _ = ours(1.0, 11)(narrow, head, tokens)
    assert logp.dtype == jnp.float32
    widened = (np.asarray(x.astype(jnp.bfloat16), np.float32) for x in (hidden, head))
    np.testing.assert_allclose(logp, plain(*widened, tokens, 1.0)[0], atol=1e-5, rtol=0)


def test_every_vision_token_is_banned_and_nothing_else():
    ids = [tiny_model.IMAGE, tiny_model.VIDEO, tiny_model.START, tiny_model.END]
    np.testing.assert_array_equal(np.flatnonzero(banned_tokens(tiny_model.CONFIG)), sorted(ids))


# On a mesh, 2 x 4: 16 pairs of 6 tokens, 64 columns of width 16 in parts of 8


ROWS, WIDE = ("fsdp", "tensor"), PartitionSpec(None, ("tensor", "fsdp"))


def mesh_case():
    rng = np.random.default_rng(3)
    hidden, head = rng.normal(size=(16, 6, WIDTH)), rng.normal(size=(WIDTH, 64))
    tokens = rng.integers(11, 64, (16, 6)).astype(np.int32)
    return hidden.astype(np.float32), head.astype(np.float32), tokens


def value_of(hidden, head, tokens):
    banned = np.arange(64) < 11
    logp, entropy = token_logp(hidden, head, tokens, temperature=0.7, banned=banned, chunk=3)
    pull = np.random.default_rng(4).normal(size=(2, 16, 6)).astype(np.float32)
    return (pull[0] * logp + pull[1] * entropy).sum()


def on_mesh():
    """(value, gradients) on the mesh, pairs over all devices and the head cut by vocabulary."""
    mesh = sharding.make_mesh(MeshConfig(fsdp=2, tensor=4))
    places = [NamedSharding(mesh, p) for p in (PartitionSpec(ROWS), WIDE, PartitionSpec(ROWS))]

    def function(*args):
        with jax.sharding.use_abstract_mesh(mesh.abstract_mesh):
            return jax.value_and_grad(value_of, argnums=(0, 1))(*args)

    given = [jax.device_put(a, at) for a, at in zip(mesh_case(), places, strict=True)]
    whole = NamedSharding(mesh, PartitionSpec())
    jitted = tiny_model.quick_jit(function, out_shardings=(whole, tuple(places[:2])))
    return jitted.lower(*given).compile(), given


def test_a_cut_vocabulary_gives_the_same_value_and_gradients():
    """Shares times logits of up to 40, good to 2e-6, in sums of 64 with factors of up to 4."""
    compiled, given = on_mesh()
    expected = tiny_model.quick_jit(jax.value_and_grad(value_of, argnums=(0, 1)))(*mesh_case())
    for a, b in zip(jax.tree.leaves(compiled(*given)), jax.tree.leaves(expected), strict=True):
        np.testing.assert_allclose(a, b, atol=1e-4, rtol=1e-5)


def travelling() -> list[str]:
    """Collectives inside the innermost loops."""
    bodies = hlo_report.read(on_mesh()[0].as_text())
    outer = {body.parent for body in bodies}
    inner = [body for body in bodies if body.name not in outer]
    assert len(inner) == 2
    return [f"{value.op} {value.shape}" for loop in inner for value in loop.collectives]


def test_nothing_travels_inside_the_loops_over_the_vocabulary():
    assert travelling() == []


def test_an_uncut_vocabulary_would_move_the_head_in_every_chunk(monkeypatch):
    """The ablation: pairs stay where they are, so columns have to come to them."""
    monkeypatch.setattr(logprob, "vocab_parts", lambda vocab, split: 1)
    assert travelling()
