"""config.json: what two places say, what is missing, what is of another type, is never guessed."""

import copy
import json

import pytest

from dig_jax.hf import settings
from dig_jax.hf.weights import read_model_config
from tests.tiny_model import ASSETS

PLAIN = json.loads((ASSETS / "config.json").read_text())
SECTION = [6, 5, 5]  # mrope_section of the tiny base


def read(change=lambda top: None, generation=None):
    top = copy.deepcopy(PLAIN)
    change(top)
    stops = {"eos_token_id": [744, 742]} if generation is None else generation
    return settings.from_json(top, stops, has_head=lambda: True, where="here/config.json")


def text(**fields):
    """Changes of text_config; None takes a field out."""

    def change(top):
        section = top["text_config"] | fields
        top["text_config"] = {k: v for k, v in section.items() if v is not None}

    return change


YARN = {"factor": 4.0, "mrope_section": SECTION, "original_max_position_embeddings": 4096}
THETA = {"mrope_section": SECTION, "rope_theta": 100.0}


@pytest.mark.parametrize(
    "fields",
    [
        {"rope_scaling": {"type": "yarn", **YARN}, "rope_parameters": None},
        {"rope_scaling": {"rope_type": "yarn", **YARN}, "rope_parameters": None},
        {"rope_scaling": {"type": "yarn", **YARN}},  # beside plain rope_parameters
        {"rope_scaling": {"rope_type": "yarn", **YARN}},
        {"rope_parameters": {"rope_type": "yarn", **YARN}},  # beside a plain rope_scaling
        {"rope_parameters": {"type": "yarn", **YARN}},
        {"rope_scaling": {"rope_type": "yarn", "type": "default", **YARN}},
        {"rope_scaling": {"rope_type": "default", "type": "yarn", **YARN}},
    ],
)
def test_yarn_is_refused_in_every_spelling_and_place(fields):
    """By `type` as by `rope_type`, in either dictionary, whatever the other one says."""
    with pytest.raises(
        ValueError, match=r"text_config: rope_\w+: rope_type='yarn'; only 'default'"
    ):
        read(text(**fields))


@pytest.mark.parametrize("kind", ["linear", "dynamic", "llama3", "mrope", ["yarn"], 3])
def test_other_rotations_are_refused_by_the_older_spelling_too(kind):
    with pytest.raises(ValueError, match=r"rope_type=.*; only 'default' is implemented"):
        read(text(rope_scaling={"type": kind, "mrope_section": SECTION}, rope_parameters=None))


def test_equal_spellings_are_one_and_the_older_one_alone_is_enough():
    both = {"rope_type": "default", "type": "default", "mrope_section": SECTION}
    for fields in (
        {"rope_scaling": both},
        {"rope_parameters": None},
        {"rope_parameters": None, "rope_scaling": both},
        {"rope_scaling": None, "rope_theta": None},
        {"rope_scaling": {}, "rope_theta": None},
        {"rope_scaling": THETA, "rope_parameters": None, "rope_theta": None},
    ):
        assert read(text(**fields)) == read(), fields


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        (
            {"rope_scaling": {"mrope_section": [8, 4, 4]}},
            r"two values of mrope_section: \[\(6, 5, 5\), \(8, 4, 4\)\]",
        ),
        ({"rope_scaling": {"mrope_section": SECTION, "rope_theta": 7}}, "two values of rope_theta"),
        ({"rope_theta": 5e6}, "two values of rope_theta"),
        # transformers 5 reads the dictionary that wins, and would take 500000 and [24, 20, 20]
        ({"rope_theta": None}, r"has no rope_theta, neither beside nor in .*rope_scaling"),
        ({"rope_scaling": {"factor": 1}}, "has no mrope_section in .*rope_scaling"),
        ({"rope_scaling": {"mrope_section": SECTION, "partial_rotary_factor": 0.5}}, "partial_rot"),
        ({"partial_rotary_factor": 0.25}, "partial_rotary_factor=0.25; only 1"),
        ({"rope_scaling": {"mrope_section": [16, 0]}}, "two values|is not 3 numbers"),
        ({"rope_scaling": "yarn"}, "rope_scaling='yarn' is not an object"),
    ],
)
def test_places_that_contradict_or_miss_a_setting_are_refused_by_name(fields, message):
    with pytest.raises(ValueError, match=message):
        read(text(**fields))


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda top: top.update(rope_scaling={"type": "yarn", "factor": 2.0}), "rope_type='yarn'"),
        (lambda top: top.update(rope_parameters={"rope_type": "linear"}), "rope_type='linear'"),
        (lambda top: top["vision_config"].update(rope_theta=5.0), "rope_theta=5.0; only 10000"),
        (
            lambda top: top["vision_config"].update(rope_parameters={"rope_theta": 7}),
            "rope_theta=7; only 10000",
        ),
        (
            lambda top: top["vision_config"].update(rope_scaling={"type": "linear", "factor": 2}),
            "rope_type='linear'; only 'axial'",
        ),
    ],
)
def test_the_top_and_the_tower_are_looked_through_as_well(change, message):
    """People write rope_scaling at the top of the file; transformers reads the tower's own."""
    with pytest.raises(ValueError, match=message):
        read(change)
    plain = {"rope_type": "axial", "rope_theta": 10000.0}
    assert read(lambda top: top["vision_config"].update(rope_parameters=plain)) == read()


ALL = {"rope_theta": 5e6, "rope_scaling": {"mrope_section": [24, 20, 20]}, "head_dim": 128}
RELEASED = text(**ALL, rope_parameters=None)
REMEDIES = [  # a change that is refused; how the remedy reads; the change that it amounts to
    (text(rope_theta=None), r"Qwen3-VL's is 5000000", RELEASED),
    (text(rope_scaling={"factor": 1}), r"Qwen3-VL's is \[24, 20, 20\]", RELEASED),
    (
        text(rope_scaling={"type": "yarn", **YARN}),
        "only 'default' is implemented",
        text(rope_scaling={"type": "default", "mrope_section": SECTION}),
    ),
    (text(rope_theta=5e6), "keep the one that the weights were trained with", text(rope_theta=100)),
    (
        text(attention_bias=True),
        "attention_bias=True; only False is implemented",
        text(attention_bias=False),
    ),
    (text(head_dim=None), "has no head_dim; is it a Qwen3-VL's", text(head_dim=32)),
    (text(head_dim="x"), "take the value of the checkpoint's makers", text(head_dim=32)),
    (
        lambda top: top.update(model_type="qwen3_vl_moe"),
        "only the dense 'qwen3_vl' is implemented",
        lambda top: top.update(model_type="qwen3_vl"),
    ),
    (
        text(quantization_config={"quant_method": "fp8"}),
        "use the unquantised checkpoint",
        text(quantization_config=None),
    ),
]


@pytest.mark.parametrize(("refused", "advice", "followed"), REMEDIES)
def test_a_value_that_a_refusal_names_is_accepted(refused, advice, followed):
    with pytest.raises(ValueError, match=advice):
        read(refused)
    read(followed)


@pytest.mark.parametrize("stops", [{"eos_token_id": []}, {}])
def test_a_checkpoint_without_a_stop_is_given_one(stops):
    without = text(eos_token_id=None)
    with pytest.raises(ValueError, match=r"without one no answer ends; add the tokenizer's"):
        read(without, generation=stops)
    assert read(without, generation={"eos_token_id": 744}).eos_tokens == (744,)


def test_the_shipped_base_is_read_as_before():
    assert read() == read_model_config(ASSETS)
