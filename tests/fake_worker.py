"""A render worker that misbehaves on demand; its pictures are `dig_jax.data.render.raytrace`'s.

Same protocol as `dig_jax.data.render.blender`. Environment variables make it misbehave:
FAKE_DIE="idx" dies on that pair every time ("all": on any), FAKE_DIE_ONCE="idx:marker" only the
first time, FAKE_HANG_ONCE="idx:marker" goes silent instead, FAKE_KILL_PARENT_ONCE="idx:marker"
kills its supervisor and goes silent; idx may be "start": before it is ready. FAKE_NO_MEMORY="idx"
has no more memory for that pair.
"""

import base64
import json
import os
import resource
import shutil
import signal
import sys
import time
from pathlib import Path

from dig_jax.data.records import encode
from dig_jax.data.render.produce import make_pair, request_from_json
from dig_jax.data.render.raytrace import render
from dig_jax.data.scene.look import config_from_json


def paint(config, shot):
    """Image and ids of one shot."""
    return render(shot, config.width, config.height)


def _misbehave(idx: int | str) -> None:
    if os.environ.get("FAKE_DIE") in (str(idx), "all") and idx != "start":
        print("fake death", file=sys.stderr)
        os._exit(9)
    if os.environ.get("FAKE_NO_MEMORY") == str(idx):
        resource.setrlimit(resource.RLIMIT_AS, (256 << 20, resource.RLIM_INFINITY))
        bytearray(1 << 30)
    for name in ("FAKE_DIE_ONCE", "FAKE_HANG_ONCE", "FAKE_KILL_PARENT_ONCE"):
        at, _, marker = os.environ.get(name, "").partition(":")
        if at == str(idx) and not Path(marker).exists():
            Path(marker).touch()
            if name == "FAKE_DIE_ONCE":
                os._exit(9)
            if name == "FAKE_KILL_PARENT_ONCE":
                os.kill(os.getppid(), signal.SIGKILL)
            time.sleep(600)


def main() -> None:
    first = json.loads(sys.stdin.readline())
    config = config_from_json(first["config"])
    _misbehave("start")
    print(json.dumps({"ready": "fake"}), flush=True)
    for line in sys.stdin:
        job = json.loads(line)
        _misbehave(job["idx"])
        pair, dropped = make_pair(config, request_from_json(job), lambda shot: paint(config, shot))
        record = base64.b64encode(encode(pair)).decode()
        reply = {"idx": job["idx"], "record": record, "dropped": dict(dropped), "cpu_s": 0.01}
        print(json.dumps(reply), flush=True)
    shutil.rmtree(first["scratch"], ignore_errors=True)


if __name__ == "__main__":
    main()
