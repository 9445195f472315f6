"""A run is served as it was trained: its question on the page, its limit of a picture."""

import json

import numpy as np
import pytest

from dig_jax.config import Config, DataConfig, ModelSource, PromptConfig
from dig_jax.hf import weights
from dig_jax.inputs.prompt import render
from dig_jax.serve import __main__ as command
from tests.convert.test_convert import save, seeded
from tests.serve.direct import Stub, make_direct, send
from tests.tiny_model import ASSETS, small_base

PROMPT = PromptConfig("What is new here?", add_vision_id=True)


@pytest.fixture
def run(tmp_path):
    """The folder of a run of two blocks, with one checkpoint."""
    base, folder = tmp_path / "base", tmp_path / "run"
    weights.save_hf(base, seeded(0), small_base(), source_folder=ASSETS)
    data = DataConfig(image_width=96, image_height=64, max_pixels=6144)
    model = ModelSource(source=str(base))
    save(Config(name="mine", run_dir=str(folder), model=model, prompt=PROMPT, data=data), 3, seed=3)
    return folder


def opened(*words):
    return command.open_it(command.parse_args(["--run", *map(str, words)]))


def test_the_example_is_asked_as_the_run_was(run):
    policy, worker = opened(run), Stub()
    app = make_direct(policy, worker=worker)
    told = send(app, method="GET", path="/example", headers=())
    assert told.status == 200, told.body
    example = json.loads(told.body)
    assert example["question"] == PROMPT.question
    assert len(example["boxes"]) == 2
    parts = [{"type": "image_url", "image_url": {"url": example[side]}} for side in "ab"]
    parts.append({"type": "text", "text": example["question"]})
    body = {"messages": [{"role": "user", "content": parts}]}
    assert send(app, json.dumps(body).encode()).status == 200
    group = worker.last.group
    assert group.sizes == [(64, 96)] * 2
    ids = (*group.prefix, *group.asked[0].suffix)
    assert list(ids) == render(PROMPT, policy.processor, PROMPT.question, 2)
    assert np.array_equal(np.asarray(policy.load()["norm"]), seeded(3)["norm"])


def test_limits_that_are_given_are_not_the_runs(run):
    assert opened(run).rules.max_pixels == 6144
    assert opened(run, "--max-pixels", 12288).rules.max_pixels == 12288
