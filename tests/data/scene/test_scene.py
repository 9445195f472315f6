"""Settings refuse what cannot work, and plans survive a trip through JSON text."""

import dataclasses
import json

import pytest

from dig_jax.config import DataConfig
from dig_jax.data.render.produce import plan_pair
from dig_jax.data.scene.draws import SPLIT_IDS, Draw, split_id
from dig_jax.data.scene.look import SceneConfig, config_from_json
from dig_jax.data.scene.scene import plan_from_json, plan_to_json


def some_plan(idx=3, k=3):
    return plan_pair(SceneConfig(), Draw("test", 0, k, k), idx).plan


def test_plan_survives_json_text():
    plan = some_plan()
    fields = json.loads(json.dumps(plan_to_json(plan)))
    assert plan_from_json(fields) == plan
    assert fields["k"] == len(plan.changes)


def test_plan_of_another_schema_is_refused():
    with pytest.raises(ValueError, match=r"schema=99.*render it again"):
        plan_from_json({**plan_to_json(some_plan()), "schema": 99})


def test_config_survives_json_text():
    config = SceneConfig(width=320, height=240, samples=16)
    again = config_from_json(json.loads(json.dumps(dataclasses.asdict(config))))
    assert again == config
    assert again.fingerprint() == config.fingerprint() != SceneConfig().fingerprint()


@pytest.mark.parametrize(("name", "value", "use"), [("width", 130, 128), ("height", 100, 96)])
def test_image_size_must_hold_whole_merged_patches(name, value, use):
    with pytest.raises(ValueError, match=rf"{name}={value} .*patch 8 x merge 2.*use {use}"):
        SceneConfig(**{name: value})


def test_default_size_is_the_one_that_training_expects():
    assert SceneConfig().width == DataConfig().image_width
    assert SceneConfig().height == DataConfig().image_height


def test_differences_must_leave_two_things_unchanged():
    SceneConfig().check_k(1, 5)
    with pytest.raises(ValueError, match=r"k=6..6 .*<= 5.*max_things=7"):
        SceneConfig().check_k(6, 6)
    with pytest.raises(ValueError, match=r"k=3..2"):
        SceneConfig().check_k(3, 2)


def test_unknown_split_names_the_known_ones():
    with pytest.raises(ValueError, match=r"split='sinlge' is unknown.*single"):
        split_id("sinlge")


def test_splits_never_share_a_seed():
    assert len(set(SPLIT_IDS.values())) == len(SPLIT_IDS)


def test_swapping_twice_is_the_identity():
    plan = some_plan()
    assert plan.swapped().swapped() == plan
    kinds = {"add": "remove", "remove": "add"}
    assert [c.type for c in plan.swapped().changes] == [
        kinds.get(c.type, c.type) for c in plan.changes
    ]
