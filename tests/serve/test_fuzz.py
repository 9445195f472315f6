"""Malformed and half-malformed requests, by the hundred: errors of OpenAI's form, never a 5xx."""

import copy
import json

import numpy as np
import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

from tests.serve.direct import CHAT, JSON, events, is_openais, make_direct, send
from tests.serve.served import NAME, asked, file_of
from tests.serve.test_wanted import anything

PNG = file_of(np.zeros((16, 24, 3), np.uint8))
VALID = {
    "model": NAME,
    "messages": [
        {"role": "system", "content": "Be short."},
        *asked(PNG, PNG, text="What has changed?"),
        {"role": "assistant", "content": "Nothing."},
        {"role": "user", "content": [{"type": "text", "text": "Sure?"}]},
    ],
    "n": 2, "temperature": 0.7, "top_p": 0.9, "top_k": 5, "min_p": 0.1, "seed": 3,
    "stop": ["x", "yy"], "max_tokens": 4, "logprobs": True, "stream": False,
    "stream_options": {"include_usage": True}, "tools": [], "response_format": {"type": "text"},
    "logit_bias": {}, "frequency_penalty": 0, "user": "u",
}  # fmt: skip

letters = st.characters(codec=None)  # halves of surrogate pairs too: JSON can say them
odd = st.sampled_from([
    10**400, -(10**400), 2**63, 2**64, -(2**63) - 1, 1e308, 5e-324, -0.0, float("nan"),
    float("inf"), float("-inf"), "", "\ud800", "a\udfff", "\0", "x" * 70_000, "<|image_pad|>",
    "<|vision_start|>", "<think>", "{{ 7 * 7 }}", [], {}, [[[[[[]]]]]], {"": {"": {}}}, True, None,
    "data:image/png;base64,", "data:,", "file:///etc/passwd", "http://127.0.0.1/x", "\u202e",
])  # fmt: skip
# copies: a later change of one place must not reach the next request's
value = (odd | anything | st.integers() | st.text(letters, max_size=8)).map(copy.deepcopy)
names = st.sampled_from(["messages", "n", "model", "stop", "\ud800", "", "__class__", "a.b"])
names = names | st.text(letters, max_size=4)
kinds = st.sampled_from([
    b"application/json", b"application/json; charset=utf-16", b"APPLICATION/JSON ;x=\xff",
    b"text/plain", b"multipart/form-data; boundary=x", b"application/jsonx", b"", b"\xff", b";;;",
])  # fmt: skip
said_lengths = st.sampled_from([b"0", b"-1", b"x", b"1e3", b"\xb2", b"9" * 30, b"9" * 5000])


@st.composite
def mutated(draw, tree=VALID):
    """A valid request with one to three places changed, each anywhere in it."""
    tree = copy.deepcopy(tree)
    for _ in range(draw(st.integers(1, 3))):
        node, at = None, tree
        while isinstance(at, dict | list) and at and (node is None or draw(st.booleans())):
            keys = sorted(at) if isinstance(at, dict) else range(len(at))
            node, key = at, draw(st.sampled_from(keys))
            at = at[key]
        if node is None:
            break
        what = draw(st.sampled_from(["put", "put", "put", "take", "twice", "name", "wrap"]))
        if what == "put":
            node[key] = draw(value)
        elif what == "take":
            del node[key]
        elif what == "wrap":
            node[key] = draw(st.sampled_from([[at], {"x": at}, str(at)]))
        elif isinstance(node, list):
            node.append(copy.deepcopy(at))
        elif what == "name":
            node[draw(names)] = node.pop(key)
        else:
            node[draw(names)] = draw(value)
    return tree


@st.composite
def broken(draw):
    """The bytes of a valid request, or a mutated one, with some of them wrong."""
    body = json.dumps(draw(st.just(VALID) | mutated()), ensure_ascii=draw(st.booleans()))
    body = body.encode("utf-8", draw(st.sampled_from(["surrogatepass", "replace"])))
    at = draw(st.integers(0, len(body)))
    how = draw(st.sampled_from(["cut", "put", "flip", "twice", "mark", "wide", "deep", "same"]))
    junk = st.binary(max_size=4) | st.sampled_from([b"NaN", b"{", b"]", b'"', b"\\u", b"1e999"])
    return {
        "cut": lambda: body[:at],
        "put": lambda: body[:at] + draw(junk) + body[at:],
        "flip": lambda: body[:at] + bytes([draw(st.integers(0, 255))]) + body[at + 1 :],
        "twice": lambda: body + body,
        "mark": lambda: b"\xef\xbb\xbf" + body,
        "wide": lambda: body.decode("utf-8", "replace").encode("utf-16"),
        "deep": lambda: b'{"messages": ' + b"[" * 50_000,
        "same": lambda: b'{"n": 1, "n": {}, "messages": 3, ' + body[1:],  # names given twice
    }[how]()


@pytest.fixture(scope="module")
def app():
    return make_direct()


@pytest.fixture(scope="module")
def keyed():
    return make_direct(key="k", hosts=("test",))


def check(answer) -> None:
    """Answered, or refused by a client's error that OpenAI's clients can read."""
    assert answer.status == 200 or 400 <= answer.status < 500, answer.body
    if answer.status != 200:
        assert is_openais(answer.body), answer.body
    elif answer.headers[b"content-type"].startswith(b"text/event-stream"):
        assert all("error" not in event for event in events(answer.body))
    else:
        assert json.loads(answer.body)


LOOSE = {"deadline": None, "suppress_health_check": list(HealthCheck)}


def test_the_valid_request_is_answered(app):
    answer = send(app, json.dumps(VALID).encode())
    assert answer.status == 200, answer.body
    assert len(json.loads(answer.body)["choices"]) == 2
    streamed = send(app, json.dumps({**VALID, "stream": True}).encode())
    assert events(streamed.body)[-1]["usage"]["completion_tokens"] == 8


@settings(max_examples=500, **LOOSE)
@given(mutated(), st.booleans())
@example({**VALID, "temperature": 10**400}, False)
@example({**VALID, "\ud800": 1}, False)
def test_a_request_with_some_places_changed_is_answered_or_refused(app, body, stream):
    if stream:
        body["stream"] = True
    check(send(app, json.dumps(body).encode()))


@settings(max_examples=300, **LOOSE)
@given(broken(), kinds, st.integers(1, 5), st.none() | said_lengths)
@example(b"{}", b"application/json", 1, b"9" * 5000)
def test_wrong_bytes_types_and_lengths_are_refused(app, body, kind, parts, said):
    headers = [(b"content-type", kind)] if kind else []
    headers += [(b"content-length", said)] if said else []
    check(send(app, body, headers=headers, parts=parts))
    if kind.startswith(b"application/json;") or kind == JSON[1]:
        check(send(app, body))


paths = st.sampled_from([CHAT, "/v1/models", "/v1/models/x", "/", "/metrics", "/health", "/v1/"])
paths = paths | st.text(st.characters(codec="utf-8"), max_size=12).map(lambda more: f"/v1/{more}")
methods = st.sampled_from(["GET", "POST", "PUT", "DELETE", "OPTIONS", "HEAD", "PATCH", "X", "get"])
raw = st.binary(max_size=12)


@settings(max_examples=200, **LOOSE)
@given(paths, methods, raw, raw | st.just(b"Bearer k"), st.none() | raw)
def test_any_path_method_host_and_key_is_answered_or_refused(keyed, path, method, host, key, kind):
    headers = [(b"host", host), (b"authorization", key)]
    headers += [] if kind is None else [(b"content-type", kind)]
    answer = send(keyed, b"{}", method=method, path=path, headers=headers)
    assert answer.status == 200 or 400 <= answer.status < 500, answer.body
    if answer.status != 200 and method != "HEAD":
        assert is_openais(answer.body)
