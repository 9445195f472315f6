"""Which tokens may be drawn: bisection keeps what sorting keeps, and what HF's warpers keep."""

from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from jax.sharding import NamedSharding, PartitionSpec

from dig_jax.model.logprob import BAN
from dig_jax.sampler.sampling import first_highest, keep_likeliest
from tests.tiny_model import quick_jit

keep = quick_jit(keep_likeliest, static_argnums=(1, 2))


@partial(quick_jit, static_argnums=(1, 2))
def kept_by_sorting(logits: jax.Array, top_k: int, top_p: float) -> jax.Array:
    """The definition, with `top_k`, `argsort` and `cumsum`: bool[..., V]."""
    if 0 < top_k < logits.shape[-1]:
        least = jax.lax.top_k(logits, top_k)[0][..., -1:]
        logits = jnp.where(logits < least, BAN, logits)
    if top_p < 1:
        order = jnp.argsort(logits, axis=-1)  # stable: of equal tokens the first goes first
        ascending = jnp.take_along_axis(logits, order, axis=-1)
        below = jnp.cumsum(jax.nn.softmax(ascending, axis=-1), axis=-1)
        gone = (below <= 1 - top_p).at[..., -1].set(False)
        back = jnp.argsort(order, axis=-1)
        logits = jnp.where(jnp.take_along_axis(gone, back, axis=-1), BAN, logits)
    return logits > BAN


def hf_warped(logits: np.ndarray, top_k: int, top_p: float) -> np.ndarray:
    """HF's TopKLogitsWarper, then TopPLogitsWarper, row by row as they are defined; -inf: gone."""
    out = logits.astype(np.float64)
    for row in out.reshape(-1, out.shape[-1]):
        if top_k:
            row[row < np.sort(row)[-min(top_k, len(row))]] = -np.inf
        if top_p < 1:
            order = np.argsort(row, kind="stable")
            weight = np.exp(row[order] - row.max())
            gone = np.cumsum(weight / weight.sum()) <= 1 - top_p
            gone[-1] = False
            row[order[gone]] = -np.inf
    return out


@pytest.mark.parametrize(("top_k", "top_p"), [(5, 1.0), (0, 0.9), (20, 0.8), (1, 1.0), (0, 1e-6)])
def test_truncation_keeps_the_tokens_that_hfs_warpers_keep(top_k, top_p):
    logits = np.random.default_rng(0).normal(0, 3, (3, 4, 64)).astype(np.float32)
    expected = hf_warped(logits, top_k, top_p)
    found = np.asarray(keep(logits, top_k, top_p))
    kept = np.isfinite(expected)
    assert kept.any(-1).all()
    assert not kept.all(-1).any()
    np.testing.assert_array_equal(found[kept], logits[kept])
    assert (found[~kept] == BAN).all()


def test_truncation_treats_ties_as_hf_does():
    """Top-k keeps all that tie with the last; top-p drops the earlier of equals first."""
    row = np.log(np.float32([0.125, 0.25, 0.25, 0.25, 0.125]))
    for top_k, top_p, kept in (
        (2, 1.0, [1, 2, 3]),
        (4, 1.0, [0, 1, 2, 3, 4]),
        (0, 0.6, [1, 2, 3]),  # 0.125 + 0.125 < 0.4 < + 0.25: the third quarter is kept too
        (0, 0.45, [2, 3]),
        (3, 0.3, [3]),
    ):
        found = np.flatnonzero(np.asarray(keep_likeliest(row, top_k, top_p)) > -1e29)
        expected = np.flatnonzero(np.isfinite(hf_warped(row[None], top_k, top_p)[0]))
        assert found.tolist() == expected.tolist() == kept, (top_k, top_p)


def test_a_probability_of_exactly_one_minus_top_p_goes_as_in_hf():
    """Four equal tokens sum to 0.25, 0.5, 0.75, 1 without rounding: two are at most 1 - 0.5."""
    even = np.zeros(4, np.float32)
    kept = np.asarray(keep_likeliest(even, 0, 0.5)) > -1e29
    assert kept.tolist() == [False, False, True, True]
    np.testing.assert_array_equal(kept, np.isfinite(hf_warped(even[None], 0, 0.5)[0]))


def test_no_truncation_is_the_identity_to_the_bit():
    """As the sampler of training has it: the same array object, not one operation."""
    logits = jnp.asarray(np.random.default_rng(0).normal(size=(2, 64)), jnp.float32)
    assert keep_likeliest(logits, 0, 1.0) is logits
    assert keep_likeliest(logits, 64, 1.0) is logits


@pytest.mark.parametrize(
    ("top_k", "top_p", "min_p", "kept"),
    [
        (0, 1.0, 0.5, [0, 1, 2]),  # a half of the likeliest, .4: .2 and more
        (0, 1.0, 0.51, [0, 1]),
        (0, 1.0, 1.0, [0]),
        (0, 1.0, 0.2, [0, 1, 2, 3]),
        (2, 1.0, 0.1, [0, 1]),
        (0, 0.6, 0.3, [0, 1]),
    ],
)
def test_min_p_by_hand(top_k, top_p, min_p, kept):
    """HF's MinPLogitsWarper, after the two others."""
    row = np.log(np.float32([0.4, 0.25, 0.2, 0.1, 0.05]))
    found = np.asarray(keep_likeliest(jnp.asarray(row), top_k, top_p, min_p))
    assert np.flatnonzero(found > -1e29).tolist() == kept


# Eighths between -4 and 4: many ties, as among bfloat16 logits; and banned tokens.
TIED = st.one_of(st.integers(-32, 32).map(lambda n: n / 8), st.just(BAN))
CUTS = [(1, 1.0), (5, 1.0), (23, 1.0), (0, 0.9), (0, 0.5), (0, 0.1), (0, 1e-6), (8, 0.7)]
ANY = st.one_of(st.floats(-80, 80, width=32), st.just(BAN), st.sampled_from([0.0, -0.0, 1e-40]))


@settings(max_examples=150, deadline=None)
@given(
    arrays(np.float32, 24, elements=st.one_of(TIED, ANY)),
    st.sampled_from(CUTS),
)
def test_bisection_keeps_what_sorting_keeps(logits, cut):
    """Where a sum of probabilities meets 1 - top_p within its rounding, either side is right."""
    top_k, top_p = cut
    found = np.asarray(keep(logits, top_k, top_p))
    expected = np.asarray(kept_by_sorting(logits, top_k, top_p))
    kept = found > BAN
    np.testing.assert_array_equal(found[kept], logits[kept])
    differs = kept != expected
    if not differs.any():
        return
    left = np.asarray(keep(logits, top_k, 1.0), np.float64)
    weight = np.exp(left - left.max())
    weight /= weight.sum()
    order = np.lexsort((np.arange(24), left))
    below = np.empty(24)
    below[order] = np.cumsum(weight[order])
    # 24 float32 terms of at most 1: each sum is off by 24 x 2^-24 at most
    assert top_p < 1
    assert (np.abs(below[differs] - (1 - top_p)) < 48 * 2.0**-24).all()


def test_bisection_keeps_what_sorting_keeps_of_a_large_vocabulary():
    """bfloat16 values over 20,000 tokens: hundreds of ties at either threshold."""
    logits = np.random.default_rng(1).normal(0, 3, (2, 20_000)).astype(jnp.bfloat16)
    logits = logits.astype(np.float32)
    logits[:, ::7] = BAN
    for top_k, top_p in ((50, 1.0), (0, 0.8), (1000, 0.95)):
        found = np.asarray(keep(logits, top_k, top_p)) > BAN
        expected = np.asarray(kept_by_sorting(logits, top_k, top_p))
        # a float32 sum of 20,000 probabilities near 1e-5 may be off by as much as one of them
        assert np.abs(found.sum(-1) - expected.sum(-1)).max() <= (0 if top_p == 1 else 3)
        assert (found != expected).sum() <= (0 if top_p == 1 else 6)


def test_the_first_of_the_highest_is_taken():
    scores = np.float32([[0, 3, 1, 3], [BAN, BAN, BAN, BAN], [-1, -2, -0.5, -1]])
    assert first_highest(scores).tolist() == scores.argmax(-1).tolist() == [1, 0, 2]
    assert first_highest(np.float32([[np.nan, 1, np.nan]])).tolist() == [2]  # a token, at least


def test_logits_split_over_the_vocabulary_are_not_gathered():
    """On a mesh of 2 x 4 nothing with a vocabulary of columns crosses between devices."""
    mesh = jax.make_mesh((2, 4), ("fsdp", "tensor"), axis_types=(jax.sharding.AxisType.Auto,) * 2)
    split = NamedSharding(mesh, PartitionSpec("fsdp", "tensor"))
    logits = jax.ShapeDtypeStruct((4, 4096), jnp.float32, sharding=split)

    def choose(logits):
        kept = keep_likeliest(logits, 40, 0.9)
        return kept, first_highest(kept)

    rows = NamedSharding(mesh, PartitionSpec("fsdp"))
    compiled = jax.jit(choose, out_shardings=(split, rows)).lower(logits).compile()
    text = compiled.as_text()
    moves = [
        line for line in text.splitlines() if "all-reduce(" in line or "all-reduce-start(" in line
    ]
    assert moves, "thresholds are sums over all devices"
    for kind in ("all-gather", "all-to-all", "collective-permute"):
        assert kind not in text, kind
    assert not any("1024" in line.split("(")[0] for line in moves)
