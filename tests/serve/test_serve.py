"""A real client of OpenAI's at a real socket: answers are those of `ask`, whoever else asks."""

from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
from PIL import Image

from dig_jax import ask
from dig_jax.config import PromptConfig
from tests import ROOT
from tests.serve.served import (
    MOST,
    NAME,
    SLOTS,
    asked,
    client,
    file_of,
    make_serving,
    noise,
    serving_at,
    until,
)
from tests.tiny_model import ASSETS


def example(side: str) -> np.ndarray:
    """The page's own picture at the base's size: asked as it was trained, it tells boxes."""
    with Image.open(ROOT / "dig_jax" / "serve" / f"example_{side}.png") as picture:
        return np.asarray(picture.convert("RGB").resize((96, 64)))


PAIR = file_of(example("a")), file_of(example("b"))
WORDS = PromptConfig().question


pytestmark = pytest.mark.slow  # a server of its own is compiled


@pytest.fixture(scope="module")
def serving():
    return make_serving()


@pytest.fixture(scope="module")
def api(serving):
    with serving_at(serving) as address:
        yield client(address)


def chat(api, messages=None, **more):
    messages = messages or asked(*PAIR, text=WORDS)
    return api.chat.completions.create(model=NAME, messages=messages, **more)


def told(answer, n=0):
    """The whole text of an answer that holds no thought."""
    message = answer.choices[n].message
    assert not getattr(message, "reasoning_content", None)
    return message.content


def streamed(api, messages=None, n=1, **more):
    """(texts, reasons, usage, log-probabilities of the first) of a stream, put together."""
    texts, reasons, logp, usage = [""] * n, [None] * n, [], None
    stream = chat(api, messages, stream=True, n=n, stream_options={"include_usage": True}, **more)
    for piece in stream:
        usage = piece.usage or usage
        for choice in piece.choices:
            texts[choice.index] += choice.delta.content or ""
            reasons[choice.index] = choice.finish_reason or reasons[choice.index]
            if choice.logprobs and not choice.index:
                logp += [one.logprob for one in choice.logprobs.content]
    return texts, reasons, usage, logp


@pytest.fixture(scope="module")
def by_ask(tmp_path_factory):
    """What `ask` prints about the pair: the whole prompt at once, by itself."""
    folder = tmp_path_factory.mktemp("pair")
    for name, data in zip("ab", PAIR, strict=True):
        (folder / f"{name}.png").write_bytes(data)

    def asks(capsys, *more):
        words = ["--source", ASSETS, *(folder / f"{n}.png" for n in "ab"), "--question", WORDS]
        ask.main([str(word) for word in [*words, "--max-tokens", MOST, *more]])
        lines = capsys.readouterr().out.splitlines(keepends=True)
        said = [line for line in lines if not line.startswith("weights ")]  # of a busy machine
        return "".join(said).removesuffix("\n")

    return asks


def test_an_answer_is_the_one_that_ask_gives_alone_and_among_others(api, by_ask, capsys):
    right = by_ask(capsys)
    assert right
    assert told(chat(api)) == right
    others = [asked(file_of(noise(n)), text="Word " * n) for n in range(2, 10)]
    with ThreadPoolExecutor(9) as pool:
        beside = [pool.submit(chat, api, one, temperature=1.0) for one in others]
        mine = pool.submit(chat, api)
        assert told(mine.result()) == right
        assert all(one.result().usage.completion_tokens for one in beside)


def test_a_stream_says_what_a_whole_answer_says(api):
    for more in ({}, {"temperature": 1.0, "seed": 3, "n": 3}):
        whole = chat(api, logprobs=True, **more)
        texts, reasons, usage, logp = streamed(api, logprobs=True, **more)
        assert texts == [told(whole, n) for n in range(len(texts))]
        assert reasons == [choice.finish_reason for choice in whole.choices]
        assert usage == whole.usage
        assert logp == [one.logprob for one in whole.choices[0].logprobs.content]


def test_seeds_draw_and_samples_differ(api):
    drawn = [chat(api, n=3, temperature=1.0, seed=seed) for seed in (1, 1, 2)]
    texts = [[told(answer, n) for n in range(3)] for answer in drawn]
    assert texts[0] == texts[1] != texts[2]
    assert len(set(texts[0])) == 3
    cold = chat(api, n=2, temperature=1.0, seed=1, extra_body={"top_k": 1})
    assert told(cold, 0) == told(cold, 1) == told(chat(api))
    assert told(chat(api, temperature=1.0, seed=1)) == texts[0][0]
    cut = chat(api, temperature=2.0, seed=1, extra_body={"min_p": 1.0})
    assert told(cut) == told(chat(api, temperature=1e-6))


def test_an_answer_ends_at_its_most_tokens_and_at_a_stop_text(api):
    whole = told(chat(api))
    short = chat(api, max_completion_tokens=5)
    assert (short.usage.completion_tokens, short.choices[0].finish_reason) == (5, "length")
    assert whole.startswith(told(short))
    stop = whole[7:10]
    for answer in (chat(api, stop=stop), chat(api, stop=["never there", stop])):
        assert told(answer) == whole[: whole.index(stop)]
        assert answer.choices[0].finish_reason == "stop"
        assert answer.usage.completion_tokens < MOST
    assert streamed(api, stop=stop)[0] == [whole[: whole.index(stop)]]


def test_logprobs_are_of_the_chosen_tokens(api):
    answer = chat(api, logprobs=True)
    found = answer.choices[0].logprobs.content
    assert b"".join(bytes(one.bytes) for one in found).decode("utf-8", "replace") == told(answer)
    assert all(one.logprob <= 0 for one in found)
    ended = answer.choices[0].finish_reason == "stop"
    assert len(found) == answer.usage.completion_tokens - ended


def test_a_conversation_of_several_turns_and_pictures_is_read(api):
    turns = [
        {"role": "system", "content": "Be short."},
        *asked(PAIR[0], text="And?"),
        {"role": "assistant", "content": "A cube."},
        *asked(PAIR[1], text="And here?"),
    ]
    answer = chat(api, turns)
    assert told(answer)
    alone = chat(api, turns[-1:])
    assert answer.usage.prompt_tokens > 24 + alone.usage.prompt_tokens
    assert told(chat(api, [{"role": "user", "content": "No picture at all"}])) is not None


def test_formats_that_ask_reads_are_read(api):
    right = told(chat(api))
    for kind in ("BMP", "TIFF", "WEBP"):
        lossless = {"lossless": True} if kind == "WEBP" else {}
        files = [file_of(example(side), kind, **lossless) for side in "ab"]
        assert told(chat(api, asked(*files, text=WORDS))) == right, kind


def test_nothing_is_compiled_after_the_start(api, serving):
    before = serving.metrics.compiled
    assert before > 0
    some = [asked(file_of(noise(n, (64, 64 + 16 * n))), text="x" * n) for n in range(3)]
    for messages in [*some, asked(text="y"), asked(*PAIR)]:
        chat(api, messages, n=3, temperature=0.7, top_p=0.9)
    list(chat(api, stream=True, stop="a"))
    assert serving.metrics.compiled == before


def test_a_client_that_leaves_frees_its_rows(api, serving):
    for _ in range(3):  # more rows than there are
        stream = chat(api, stream=True, n=SLOTS, temperature=1.0)
        next(iter(stream))
        stream.close()
        until(lambda: not serving.worker.going)
    assert told(chat(api))


def test_metrics_count_what_was_asked(api, serving):
    chat(api)
    said = serving.metrics.text()
    for line in ("dig_jax_queue 0", f"dig_jax_rows {SLOTS}", 'tokens_total{kind="answer"} '):
        assert line in said
    until(lambda: 'requests_total{status="200"}' in serving.metrics.text())
    assert 'request_seconds_bucket{le="+Inf"} ' in serving.metrics.text()


def test_models_are_listed(api):
    (model,) = api.models.list().data
    assert (model.id, model.max_tokens) == (NAME, MOST)
    assert api.models.retrieve(NAME).id == NAME
