"""A model answers over HTTP, as OpenAI's clients ask.

    python -m dig_jax.serve --source FOLDER
    python -m dig_jax.serve --run runs/mine --from-best --port 8000
    python -m dig_jax.serve --source FOLDER --host 0.0.0.0 --api-key-file key.txt

All programs are compiled before the first question; SIGTERM answers whoever waits, then ends.
"""

from __future__ import annotations

import argparse
import importlib.util
import ipaddress
import logging
import os
import signal
import socket
import sys
import time
from pathlib import Path

from dig_jax.common.commandline import bucket_of, clear_errors, path_of, place_of, within
from dig_jax.config import MeshConfig
from dig_jax.run.policy import DECODINGS, Policy, answer_room, open_policy

MOST = 4096  # tokens of an answer, where the model's context has room for them
PIXELS = {"cpu": 2**17}  # of a resized picture, where neither user nor checkpoint say less
_PIXELS = 2**21  # the same on an accelerator: a whole screen
_LOCAL = ("localhost", "127.0.0.1", "[::1]")


def parse_args(argv: list[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="python -m dig_jax.serve", description=__doc__.splitlines()[0]
    )
    who = parser.add_mutually_exclusive_group(required=True)
    who.add_argument("--source", type=place_of, metavar="FOLDER", help="checkpoint folder")
    who.add_argument("--run", type=place_of, help="a run: its newest checkpoint")
    add = parser.add_argument
    add("--from-best", action="store_true", help="with --run: the weights that validated best")
    add("--name", help="of the model, for clients; default: its folder's name")
    add("--host", default="127.0.0.1", help="address to listen at; another than this needs a key")
    add("--port", type=within(int, 0, 65535), default=8000, help="0: any that is free")
    add("--api-key-file", type=path_of, metavar="F", help="file with the key that clients send")
    add("--batch", type=within(int, 1, 2**12), default=8, help="answers that are drawn at a time")
    add("--max-queue", type=within(int, 1, 2**16), default=64, help="requests that may wait")
    pixels = within(int, 0, 2**28)
    add(
        "--min-pixels",
        type=pixels,
        default=0,
        help="of a resized picture; 0: the run's or checkpoint's",
    )
    add(
        "--max-pixels",
        type=pixels,
        default=0,
        help="of a resized picture; 0: the run's or checkpoint's",
    )
    most = within(int, 1, 2**20)
    add("--max-tokens", type=most, help=f"of an answer; default: {MOST}, or what the context has")
    add("--pictures", type=within(int, 0, 64), default=2, help="most of a request")
    add(
        "--bucket",
        type=bucket_of,
        action="append",
        default=[],
        metavar="XxY:P",
        help="canvas and prompt tokens to compile; repeatable; default: a ladder",
    )
    add("--decoding", choices=DECODINGS, default="checkpoint", help="where a request says nothing")
    add("--drain", type=within(int, 0, 86400), default=60, help="seconds for answers after SIGTERM")
    add("--fsdp", type=within(int, 1, 2**12), default=1, help="copies of the weights")
    add("--tensor", type=within(int, 1, 2**12), default=1, help="devices that share a copy")
    add("--dtype", choices=("auto", "float32", "bfloat16"), default="auto", help="of matmuls")
    return parser.parse_args(argv)


def main(argv: list[str] | None = None) -> int:
    args = parse_args(argv)
    with clear_errors():  # whatever is wrong is found before weights are read
        check_extra()
        key = read_key(args)
        opened = listening(args.host, args.port)
        policy = open_it(args)
        return serve(args, policy, key, opened)


def check_extra() -> None:
    missing = [name for name in ("starlette", "uvicorn") if not importlib.util.find_spec(name)]
    if missing:
        raise ValueError(
            f"{' and '.join(missing)} are not installed; install the extra serve: "
            f"uv pip install -e '.[serve]'"
        )


def read_key(args: argparse.Namespace) -> str | None:
    """The key that clients must send; raises ValueError where others could ask without one."""
    if args.api_key_file is None:
        if not is_loopback(args.host):
            raise ValueError(
                f"--host {args.host}: others than this machine could ask without a key; give "
                f"--api-key-file F, or leave --host out"
            )
        return None
    key = args.api_key_file.read_text(encoding="utf-8").strip()
    if not key.isascii() or not key.isprintable() or not key:
        raise ValueError(
            f"--api-key-file {args.api_key_file} holds no key; write one line of ASCII into it"
        )
    return key


def is_loopback(host: str) -> bool:
    if host == "localhost":
        return True
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False


def listening(host: str, port: int) -> socket.socket:
    """A socket at that address; raises OSError where it is taken, or not this machine's."""
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    opened = socket.socket(family, socket.SOCK_STREAM)
    opened.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    try:
        opened.bind((host, port))
        opened.listen(128)
    except OSError as error:
        opened.close()
        raise OSError(
            f"--host {host} --port {port} cannot be listened at ({error.strerror}); use another "
            f"--port"
        ) from error
    return opened


def open_it(args: argparse.Namespace) -> Policy:
    """The model's folder or run, with the largest picture that this server takes."""

    def opened(most: int) -> Policy:
        return open_policy(
            args.source,
            args.run,
            from_best=args.from_best,
            decoding=args.decoding,
            mesh=MeshConfig(args.fsdp, args.tensor),
            dtype=args.dtype,
            min_pixels=args.min_pixels,
            max_pixels=most,
            as_trained=True,
        )

    policy = opened(args.max_pixels)
    largest = PIXELS.get(policy.layout.mesh.devices.flat[0].platform, _PIXELS)
    if not args.max_pixels and not args.bucket and policy.rules.max_pixels > largest:
        own = policy.rules.max_pixels
        policy = opened(max(largest, policy.rules.min_pixels))
        print(
            f"pictures are resized to {policy.rules.max_pixels} pixels at most, the checkpoint "
            f"allows {own} (--max-pixels)"
        )
    return policy


def serve(args: argparse.Namespace, policy: Policy, key: str | None, opened: socket.socket) -> int:
    """Listens until a signal or a fault of the device; ->  exit status."""
    from dig_jax.serve import server

    logging.getLogger("transformers").setLevel(logging.ERROR)
    signal.signal(signal.SIGTERM, lambda *_: None)  # uvicorn raises it again when all is over
    name = args.name or Path(args.source or args.run).name
    context = policy.layout.model.text.context
    shapes = server.shapes_of(policy, args.bucket, args.pictures)
    longest = max(s.prefix + s.suffix for s in shapes)
    most = answer_room(args.max_tokens, MOST, context=context, longest=longest)
    serving = server.make_serving(
        policy,
        shapes,
        name=name,
        key=key,
        slots=args.batch,
        queue=args.max_queue,
        most=most,
        pictures=args.pictures,
        hosts=frozenset() if key else frozenset({*_LOCAL, args.host}),
    )
    address = f"http://{args.host}:{opened.getsockname()[1]}"
    print(f"{address}/v1 answers 503 until its programs are compiled", flush=True)
    began = time.monotonic()

    def ready() -> None:
        took = time.monotonic() - began
        print(f"ready in {took:.0f} s: {name} at {address}/v1, page at {address}/", flush=True)

    failure, ended = server.run(serving, opened, drain=args.drain, say=_say, ready=ready)
    if failure is not None:
        print(f"error: {failure}", file=sys.stderr)
    if not ended:
        sys.stdout.flush()
        os._exit(failure is not None)  # else Python's end would meet a thread within XLA
    return int(failure is not None)


def _say(text: str) -> None:
    print(text, flush=True)


if __name__ == "__main__":
    sys.exit(main())
