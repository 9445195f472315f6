"""/v1/chat/completions: a request is read, asked, and answered whole or as it comes."""

import asyncio
import json
from collections.abc import AsyncIterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import dataclass

from starlette.requests import Request
from starlette.responses import JSONResponse

from dig_jax.engine.loop import Answered
from dig_jax.inputs.shapes import Shape
from dig_jax.run.policy import Policy
from dig_jax.serve import answers
from dig_jax.serve.answers import Head, Sample
from dig_jax.serve.asking import Question, make_question
from dig_jax.serve.http import SEND_S, Gone, Held, read_body, read_json
from dig_jax.serve.limits import Limits
from dig_jax.serve.metrics import Metrics
from dig_jax.serve.refusal import Refused
from dig_jax.serve.texts import Writing
from dig_jax.serve.wanted import Wanted, read_wanted
from dig_jax.serve.worker import Full, Order, Worker


@dataclass(frozen=True)
class Serving:
    """All that routes need.

    name   the model's, for clients
    key    that clients must send; None: none
    hosts  names by which the server may be called without a key; empty: any
    """

    policy: Policy
    shapes: list[Shape]
    limits: Limits
    worker: Worker
    metrics: Metrics
    held: Held
    pool: ThreadPoolExecutor
    name: str
    key: str | None
    hosts: frozenset[str]


async def answer(serving: Serving, request: Request):
    """The response to a request, an ASGI application; raises Refused, or Gone."""
    wanted, question = await _read(serving, request)
    queue: asyncio.Queue = asyncio.Queue()
    loop = asyncio.get_running_loop()

    def tell(sample: int, one: Answered | None, whole: bool) -> None:
        with suppress(RuntimeError):  # the loop may be closed when a server ends
            loop.call_soon_threadsafe(queue.put_nowait, (sample, one, whole))

    try:
        order = serving.worker.submit(question, tell)
    except Full as error:
        raise _full(serving) from error
    samples = _samples(serving, wanted, question)
    head = answers.make_head(serving.name)
    coming = _coming(serving, order, samples, queue, wanted)
    if wanted.stream:
        return _stream(serving, order, head, samples, question.tokens, wanted, coming)
    await _until_whole(serving, order, request, coming)
    told = {"logprobs": wanted.logprobs}
    return JSONResponse(answers.completion(head, samples, question.tokens, **told))


async def _read(serving: Serving, request: Request) -> tuple[Wanted, Question]:
    if serving.metrics.queue >= serving.worker.queue:
        raise _full(serving)  # before a large body is read
    taken = _Taken(serving.held)
    try:
        body = read_json(await read_body(request, serving.limits, taken))
        decoding = serving.policy.decoding
        fields = {"model": serving.name, "how": decoding, "limits": serving.limits}
        wanted = read_wanted(body, **fields)
        given = (serving.policy, serving.shapes, serving.limits, body.get("messages"), wanted)
        loop = asyncio.get_running_loop()
        return wanted, await loop.run_in_executor(serving.pool, make_question, *given)
    finally:
        taken.give_back()


class _Taken:
    """What one request holds of all that may be held."""

    def __init__(self, held: Held):
        self.held, self.count = held, 0

    def take(self, count: int) -> None:
        self.held.take(count)
        self.count += count

    def give_back(self) -> None:
        self.held.now -= self.count


def _samples(serving: Serving, wanted: Wanted, question: Question) -> list[Sample]:
    stops = serving.policy.layout.model.eos_tokens
    how = {"thinking": question.thinking}
    return [
        Sample(Writing(serving.policy.processor, stops, wanted.stop, **how))
        for _ in range(wanted.n)
    ]


async def _coming(
    serving: Serving, order: Order, samples: list[Sample], queue: asyncio.Queue, wanted: Wanted
) -> AsyncIterator[tuple[int, str, str, list]]:
    """(sample, new thought, new words, new log-probabilities), until all are whole."""
    while any(sample.reason is None for sample in samples):
        number, one, whole = await queue.get()
        if one is None:
            text = "the server could not finish this answer; try again"
            raise Refused(503, text, code="server_error", retry=5)
        sample = samples[number]
        if sample.reason:
            continue
        new = answers.advance(sample, one, whole=whole, logprobs=wanted.logprobs)
        if sample.reason and not whole:  # a stop text: its row is free
            serving.worker.drop(order, [number])
        yield number, *new


async def _until_whole(serving: Serving, order: Order, request: Request, coming) -> None:
    async def read():
        async for _ in coming:
            continue

    reading = asyncio.ensure_future(read())
    leaving = asyncio.ensure_future(_left(request.receive))
    try:
        await asyncio.wait((reading, leaving), return_when=asyncio.FIRST_COMPLETED)
        if not reading.done():
            raise Gone
        reading.result()
    finally:
        reading.cancel()
        leaving.cancel()
        serving.worker.drop(order)


async def _left(receive) -> None:
    while (await receive())["type"] != "http.disconnect":
        continue


def _stream(serving, order: Order, head: Head, samples, prompt: int, wanted: Wanted, coming):
    """An ASGI application that sends events as they come, and frees the rows if nobody listens."""

    async def events(send):
        for number in range(len(samples)):
            await send(answers.piece(head, number, {"role": "assistant", "content": ""}))
        async for number, thought, words, chosen in coming:
            reason, delta = samples[number].reason, answers.delta_of(thought, words)
            if delta or chosen or reason:
                await send(answers.piece(head, number, delta, chosen=chosen, reason=reason))
        if wanted.usage:
            await send(answers.last_piece(head, samples, prompt))

    async def respond(scope, receive, send):
        async def put(text: str, more: bool = True) -> None:
            async with asyncio.timeout(SEND_S):
                body = {"type": "http.response.body", "body": text.encode(), "more_body": more}
                await send(body)

        async def put_event(event: dict) -> None:
            await put(f"data: {json.dumps(event, ensure_ascii=False)}\n\n")

        async def all_events() -> None:
            try:
                await events(put_event)
            except Refused as refused:  # too late for a status
                await put_event(refused.body())
            await put("data: [DONE]\n\n", more=False)

        headers = [(b"content-type", b"text/event-stream; charset=utf-8")]
        headers.append((b"cache-control", b"no-store"))
        await send({"type": "http.response.start", "status": 200, "headers": headers})
        sending = asyncio.ensure_future(all_events())
        leaving = asyncio.ensure_future(_left(receive))
        try:
            await asyncio.wait((sending, leaving), return_when=asyncio.FIRST_COMPLETED)
            if sending.done():
                sending.result()
        except TimeoutError:
            return  # nobody takes what is sent; the connection is closed
        finally:
            sending.cancel()
            leaving.cancel()
            serving.worker.drop(order)

    return respond


def _full(serving: Serving) -> Refused:
    waiting = serving.worker.queue
    retry = max(1, min(60, round(waiting * serving.metrics.typical() / serving.metrics.rows)))
    text = f"{waiting} requests wait already (--max-queue); try again in {retry} s"
    return Refused(429, text, code="queue_full", retry=retry)
