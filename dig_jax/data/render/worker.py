"""What every render worker does: JSON jobs in, pairs out, one line each.

A worker is a program of its own (`python -m dig_jax.data.render.blender` with Blender,
`python -m dig_jax.data.render.raytrace` without), started by `supervise`.

First line in: {"config": {...SceneConfig}, "scratch": a folder to use and remove,
"parent": the supervisor's pid}.
Then one `produce.Request` per line.
Out: {"ready": version}, then {"idx", "record": base64, "dropped": {...}, "cpu_s"} or
{"idx", "failed": text}.
"""

from __future__ import annotations

import base64
import json
import os
import shutil
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path

from dig_jax.data.records import encode
from dig_jax.data.render.produce import Exhausted, Renderer, make_pair, request_from_json
from dig_jax.data.scene.look import SceneConfig, config_from_json

_LOOK_FOR_PARENT_S = 2.0


def serve(start: Callable[[SceneConfig, Path], tuple[Renderer, str]]) -> None:
    """Answer jobs until stdin closes.

    start   (config, a folder to write to) -> (renderer, its version)

    The protocol goes over a copy of stdout; stdout itself becomes /dev/null, because Blender
    prints to that descriptor from C.
    """
    channel = os.fdopen(os.dup(1), "w", buffering=1)
    os.dup2(os.open(os.devnull, os.O_WRONLY), 1)
    first = json.loads(sys.stdin.readline())
    scratch = Path(first["scratch"])
    config = config_from_json(first["config"])
    threading.Thread(
        target=_leave_with_parent, args=(first["parent"], scratch), daemon=True
    ).start()
    try:
        render, version = start(config, scratch)
        print(json.dumps({"ready": version}), file=channel)
        for line in sys.stdin:
            print(json.dumps(answer(config, render, json.loads(line))), file=channel)
    finally:
        shutil.rmtree(scratch, ignore_errors=True)


def _leave_with_parent(parent: int, scratch: Path) -> None:
    """End a worker whose supervisor was killed, even in the middle of a hung render."""
    while os.getppid() == parent:
        time.sleep(_LOOK_FOR_PARENT_S)
    shutil.rmtree(scratch, ignore_errors=True)
    os._exit(1)


def answer(config: SceneConfig, render: Renderer, asked: dict) -> dict:
    """One job's reply."""
    start = time.process_time()
    request = request_from_json(asked)
    try:
        pair, dropped = make_pair(config, request, render)
    except Exhausted as error:
        return {"idx": asked["idx"], "failed": str(error)}
    record = base64.b64encode(encode(pair)).decode()
    before = request.planned.cpu_s if request.planned else 0.0
    seconds = round(before + time.process_time() - start, 4)
    return {"idx": asked["idx"], "record": record, "dropped": dict(dropped), "cpu_s": seconds}
