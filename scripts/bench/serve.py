"""A server under load: many clients beside one at a time, and a mixed crowd that misbehaves.

    python -m scripts.bench.serve --source assets/tiny_qwen3vl

Starts `dig_jax.serve` on this machine with a bucket of --size, then

    throughput   --clients at a time and one at a time, the same requests
    crowd        --requests of mixed sizes, 10 % malformed and 5 % that leave: all others must be
                 right, and the process must not grow

and prints both as tables. The exit status is 1 where an answer was wrong.
"""

from __future__ import annotations

import argparse
import base64
import http.client
import io
import json
import random
import re
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor

import numpy as np
from PIL import Image

from dig_jax.common.commandline import place_of

MOST = 64  # tokens of an answer


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--source", type=place_of, default="assets/tiny_qwen3vl")
    parser.add_argument("--size", default="96x64", help="width x height of the pictures")
    parser.add_argument("--clients", type=int, default=16)
    parser.add_argument("--batch", type=int, default=16)
    parser.add_argument("--requests", type=int, default=500)
    args = parser.parse_args()
    process, address = started(args)
    try:
        width, height = map(int, args.size.split("x"))
        pictures = [picture(seed, height, width) for seed in range(16)]
        throughput(address, pictures, args.clients)
        return crowd(process.pid, address, pictures, args)
    finally:
        process.terminate()
        process.wait(60)


def started(args) -> tuple[subprocess.Popen, tuple[str, int]]:
    words = ["-m", "dig_jax.serve", "--source", args.source, "--port", "0", "--batch", args.batch]
    words += ["--bucket", f"{args.size}:256", "--max-tokens", MOST]
    process = subprocess.Popen(
        [sys.executable, *map(str, words)], stdout=subprocess.PIPE, text=True
    )
    ready = next(line for line in process.stdout if line.startswith("ready in"))
    print(ready.strip(), flush=True)
    host, port = re.search(r"http://([\d.]+):(\d+)", ready).groups()
    return process, (host, int(port))


def picture(seed: int, height: int, width: int) -> str:
    pixels = np.random.default_rng(seed).integers(0, 256, (height, width, 3), np.uint8)
    held = io.BytesIO()
    Image.fromarray(pixels).save(held, "PNG")
    return "data:image/png;base64," + base64.b64encode(held.getvalue()).decode()


def body_of(pictures: list[str], number: int, *, most: int = MOST) -> dict:
    """A greedy request of 0 to 2 pictures, which its number decides."""
    chosen = [pictures[(number + n) % len(pictures)] for n in range(number % 3)]
    parts = [{"type": "image_url", "image_url": {"url": url}} for url in chosen]
    parts.append({"type": "text", "text": "What has changed? " * (1 + number % 4)})
    messages = [{"role": "user", "content": parts}]
    return {"messages": messages, "temperature": 0, "max_tokens": most}


def post(address, body, *, leave: bool = False) -> tuple[int, dict]:
    connection = http.client.HTTPConnection(*address, timeout=300)
    try:
        sent = body if isinstance(body, bytes) else json.dumps(body).encode()
        head = {"content-type": "application/json"}
        connection.request("POST", "/v1/chat/completions", sent, head)
        if leave:
            time.sleep(random.random() / 10)
            return 0, {}
        answer = connection.getresponse()
        return answer.status, json.loads(answer.read())
    finally:
        connection.close()


def throughput(address, pictures: list[str], clients: int) -> None:
    print(f"{'clients':>8} {'requests/s':>11} {'tokens/s':>9} {'seconds each':>13}")
    for count in (1, clients):
        began, wanted = time.monotonic(), 2 * clients
        with ThreadPoolExecutor(count) as pool:
            found = list(pool.map(lambda n: timed(address, body_of(pictures, n)), range(wanted)))
        took = time.monotonic() - began
        tokens = sum(answer["usage"]["completion_tokens"] for _, answer in found)
        each = np.mean([seconds for seconds, _ in found])
        print(f"{count:8d} {wanted / took:11.2f} {tokens / took:9.1f} {each:13.2f}", flush=True)


def timed(address, body) -> tuple[float, dict]:
    began = time.monotonic()
    status, answer = post(address, body)
    if status != 200:
        raise RuntimeError(f"{status}: {answer}")
    return time.monotonic() - began, answer


def crowd(pid: int, address, pictures: list[str], args) -> int:
    """-> exit status"""
    wrong = [b"{", b'{"messages": []}', b'{"messages": [{"role": "x"}]}', b'{"n": 0}', b"[]"]
    right, kinds = {}, 48
    for number in range(kinds):
        right[number] = timed(address, body_of(pictures, number))[1]["choices"]
    draw, counts = random.Random(0), {"right": 0, "wrong": 0, "refused": 0, "left": 0}
    before = memory(pid)

    def one(number: int) -> str:
        chance = draw.random()
        if chance < 0.10:
            return "refused" if 400 <= post(address, wrong[number % 5])[0] < 500 else "wrong"
        body = body_of(pictures, number % kinds)
        if chance < 0.15:
            post(address, body, leave=True)
            return "left"
        while (found := post(address, body))[0] == 429:
            time.sleep(0.2)
        same = found[0] == 200 and found[1]["choices"] == right[number % kinds]
        return "right" if same else "wrong"

    quarters = []
    with ThreadPoolExecutor(args.clients) as pool:
        for quarter in range(4):
            share = range(quarter * args.requests // 4, (quarter + 1) * args.requests // 4)
            for kind in pool.map(one, share):
                counts[kind] += 1
            quarters.append(memory(pid))
    print("  ".join(f"{count} {kind}" for kind, count in counts.items()))
    grown = ", ".join(f"{now - before:+.0f}" for now in quarters)
    print(f"memory {before:.0f} MB before; {grown} MB after each quarter", flush=True)
    return int(counts["wrong"] > 0)


def memory(pid: int) -> float:
    """Resident MB of a process."""
    with open(f"/proc/{pid}/status") as status:
        return int(re.search(r"VmRSS:\s+(\d+)", status.read())[1]) / 1024


if __name__ == "__main__":
    sys.exit(main())
