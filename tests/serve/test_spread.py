"""A server on a mesh of four devices: nothing is compiled after the start, the answers the same."""

from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from dig_jax.benchmarks import prompts
from dig_jax.config import MeshConfig, PromptConfig
from dig_jax.serve import example
from tests.serve.served import (
    NAME,
    asked,
    client,
    file_of,
    make_policy,
    make_serving,
    noise,
    serving_at,
)

EXAMPLE = Path(example.__file__).parent
pytestmark = pytest.mark.slow  # two servers of their own are compiled


def scene(side, *, flip=False) -> bytes:
    """A picture of the example's, which the base has boxes for."""
    with Image.open(EXAMPLE / f"example_{side}.png") as image:
        pixels = np.asarray(image.convert("RGB").resize((96, 64)))
    return file_of(pixels[:, ::-1] if flip else pixels)


LOCATE = prompts.locate("the cube", "qwen")
QUESTIONS = [
    asked(scene("a"), scene("b"), text=PromptConfig().question),
    asked(scene("b", flip=True), scene("a", flip=True), text=PromptConfig().question),
    asked(scene("a"), text=LOCATE),
    asked(scene("b", flip=True), text=LOCATE),
    asked(file_of(noise(0, (64, 64))), text="What?"),
    asked(file_of(noise(1, (48, 96))), file_of(noise(2, (64, 80))), text="What? " * 9),
    asked(text="No picture at all."),
    asked(text="A longer text. " * 8),
]


def texts(api, **how):
    """The answers to all questions, each asked twice, seven at a time."""
    many = [messages for messages in QUESTIONS for _ in range(2)]

    def one(messages):
        made = api.chat.completions.create(model=NAME, messages=messages, **how)
        return [(choice.message.content, choice.finish_reason) for choice in made.choices]

    with ThreadPoolExecutor(7) as pool:
        return list(pool.map(one, many))


def test_a_mesh_compiles_all_at_the_start_and_answers_as_one_device_does():
    spread = make_serving(make_policy(MeshConfig(2, 2)), queue=32)
    with serving_at(spread) as address:
        api, before = client(address), spread.metrics.compiled
        assert before > 0
        found = texts(api, temperature=0)
        drawn = texts(api, temperature=0.8, seed=5, n=2, top_p=0.9)
        list(api.chat.completions.create(model=NAME, messages=QUESTIONS[0], stream=True, stop="a"))
        assert spread.metrics.compiled == before
    alone = make_serving(queue=32)
    with serving_at(alone) as address:
        api = client(address)
        assert found == texts(api, temperature=0)
    for some in (found, drawn):
        assert some[::2] == some[1::2]
    assert len({text for ((text, _),) in found}) > 4
    assert max(len(text) for ((text, _),) in found) > 30
