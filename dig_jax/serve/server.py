"""A worker and its routes put together, and run until a signal."""

from __future__ import annotations

import signal
import socket
import threading
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor

import uvicorn

from dig_jax.inputs.images import Size
from dig_jax.inputs.shapes import Shape
from dig_jax.run.policy import Policy
from dig_jax.serve import worker as workers
from dig_jax.serve.app import make_app
from dig_jax.serve.chat import Serving
from dig_jax.serve.http import Held, Patient
from dig_jax.serve.limits import Limits
from dig_jax.serve.metrics import Metrics
from dig_jax.serve.shapes import make_shapes

READERS = 2  # threads that read pictures and texts
_CONNECTIONS = 16  # for each request that may wait or be answered


def shapes_of(policy: Policy, buckets: Sequence[tuple[Size, int]], pictures: int) -> list[Shape]:
    """The static shapes of prompts; ValueError for a canvas that is not of whole cells."""
    return make_shapes(policy.layout.model, policy.rules, buckets, pictures)


def make_serving(
    policy: Policy,
    shapes: list[Shape],
    *,
    name: str,
    key: str | None,
    slots: int,
    queue: int,
    most: int,
    pictures: int,
    hosts: frozenset[str],
) -> Serving:
    """Everything but a thread and a socket.

    slots     answers that are drawn at a time, a multiple of mesh.fsdp
    queue     requests that may wait
    most      tokens of an answer
    pictures  of a request
    hosts     names of the server that may be asked without a key; empty: any
    """
    metrics = Metrics(slots)
    worker = workers.Worker(policy, shapes, metrics, slots=slots, answer=most, queue=queue)
    longest = max(shape.prefix + shape.suffix for shape in shapes)
    letters = longest * max(map(len, policy.processor.tokenizer.get_vocab()))
    limits = Limits(pictures=pictures, letters=letters, answers=slots, most=most)
    pool = ThreadPoolExecutor(READERS, thread_name_prefix="reader")
    held = Held(limits.bodies)
    return Serving(policy, shapes, limits, worker, metrics, held, pool, name, key, hosts)


def make_server(serving: Serving, *, drain: int) -> uvicorn.Server:
    """Uvicorn over the routes; logs warnings alone, and so no text of anybody's."""
    config = uvicorn.Config(
        make_app(serving),
        http=Patient,
        ws="none",
        lifespan="off",
        log_level="warning",
        access_log=False,
        server_header=False,
        timeout_keep_alive=10,
        timeout_graceful_shutdown=drain,
        limit_concurrency=_CONNECTIONS * (serving.worker.queue + serving.metrics.rows),
    )
    return uvicorn.Server(config)


def run(
    serving: Serving,
    opened: socket.socket,
    *,
    drain: int,
    say: Callable[[str], None],
    ready: Callable[[], None],
) -> tuple[BaseException | None, bool]:
    """Listens until SIGTERM or SIGINT, or until the device fails.

    drain  seconds for which answers that were asked for are still given

    ->     what ended the engine, if it was not a signal; whether it has ended at all: nobody can
           stop a program that is being compiled
    """
    server, failures = make_server(serving, drain=drain), []

    def over(failure: BaseException | None) -> None:
        if failure is not None:
            failures.append(failure)
            server.should_exit = True

    thread = workers.start(serving.worker, say, ready, over)
    try:
        server.run(sockets=[opened])
    finally:
        serving.worker.drain()
        if threading.current_thread() is threading.main_thread():
            signal.signal(signal.SIGINT, signal.default_int_handler)
        thread.join(timeout=drain if serving.worker.going else 10)
        serving.pool.shutdown(wait=False, cancel_futures=True)
    return failures[0] if failures else None, not thread.is_alive()
