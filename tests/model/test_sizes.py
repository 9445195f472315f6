"""The released sizes have their published numbers of parameters and tensors."""

import dataclasses

import jax
import jax.numpy as jnp
import pytest

from dig_jax.model.params import init_params
from dig_jax.model.sizes import released
from dig_jax.model.specs import model_specs, named_specs

PUBLISHED = {  # parameters, tensors of the checkpoint
    "2b": (2_127_532_032, 625),
    "4b": (4_437_815_808, 713),
    "8b": (8_767_123_696, 750),
    "32b": (33_357_390_064, 1058),
}


def shapes_of(config):
    specs = model_specs(config)
    return jax.eval_shape(lambda key: init_params(specs, key=key), jax.random.key(0))


@pytest.mark.parametrize("size", PUBLISHED)
def test_parameters_and_tensors_are_as_published(size):
    """From the traced initialisation, so that table and arrays cannot disagree."""
    config = released(size)
    leaves = jax.tree.leaves(shapes_of(config))
    assert sum(leaf.size for leaf in leaves) == PUBLISHED[size][0]
    assert all(leaf.dtype == jnp.float32 for leaf in leaves)
    keys = [key for _, spec in named_specs(model_specs(config)) for key in spec.keys]
    assert len(keys) == len(set(keys)) == PUBLISHED[size][1]


def test_a_wrong_mlp_width_would_be_seen():
    """The counts are exact, so any single size that is off by one changes them."""
    config = released("4b")
    text = dataclasses.replace(config.text, mlp=config.text.mlp + 1)
    leaves = jax.tree.leaves(shapes_of(dataclasses.replace(config, text=text)))
    assert sum(leaf.size for leaf in leaves) != PUBLISHED["4b"][0]


def test_an_unknown_size_lists_the_known():
    with pytest.raises(ValueError, match=r"'7b' is not released; use one of 2b, 4b, 8b, 32b"):
        released("7b")
