"""Fields of requests: read with their limits, or refused by name."""

import json
from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dig_jax.inputs.decoding import Decoding
from dig_jax.serve.http import read_json
from dig_jax.serve.limits import Limits, check_picture
from dig_jax.serve.messages import read_messages
from dig_jax.serve.refusal import Refused
from dig_jax.serve.wanted import _NEUTRAL, _READ, read_wanted
from tests.serve.served import asked, file_of, noise, url_of

LIMITS = Limits(pictures=2, letters=1000, answers=4, most=50)
HOW = Decoding(0.6, top_k=20, top_p=0.95)
PNG = file_of(noise(0))


def wanted(**fields):
    return read_wanted(fields, model="m", how=HOW, limits=LIMITS)


def test_what_a_request_does_not_say_is_the_checkpoints():
    found = wanted()
    assert (found.how, found.n, found.most, found.stop) == (HOW, 1, 50, ())
    assert wanted(temperature=0).how.temperature == 0
    assert wanted(temperature=1e-5).how.temperature == 0
    assert wanted(top_k=-1).how.top_k == 0
    assert wanted(max_tokens=7).most == wanted(max_tokens=9, max_completion_tokens=7).most == 7
    assert wanted(n=2.0, stop="x", seed=-3).seed == -3
    assert wanted().seed != wanted().seed
    assert wanted(presence_penalty=0, logit_bias={}, user="u", tools=[]).n == 1


@pytest.mark.parametrize(
    ("field", "value", "said"),
    [
        ("n", 5, "n is no whole number from 1 to 4"),
        ("n", True, "n is no whole number"),
        ("temperature", -1, "temperature is no number from 0 to 100"),
        ("temperature", float("nan"), "temperature is no number"),
        ("top_p", 0, r"top_p is outside \(0, 1\]"),
        ("top_p", "1", "top_p is no number"),
        ("max_tokens", 51, "max_tokens is no whole number from 1 to 50"),
        ("max_tokens", 0, "max_tokens is no whole number from 1 to 50"),
        ("stop", [""], "stop is neither a text nor up to 4"),
        ("stop", ["a"] * 5, "stop is neither a text nor up to 4"),
        ("stream", 1, "stream is neither true nor false"),
        ("stream_options", [], "stream_options is no object"),
        ("top_logprobs", 5, "top_logprobs is not supported; leave it out, or use 0"),
        ("frequency_penalty", 0.5, "frequency_penalty is not supported; leave it out"),
        ("tools", [{}], "tools is not supported"),
        ("response_format", {"type": "json_object"}, "response_format is not supported"),
        ("top-p", 0.5, "top-p is no field that is known here; known are .*top_p"),
        ("model", "gpt", "this server has 'm' alone"),
    ],
)
def test_a_wrong_field_is_named(field, value, said):
    with pytest.raises(Refused, match=said) as found:
        wanted(**{field: value})
    assert found.value.param == field
    assert found.value.status == (404 if field == "model" else 400)


@pytest.mark.parametrize(
    ("messages", "said"),
    [
        (None, "messages is no list"),
        ([], "messages is no list"),
        ([3], "messages.0 is no object"),
        ([{"role": "tool", "content": "x"}], "messages.0.role is none of"),
        ([{"role": "user"}], "messages.0.content is neither a text nor a list"),
        ([{"role": "user", "content": []}], "messages.0.content is neither"),
        ([{"role": "user", "content": [{"type": "audio"}]}], "content.0.type is neither text nor"),
        ([{"role": "user", "content": "a\ud800"}], "content.0.text is no text"),
        ([{"role": "assistant", "content": "x", "tool_calls": [1]}], "tool_calls is not supported"),
        (asked(PNG, PNG, PNG), "messages.0.content.2: more than 2 pictures"),
        ([{**asked(PNG)[0], "role": "system"}], "only users send them, not system"),
        ([{"role": "user", "content": "x" * 1001}], "1001 letters are more tokens than"),
    ],
)
def test_a_wrong_message_is_named(messages, said):
    with pytest.raises(Refused, match=said) as found:
        read_messages(messages, LIMITS)
    assert found.value.status == 400


@pytest.mark.parametrize(
    ("url", "status", "said"),
    [
        ("http://host/a.png", 400, "a http: URL is not fetched; send the picture itself"),
        ("https://host/a.png", 400, "a https: URL is not fetched"),
        ("file:///etc/passwd", 400, "a file: URL is not fetched"),
        ("/etc/passwd", 400, "what it is is not fetched|is not fetched"),
        ("data:image/png,abc", 400, "is not fetched"),
        ("data:image/png;base64,a*b", 400, "is no base64"),
        ("data:image/png;base64," + "A" * (LIMITS.picture // 3 * 4 + 8), 413, "letters of base64"),
        (None, 400, "is no object with a url"),
    ],
)
def test_only_pictures_themselves_are_taken(url, status, said):
    part = {"type": "image_url", "image_url": {"url": url}}
    with pytest.raises(Refused, match=said) as found:
        read_messages([{"role": "user", "content": [part]}], LIMITS)
    assert found.value.status == status


def test_more_pictures_are_read_where_more_are_allowed():
    more = replace(LIMITS, pictures=3)
    assert len(read_messages(asked(PNG, PNG, PNG), more)[1]) == 3


def test_a_picture_of_too_many_bytes_is_refused_and_a_smaller_one_read():
    small = replace(LIMITS, picture=len(PNG) - 1)
    with pytest.raises(Refused, match="send it smaller, or as JPEG") as found:
        check_picture(PNG, small, "messages.0")
    assert found.value.status == 413
    check_picture(file_of(noise(0), "JPEG"), small, "messages.0")


def test_pictures_come_in_the_order_of_the_conversation():
    other = file_of(noise(1))
    turns, files = read_messages([*asked(PNG, text="a"), *asked(other, text="b")], LIMITS)
    assert [data for _, data in files] == [PNG, other]
    kinds = [[part["type"] for part in turn["content"]] for turn in turns]
    assert kinds == [["image", "text"]] * 2
    assert read_messages(asked(PNG), LIMITS)[0][0]["role"] == "user"
    assert url_of(PNG).startswith("data:image/png;base64,")


@pytest.mark.parametrize("body", [b"", b"{", b"[" * 100_000, b'{"n": NaN}', b"9" * 5000, b"\xff"])
def test_what_is_no_json_is_refused(body):
    with pytest.raises(Refused, match="the body is no JSON") as found:
        read_json(body)
    assert found.value.status == 400


anything = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=8),
    lambda inner: (
        st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=6), inner, max_size=3)
    ),
    max_leaves=6,
)
part = st.fixed_dictionaries(
    {}, optional={"type": st.sampled_from(["text", "image_url"]) | anything, "text": anything,
                  "image_url": anything | st.fixed_dictionaries({"url": anything})},
)  # fmt: skip
message = st.fixed_dictionaries(
    {}, optional={"role": st.sampled_from(["user", "system"]) | anything,
                  "content": st.lists(part, max_size=3) | anything},
)  # fmt: skip
bodies = st.dictionaries(st.sampled_from([*_READ, *_NEUTRAL]), anything, max_size=4).map(dict)


@given(bodies, st.lists(message, max_size=3) | anything)
def test_whatever_comes_is_read_or_refused(body, messages):
    said = None
    try:
        read_wanted(body, model="m", how=HOW, limits=LIMITS)
        read_messages(messages, LIMITS)
    except Refused as refused:
        said = refused
    assert said is None or (said.status in (400, 404, 413) and json.dumps(said.body()))
