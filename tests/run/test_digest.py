"""A digest sees every bit, and neither the mesh nor a wider type."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from jax.sharding import Mesh, NamedSharding, PartitionSpec

from dig_jax.run.digest import changed, digest_of

TREE = {
    "a": np.arange(24, dtype=np.float32).reshape(4, 6),
    "b": {"c": np.float32(3.5), "d": np.arange(8, dtype=np.int32)},
    "flags": np.array([True, False, True]),
}


@settings(max_examples=60, deadline=None)
@given(st.integers(0, 23), st.integers(0, 31))
def test_one_bit_always_shows(place, bit):
    words = TREE["a"].copy().view(np.uint32).reshape(-1)
    words[place] ^= np.uint32(1 << bit)
    turned = TREE | {"a": words.view(np.float32).reshape(4, 6)}
    assert changed(turned, digest_of(TREE)) == ["a"]


def test_elements_that_change_places_show():
    """A plain sum would not see them."""
    other = TREE["a"].copy()
    other[0, 1], other[2, 3] = other[2, 3], other[0, 1]
    assert changed(TREE | {"a": other}, digest_of(TREE)) == ["a"]
    assert changed(TREE | {"a": TREE["a"].reshape(6, 4)}, digest_of(TREE)) == []  # same bits


@pytest.mark.parametrize("axes", [("x", "y"), ("y", None), (None, "x"), (None, None)])
def test_a_mesh_changes_nothing(axes):
    mesh = Mesh(np.array(jax.devices()).reshape(4, 2), ("x", "y"))
    wide = TREE["a"].repeat(2, 1)
    spread = jax.device_put(wide, NamedSharding(mesh, PartitionSpec(*axes)))
    assert digest_of({"a": spread}) == digest_of({"a": wide})


def test_a_wider_type_is_rounded_back_and_a_narrower_one_not_judged():
    half = {"w": jnp.asarray(np.random.default_rng(0).normal(size=64), jnp.bfloat16)}
    known = digest_of(half)
    wide = {"w": half["w"].astype(jnp.float32)}
    assert changed(wide, known) == []
    assert changed({"w": wide["w"].at[3].multiply(-1)}, known) == ["w"]
    assert changed(half, digest_of(wide)) == []


def test_an_array_that_is_not_known_is_not_judged():
    assert changed(TREE, {}) == []
    assert set(digest_of(TREE)) == {"a", "b.c", "b.d", "flags"}
