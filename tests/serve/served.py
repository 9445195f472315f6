"""A server of the shipped base on this machine, in a thread of the tests' process."""

import base64
import contextlib
import io
import socket
import threading
import time

import numpy as np
from openai import OpenAI
from PIL import Image

from dig_jax.config import MeshConfig
from dig_jax.run.policy import open_policy
from dig_jax.serve import server, worker
from tests.tiny_model import ASSETS

MOST, SLOTS, QUEUE = 40, 4, 12
CANVAS, TOKENS = (64, 96), 192
NAME = "tiny"


def make_policy(mesh=MeshConfig(1, 1)):  # noqa: B008  (frozen)
    return open_policy(
        str(ASSETS),
        None,
        from_best=False,
        decoding="checkpoint",
        mesh=mesh,
        dtype="float32",
        min_pixels=0,
        max_pixels=0,
    )


def make_serving(policy=None, *, key=None, slots=SLOTS, queue=QUEUE, hosts=()):
    policy = policy or make_policy()
    shapes = server.shapes_of(policy, [(CANVAS, TOKENS)], 2)
    how = {"slots": slots, "queue": queue, "most": MOST, "pictures": 2}
    return server.make_serving(policy, shapes, name=NAME, key=key, hosts=frozenset(hosts), **how)


@contextlib.contextmanager
def serving_at(serving, *, wait=True):
    """(address, uvicorn's server) while the block runs."""
    opened = socket.create_server(("127.0.0.1", 0))
    ready, failures = threading.Event(), []
    web = server.make_server(serving, drain=5)
    over = lambda failure: (failures.append(failure), ready.set())  # noqa: E731
    engine = worker.start(serving.worker, lambda text: None, ready.set, over)
    thread = threading.Thread(target=web.run, kwargs={"sockets": [opened]}, daemon=True)
    thread.start()
    try:
        if wait:
            assert ready.wait(800)
            assert not failures, failures
        while not web.started:
            time.sleep(0.01)
        yield f"http://127.0.0.1:{opened.getsockname()[1]}"
    finally:
        web.should_exit = True
        thread.join(20)
        serving.worker.drain()
        engine.join(60)
        assert not engine.is_alive()
        assert failures == [None]


def client(address, key="none"):
    return OpenAI(base_url=f"{address}/v1", api_key=key, max_retries=0, timeout=300)


def file_of(picture: np.ndarray, kind="PNG", **how) -> bytes:
    held = io.BytesIO()
    Image.fromarray(picture).save(held, kind, **how)
    return held.getvalue()


def noise(seed: int, size=(64, 96)) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, 256, (*size, 3), np.uint8)


def url_of(data: bytes, kind="png") -> str:
    return f"data:image/{kind};base64,{base64.b64encode(data).decode()}"


def asked(*pictures: bytes, text="What has changed?"):
    """One user's turn: pictures, then a text."""
    parts = [{"type": "image_url", "image_url": {"url": url_of(data)}} for data in pictures]
    return [{"role": "user", "content": [*parts, {"type": "text", "text": text}]}]


def until(holds, seconds=60):
    """Waits for something that another thread does; asserts that it happens."""
    end = time.monotonic() + seconds
    while not holds():
        assert time.monotonic() < end
        time.sleep(0.01)
