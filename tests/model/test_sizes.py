"""The released sizes have their published numbers of parameters and tensors."""

import dataclasses

import jax
import jax.numpy as jnp
import pytest

from dig_jax.model.params import init_params
from dig_jax.model.sizes import released
from dig_jax.model.specs import model_specs, named_specs
from tests.tiny_model import small_base

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
    for known in ("2b", "4b", "8b", "32b"):
        released(known)


RULES = [  # a part, a change that is refused, its rule, a change that keeps it
    ("text", {"kv_heads": 3}, "query heads share key heads in equal groups", {"kv_heads": 4}),
    ("text", {"head_dim": 31}, "is odd; rotary positions turn pairs", {"head_dim": 128}),
    ("text", {"mrope_section": (6, 5, 4)}, r"head_dim/2 = 64", {"mrope_section": (30, 17, 17)}),
    ("vision", {"heads": 3}, "is not a multiple of 4 x num_heads=12", {"heads": 2}),
    ("vision", {"deepstack": (99,)}, "names a block beyond depth=", {"deepstack": (0,)}),
]


@pytest.mark.parametrize(("part", "refused", "rule", "kept"), RULES)
def test_a_shape_that_a_rule_refuses_is_taken_once_it_keeps_it(part, refused, rule, kept):
    section = getattr(released("2b"), part)
    with pytest.raises(ValueError, match=rule):
        dataclasses.replace(section, **refused)
    assert dataclasses.replace(section, **kept)


def test_more_taps_than_text_layers_are_refused_and_as_many_are_taken():
    base = released("2b")
    with pytest.raises(ValueError, match="3 deepstack features need as many text layers"):
        dataclasses.replace(base, text=dataclasses.replace(base.text, layers=2))
    dataclasses.replace(base, text=dataclasses.replace(base.text, layers=3))


def test_a_rows_unknown_start_is_refused_and_those_that_are_named_are_taken():
    row = model_specs(small_base())["embed"]
    with pytest.raises(ValueError, match="unknown init 'random'; use normal, ones or zeros"):
        init_params({"embed": dataclasses.replace(row, init="random")}, key=jax.random.key(0))
    for name in ("normal", "ones", "zeros"):
        init_params({"embed": dataclasses.replace(row, init=name)}, key=jax.random.key(0))
