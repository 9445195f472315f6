"""A server on a mesh of four devices: nothing is compiled after the start, the answers the same."""

from concurrent.futures import ThreadPoolExecutor

import pytest

from dig_jax.config import MeshConfig
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

pytestmark = pytest.mark.slow  # two servers of their own are compiled

SIZES = ((64, 96), (64, 64), (32, 96), (48, 80))
QUESTIONS = [
    *[asked(file_of(noise(n, size)), text="What? " * (n + 1)) for n, size in enumerate(SIZES)],
    asked(*(file_of(noise(n)) for n in (8, 9)), text="Box the differences."),
    asked(text="No picture at all."),
    asked(text="A longer text. " * 8),
]


def texts(api, **how):
    """The answers to all questions, asked at once; those that are greedy three times."""
    many = [messages for messages in QUESTIONS for _ in range(3)]

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
        list(api.chat.completions.create(model=NAME, messages=QUESTIONS[4], stream=True, stop="a"))
        assert spread.metrics.compiled == before
    alone = make_serving(queue=32)
    with serving_at(alone) as address:
        api = client(address)
        assert found == texts(api, temperature=0)
        assert drawn[::3] == drawn[1::3] == drawn[2::3]
    assert found[::3] == found[1::3] == found[2::3]
    assert len({text for ((text, _),) in found}) > 3
