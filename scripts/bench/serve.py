"""A server under load: many clients beside one at a time, and a mixed crowd that misbehaves.

    python -m scripts.bench.serve --source assets/tiny_qwen3vl [--theirs .venv-parity/bin/python]

Starts `dig_jax.serve` on this machine with a bucket of --size, then

    throughput   --clients at a time and one at a time, the same requests; with --theirs also put
                 to `scripts.bench.hf_server`, in turn, and whether the answers are equal
    crowd        --requests of mixed sizes, 10 % malformed and 5 % that leave: all others must be
                 right, and the process must not grow

and prints both as tables. A CPU-second is of the server's process: of both alike, whatever else
the machine does. The exit status is 1 where an answer of the crowd was wrong.
"""

from __future__ import annotations

import argparse
import base64
import http.client
import io
import json
import os
import random
import re
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager
from pathlib import Path
from statistics import median

import numpy as np
from PIL import Image

from dig_jax.benchmarks import prompts
from dig_jax.common.commandline import place_of
from dig_jax.config import PromptConfig
from dig_jax.serve import example

MOST = 64  # tokens of an answer
EXAMPLE = Path(example.__file__).parent
QUESTIONS = (  # by the number of pictures: what is answered with many tokens, and with few
    "What has changed?",
    prompts.locate("the cube", "qwen"),
    PromptConfig().question,
)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--source", type=place_of, default="assets/tiny_qwen3vl")
    parser.add_argument("--size", default="96x64", help="width x height of the pictures")
    parser.add_argument("--clients", type=int, default=16)
    parser.add_argument("--batch", type=int, default=16)
    parser.add_argument("--requests", type=int, default=500, help="of the crowd; 0: no crowd")
    parser.add_argument("--theirs", help="Python with torch, whose server is asked the same")
    parser.add_argument("--rounds", type=int, default=1, help="of the throughput")
    args = parser.parse_args()
    width, height = map(int, args.size.split("x"))
    pictures = [picture(seed, height, width) for seed in range(16)]
    with ExitStack() as stack:
        sides = {"ours": stack.enter_context(started(ours(args)))}
        if args.theirs:
            sides["generate"] = stack.enter_context(started(theirs(args)))
        throughput(sides, pictures, args.clients, args.rounds)
        if not args.requests:
            return 0
        pid, address = sides["ours"]
        return crowd(pid, address, pictures, args)


def ours(args) -> list:
    words = [sys.executable, "-m", "dig_jax.serve", "--source", args.source, "--port", 0]
    words += ["--batch", args.batch, "--bucket", f"{args.size}:256", "--max-tokens", MOST]
    return words


def theirs(args) -> list:
    return [args.theirs, "-m", "scripts.bench.hf_server", "--source", args.source, "--port", 0]


@contextmanager
def started(words: list):
    """(process id, address) of a server while the block runs."""
    process = subprocess.Popen(list(map(str, words)), stdout=subprocess.PIPE, text=True)
    try:
        ready = next(line for line in process.stdout if line.startswith("ready in"))
        print(ready.strip(), flush=True)
        host, port = re.search(r"http://([\d.]+):(\d+)", ready).groups()
        yield process.pid, (host, int(port))
    finally:
        process.terminate()
        process.wait(60)


def picture(number: int, height: int, width: int) -> str:
    """A scene as a data URL; two that follow one another are a pair with differences."""
    with Image.open(EXAMPLE / f"example_{'ab'[number % 2]}.png") as image:
        image = image.convert("RGB").resize((width, height), Image.Resampling.BICUBIC)
    pixels = np.roll(np.asarray(image), number // 2 * 3, axis=1)[:, :: -1 if number & 2 else 1]
    held = io.BytesIO()
    Image.fromarray(np.ascontiguousarray(pixels)).save(held, "PNG")
    return "data:image/png;base64," + base64.b64encode(held.getvalue()).decode()


def body_of(pictures: list[str], number: int, *, most: int = MOST) -> dict:
    """A greedy request of 0 to 2 pictures, which its number decides."""
    kind, first = number % 3, number // 3 * 2
    chosen = [pictures[(first + n) % len(pictures)] for n in range(kind)]
    parts = [{"type": "image_url", "image_url": {"url": url}} for url in chosen]
    parts.append({"type": "text", "text": f"{QUESTIONS[kind]} " + "Please. " * (number % 4)})
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


def throughput(sides: dict, pictures: list[str], clients: int, rounds: int) -> None:
    """Rows of every side, in turn; how much more a CPU-second of ours gives; equal answers."""
    print(f"{'':8} {'clients':>8} {'requests/s':>11} {'tokens/s':>9} {'seconds each':>13}", end="")
    print(f" {'requests/CPU s':>15}")
    for _, address in sides.values():
        for number in range(3):
            timed(address, body_of(pictures, number))  # what a first request of a kind costs
    rates: dict = {}
    for _ in range(rounds):
        told = {}
        for name, side in sides.items():
            for count in (1, clients):
                rate, told[name] = put(name, side, pictures, count, 2 * clients)
                rates.setdefault((name, count), []).append(rate)
    if len(sides) > 1:
        first, second = told.values()
        same = np.mean([a == b for a, b in zip(first, second, strict=True)])
        print(f"{same:.1%} of {len(first)} answers equal, text and number of tokens; a CPU-second")
        for count in (1, clients):
            pairs = zip(*(rates[name, count] for name in sides), strict=True)
            ratios = sorted(a / b for a, b in pairs)
            print(f"of ours answers {median(ratios):.2f} times as many at {count} clients ", end="")
            print(f"({ratios[0]:.2f}-{ratios[-1]:.2f})", flush=True)


def put(name: str, side, pictures, count: int, wanted: int) -> tuple[float, list]:
    """Puts requests to one side, `count` at a time; (requests a CPU-second, answers)."""
    pid, address = side
    began, used = time.monotonic(), cpu_seconds(pid)
    with ThreadPoolExecutor(count) as pool:
        found = list(pool.map(lambda n: timed(address, body_of(pictures, n)), range(wanted)))
    took, used = time.monotonic() - began, cpu_seconds(pid) - used
    told = [(one["choices"][0]["message"]["content"], one["usage"]["completion_tokens"])
            for _, one in found]  # fmt: skip
    tokens, each = sum(n for _, n in told), np.mean([seconds for seconds, _ in found])
    print(f"{name:8} {count:8d} {wanted / took:11.2f} {tokens / took:9.1f} {each:13.2f}", end="")
    print(f" {wanted / used:15.2f}", flush=True)
    return wanted / used, told


def cpu_seconds(pid: int) -> float:
    """User's and system's seconds of a process and its threads so far."""
    with open(f"/proc/{pid}/stat") as stat:
        fields = stat.read().rpartition(")")[2].split()  # a name may hold blanks
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


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

    print(f"memory {before:.0f} MB before the crowd", flush=True)
    with ThreadPoolExecutor(args.clients) as pool:
        for quarter in range(4):
            share = range(quarter * args.requests // 4, (quarter + 1) * args.requests // 4)
            for kind in pool.map(one, share):
                counts[kind] += 1
            print(f"  {memory(pid) - before:+.1f} MB after {share.stop} requests", flush=True)
    print("  ".join(f"{count} {kind}" for kind, count in counts.items()))
    return int(counts["wrong"] > 0)


def memory(pid: int) -> float:
    """Resident MB of a process."""
    with open(f"/proc/{pid}/status") as status:
        return int(re.search(r"VmRSS:\s+(\d+)", status.read())[1]) / 1024


if __name__ == "__main__":
    sys.exit(main())
