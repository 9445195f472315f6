"""Bodies and connections that are too large or take too long."""

import asyncio
import json
import re
from typing import Any

from starlette.requests import Request
from uvicorn.protocols.http.h11_impl import H11Protocol

from dig_jax.serve.limits import Limits
from dig_jax.serve.refusal import Refused

HEADER_S = 10.0  # for a request's head, from its connection or from the answer before
STALL_S, BODY_S = 10.0, 120.0  # between two parts of a body, and for all of it
SEND_S = 30.0  # for a client to take what is sent


class Held:
    """Bytes of bodies that are held at a time."""

    def __init__(self, most: int):
        self.most, self.now = most, 0

    def take(self, count: int) -> None:
        if self.now + count > self.most:
            text = "too many large requests at a time; try again later"
            raise Refused(429, text, code="server_busy", retry=5)
        self.now += count


async def read_body(request: Request, limits: Limits, held: Held) -> bytearray:
    """A request's body; what it adds to `held` is the caller's to give back, also on Refused."""
    said = request.headers.get("content-length", "0")
    if said.isdecimal() and (len(said) > 18 or int(said) > limits.body):  # int: 4300 digits
        raise _too_large(limits)
    kind = request.headers.get("content-type", "").partition(";")[0].strip().lower()
    if kind != "application/json":
        raise Refused(400, "content-type is not application/json; send JSON", code="invalid_json")
    body = bytearray()
    try:
        async with asyncio.timeout(BODY_S):
            more = True
            while more:
                async with asyncio.timeout(STALL_S):
                    message = await request.receive()
                if message["type"] == "http.disconnect":
                    raise Gone
                part, more = message.get("body", b""), message.get("more_body", False)
                if len(body) + len(part) > limits.body:
                    raise _too_large(limits)
                held.take(len(part))
                body += part
    except TimeoutError as error:
        raise Refused(408, "the body did not come in time; try again", code="timeout") from error
    return body


class Gone(Exception):
    """The client has left."""


def read_json(body: bytes | bytearray) -> Any:
    """Raises Refused for what is no JSON."""
    try:
        return json.loads(body, parse_constant=_no_number)
    except (ValueError, RecursionError) as error:
        why = str(error) if isinstance(error, json.JSONDecodeError) else type(error).__name__
        why = re.sub(r"'.*'", "...", why)  # no text of a request in a message that may be logged
        raise Refused(400, f"the body is no JSON ({why})", code="invalid_json") from error


def _no_number(name: str) -> None:
    raise ValueError(f"{name} is no number of JSON")


def _too_large(limits: Limits) -> Refused:
    text = f"the body has more than {limits.body} bytes; send smaller pictures, or fewer"
    return Refused(413, text, code="request_too_large")


class Patient(H11Protocol):
    """Uvicorn's, that closes a connection on which no request's head comes to its end in time."""

    deadline: asyncio.TimerHandle | None = None

    def connection_made(self, transport: asyncio.Transport) -> None:
        super().connection_made(transport)
        self._await_head()

    def data_received(self, data: bytes) -> None:
        super().data_received(data)
        self._await_head()

    def connection_lost(self, exc: Exception | None) -> None:
        super().connection_lost(exc)
        self._forget()

    def _await_head(self) -> None:
        if self.cycle is not None and not self.cycle.response_complete:
            self._forget()
        elif self.deadline is None:
            self.deadline = self.loop.call_later(HEADER_S, self._too_late)

    def _too_late(self) -> None:
        self.deadline = None
        if self.cycle is None or self.cycle.response_complete:
            self.transport.close()

    def _forget(self) -> None:
        if self.deadline is not None:
            self.deadline.cancel()
            self.deadline = None
