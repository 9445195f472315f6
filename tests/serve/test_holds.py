"""What is too much, wrong, too slow or nobody's is refused, and the server goes on."""

import json
import socket
import struct
import threading
import zlib
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace

import httpx2 as httpx
import pytest
from hypothesis import HealthCheck, given, settings

from dig_jax.serve import http
from tests.serve.served import (
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
from tests.serve.test_wanted import anything, bodies, message, st

KEY = "a-key-of-some-length"
PNG = file_of(noise(0))
ENOUGH = {"max_tokens": 2}


pytestmark = pytest.mark.slow  # a server of its own is compiled


@pytest.fixture(scope="module")
def serving():
    return make_serving(key=KEY, queue=3)


@pytest.fixture(scope="module")
def address(serving):
    with serving_at(serving) as at:
        yield at


def post(address, body, *, key=KEY, path="/v1/chat/completions", **headers):
    headers = {"authorization": f"Bearer {key}", "content-type": "application/json", **headers}
    content = body if isinstance(body, bytes) else json.dumps(body).encode()
    return httpx.post(f"{address}{path}", content=content, headers=headers, timeout=60)


def ask(address, messages, **more):
    return post(address, {"model": NAME, "messages": messages, **ENOUGH, **more})


def refused(answer, status, said):
    told = answer.json()["error"]
    assert answer.status_code == status, told
    assert said in told["message"]
    assert told.keys() == {"message", "type", "param", "code"}
    return told


def claimed(width, height) -> bytes:
    """A PNG's header that claims a size, with nothing behind it."""
    head = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    chunks = ((b"IHDR", head), (b"IDAT", b""))
    packed = (
        struct.pack(">I", len(d)) + k + d + struct.pack(">I", zlib.crc32(k + d)) for k, d in chunks
    )
    return b"\x89PNG\r\n\x1a\n" + b"".join(packed)


def test_the_right_key_alone_is_answered(address):
    assert ask(address, asked(PNG)).status_code == 200
    for key in ("x", "wrong", KEY + "x", KEY[:-1]):
        refused(post(address, {}, key=key), 401, "the key is wrong or missing")
    assert httpx.get(f"{address}/metrics").status_code == 401
    assert httpx.get(f"{address}/health").json() == {"status": "ready"}


def test_unknown_paths_and_methods_have_errors_of_openais_form(address):
    head = {"authorization": f"Bearer {KEY}"}
    refused(httpx.get(f"{address}/v2/x", headers=head), 404, "Not Found")
    refused(httpx.get(f"{address}/v1/chat/completions", headers=head), 405, "Method Not Allowed")
    refused(httpx.get(f"{address}/v1/models/gpt", headers=head), 404, "this server has 'tiny'")


@pytest.mark.parametrize(
    ("file", "status", "said"),
    [
        (b"no picture", 400, "the picture cannot be read (b'no pictu'"),
        (PNG[:60], 400, "the picture cannot be read"),
        (claimed(30_000, 20_000), 400, "decompression bomb"),
        (claimed(9000, 9000), 413, "81000000 pixels is more than 67108864; scale it down"),
        (file_of(noise(0, (2, 900))), 400, "may be at most 200 times its shorter one"),
        (file_of(noise(0, (400, 300))), 413, "fit no canvas of this server (96x64); scale or crop"),
        (
            b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\n%%EndComments\n",
            400,
            "holds programs",
        ),
    ],
)
def test_a_picture_that_is_none_or_too_large_is_refused_before_it_is_decoded(
    address, file, status, said
):
    told = refused(ask(address, asked(PNG, file)), status, said)
    assert told["param"] in ("messages", "messages.0.content.1.image_url")
    assert ask(address, asked(PNG, PNG)).status_code == 200


def test_a_prompt_that_is_too_long_is_refused(address):
    told = refused(ask(address, asked(text="many words " * 200)), 400, "is longer than the 224")
    assert told["code"] == "context_length_exceeded"
    refused(ask(address, asked(text="x" * 100_000)), 400, "letters are more tokens than")
    refused(ask(address, asked(text="<|image_pad|>")), 400, "stands for a picture; leave it out")


def test_a_body_that_is_too_large_or_no_json_is_refused(address, serving):
    refused(post(address, b"{"), 400, "the body is no JSON")
    refused(post(address, {}, **{"content-type": "text/plain"}), 400, "is not application/json")
    own, small = serving.limits, replace(serving.limits, body=1000)
    object.__setattr__(serving, "limits", small)  # what a test may do to a frozen dataclass
    try:
        refused(post(address, b" " * 2000), 413, "the body has more than 1000 bytes")
        parts = iter([b" " * 600, b" " * 600])
        head = {"authorization": f"Bearer {KEY}", "content-type": "application/json"}
        answer = httpx.post(f"{address}/v1/chat/completions", content=parts, headers=head)
        refused(answer, 413, "the body has more than 1000 bytes")
    finally:
        object.__setattr__(serving, "limits", own)
    serving.held.most, most = 10, serving.held.most
    refused(post(address, b" " * 2000), 429, "too many large requests")
    serving.held.most = most
    assert serving.held.now == 0
    assert ask(address, asked(PNG)).status_code == 200


def test_more_requests_than_may_wait_are_told_to_come_again(address, serving):
    """One has all rows, three wait: of sixteen at a time some are refused, all others answered."""
    long = {"messages": asked(PNG), "n": SLOTS, "temperature": 1.0}
    with ThreadPoolExecutor(16) as pool:
        sent = [pool.submit(post, address, long) for _ in range(16)]
        answers = [one.result() for one in sent]
    assert {answer.status_code for answer in answers} == {200, 429}
    for answer in answers:
        if answer.status_code == 429:
            assert refused(answer, 429, "3 requests wait already")["code"] == "queue_full"
            assert int(answer.headers["retry-after"]) >= 1
    until(lambda: not serving.worker.going)
    assert ask(address, asked(PNG)).status_code == 200


def test_a_client_that_says_nothing_or_stops_in_between_is_let_go(address, monkeypatch):
    monkeypatch.setattr(http, "HEADER_S", 0.2)
    monkeypatch.setattr(http, "STALL_S", 0.2)
    host, port = address.removeprefix("http://").split(":")
    head = f"POST /v1/chat/completions HTTP/1.1\r\nhost: {host}\r\nauthorization: Bearer {KEY}\r\n"
    body = head + "content-type: application/json\r\ncontent-length: 99\r\n\r\n{"
    for sent, said in (("", b""), (head, b""), (body, b"408")):
        with socket.create_connection((host, int(port)), timeout=20) as slow:
            slow.sendall(sent.encode())
            received = b""
            while part := slow.recv(4096):
                received += part
        assert said in received
    assert ask(address, asked(PNG)).status_code == 200


def test_a_client_that_leaves_while_it_waits_leaves_nothing(address, serving, monkeypatch):
    real, left = serving.worker._whole, threading.Event()
    monkeypatch.setattr(serving.worker, "_whole", lambda one: (left.wait(60), real(one)))
    with pytest.raises(httpx.TimeoutException):
        httpx.post(
            f"{address}/v1/chat/completions",
            json={"messages": asked(PNG), "temperature": 1.0, "n": SLOTS},
            headers={"authorization": f"Bearer {KEY}"},
            timeout=0.5,
        )
    left.set()
    until(lambda: not serving.worker.going and not serving.worker.waiting)
    assert ask(address, asked(PNG)).status_code == 200


bad = bodies.flatmap(
    lambda body: st.tuples(st.just(body), st.lists(message, max_size=2) | anything)
)


@settings(max_examples=60, deadline=None, suppress_health_check=list(HealthCheck))
@given(bad)
def test_whatever_is_sent_is_no_fault_of_the_server(address, sent):
    body, messages = sent
    answer = post(address, {**ENOUGH, **body, "messages": messages})
    assert answer.status_code in (200, 400, 404, 413), answer.text
    if body.get("stream") is not True:
        assert answer.json()


def test_a_device_that_fails_is_told_and_tried_again(address, serving, monkeypatch):
    real, calls = serving.worker._whole, []

    def failing(one):
        calls.append(one)
        if len(calls) == 1:
            raise RuntimeError("out of memory")
        real(one)

    monkeypatch.setattr(serving.worker, "_whole", failing)
    refused(ask(address, asked(PNG)), 503, "could not finish this answer; try again")
    assert ask(address, asked(PNG)).status_code == 200
    assert len(calls) == 2


def test_only_by_its_own_names_a_server_without_a_key_is_asked():
    serving = make_serving(hosts=("127.0.0.1", "localhost"))
    with serving_at(serving, wait=False) as address:
        refused(
            httpx.get(f"{address}/v1/models", headers={"host": "evil.example"}),
            403,
            "this server is not called 'evil.example'; use 127.0.0.1",
        )
        assert httpx.get(f"{address}/health").status_code == 503
        until(lambda: serving.worker.state == "ready", 300)
        assert client(address).models.list().data[0].id == NAME
