"""The routes without a socket: any bytes, any headers; a stub answers where a body is valid."""

import asyncio
import dataclasses
import json
from types import SimpleNamespace

import numpy as np

from dig_jax.engine.loop import Answered
from dig_jax.serve.app import make_app
from dig_jax.serve.worker import Order
from tests.serve.served import make_serving

CHAT = "/v1/chat/completions"
JSON = (b"content-type", b"application/json")


class Stub:
    """In the worker's place: every sample is the same few tokens, at once."""

    state, queue = "ready", 12

    def __init__(self):
        self.last = None  # the question that was asked

    def submit(self, question, tell) -> Order:
        self.last = question
        for asked in question.group.asked:
            tokens = np.arange(40, 40 + min(asked.most, 5))
            tell(asked.tag, Answered(asked.tag, tokens, -np.ones(len(tokens)), True), True)
        return Order(0, question, tell)

    def drop(self, order, samples=None) -> None:
        return None


def make_direct(policy=None, *, worker=None, **how):
    """The ASGI application of a server whose engine is the stub."""
    return make_app(dataclasses.replace(make_serving(policy, **how), worker=worker or Stub()))


def send(app, body=b"", *, method="POST", path=CHAT, headers=(JSON,), parts=1) -> SimpleNamespace:
    """What the application answers: status, headers, body; the body goes in `parts` pieces."""
    return asyncio.run(_send(app, bytes(body), method, path, list(headers), parts))


async def _send(app, body, method, path, headers, parts):
    step = max(1, -(-len(body) // parts))
    pieces = [body[at : at + step] for at in range(0, len(body), step)] or [b""]
    coming = [
        {"type": "http.request", "body": piece, "more_body": n + 1 < len(pieces)}
        for n, piece in enumerate(pieces)
    ]
    sent = []

    async def receive():
        if coming:
            return coming.pop(0)
        await asyncio.Event().wait()  # the client stays

    async def take(message):
        sent.append(message)

    scope = {
        "type": "http", "asgi": {"version": "3.0"}, "http_version": "1.1", "method": method,
        "scheme": "http", "path": path, "raw_path": path.encode(), "query_string": b"",
        "root_path": "", "headers": headers, "client": ("127.0.0.1", 9), "server": ("test", 80),
    }  # fmt: skip
    await asyncio.wait_for(app(scope, receive, take), 60)
    start, *rest = sent
    whole = b"".join(one.get("body", b"") for one in rest)
    return SimpleNamespace(status=start["status"], headers=dict(start["headers"]), body=whole)


def is_openais(error: bytes) -> bool:
    """Whether a body is an error as OpenAI's clients read it."""
    told = json.loads(error.decode("utf-8"))
    inner = told.get("error")
    return (
        told.keys() == {"error"}
        and inner.keys() == {"message", "type", "param", "code"}
        and isinstance(inner["message"], str)
        and bool(inner["message"])
        and isinstance(inner["type"], str)
        and all(inner[name] is None or isinstance(inner[name], str) for name in ("param", "code"))
    )


def events(body: bytes) -> list:
    """What a stream said, its end left out."""
    lines = [line for line in body.decode("utf-8").split("\n\n") if line]
    assert lines.pop() == "data: [DONE]"
    return [json.loads(line.removeprefix("data: ")) for line in lines]
