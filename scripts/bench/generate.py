"""Prefill and decode, ours beside Hugging Face's `generate`, on one checkpoint and one core.

    .venv-parity/bin/python -m scripts.bench.generate [--sizes 5.5M 37M] [--rounds 3]
    .venv-parity/bin/python -m scripts.bench.generate --checkpoint assets/tiny_qwen3vl --size 64 96

Each side runs in a process of its own, pinned to the same core with one thread, in turn. Both read
the same checkpoint (float32; random ones of two sizes, or a folder) and the same 8 prompts of two
images, 256x192 unless --size says otherwise, and write the same number of greedy tokens. Seconds
are CPU seconds of the process after a warm-up (ours compiles in it); the table holds medians over
the rounds, and the ratio of each round's pair. Needs torch: the environment of scripts/parity.sh.
"""

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from statistics import median

import numpy as np

from dig_jax.common.commandline import path_of
from dig_jax.inputs.images import Size
from dig_jax.model.config import ModelConfig, TextConfig, VisionConfig
from dig_jax.model.params import count
from dig_jax.model.specs import model_specs

BATCH, IMAGES, HEIGHT, WIDTH, WORDS, TOKENS = 8, 2, 192, 256, 24, 128
VOCAB, SPECIAL = 3072, 3000  # ids from SPECIAL on: start, end, image, video, pad


def shapes() -> dict[str, ModelConfig]:
    """Qwen3-VL's proportions at two sizes: patch 16, head_dim 64, deepstack, four heads a key."""
    return {
        "5.5M": _shape(192, 512, 6, (3, 1), tower=(128, 384, 6, (1, 3))),
        "37M": _shape(512, 1408, 8, (8, 2), tower=(256, 768, 8, (1, 3, 5))),
    }


def _shape(width, mlp, layers, heads, *, tower) -> ModelConfig:
    tower_width, tower_mlp, depth, taps = tower
    return ModelConfig(
        text=TextConfig(
            vocab=VOCAB, width=width, mlp=mlp, layers=layers, heads=heads[0], kv_heads=heads[1],
            head_dim=64, rope_theta=5e6, mrope_section=(12, 10, 10), tied=True,
        ),
        vision=VisionConfig(
            width=tower_width, mlp=tower_mlp, depth=depth, heads=tower_width // 64, out=width,
            positions=2304, deepstack=taps,
        ),
        image_token=SPECIAL + 2, video_token=SPECIAL + 3, vision_start=SPECIAL,
        vision_end=SPECIAL + 1, eos_tokens=(SPECIAL + 5,), pad_token=SPECIAL + 4,
    )  # fmt: skip


def inputs(model: ModelConfig, size: Size) -> tuple[list[list[int]], np.ndarray]:
    """Token ids with one image token per image, and images u8[B, I, Y, X, 3]."""
    rng = np.random.default_rng(0)
    images = rng.integers(0, 256, (BATCH, IMAGES, *size, 3), np.uint8)
    picture = [model.vision_start, model.image_token, model.vision_end] * IMAGES
    words = min(*picture, model.video_token, model.pad_token, *model.eos_tokens)
    return [[*picture, *rng.integers(0, words, WORDS).tolist()] for _ in range(BATCH)], images


def cpu_seconds(function) -> float:
    start = time.process_time()
    function()
    return time.process_time() - start


def run_ours(folder: Path, size: Size) -> dict:
    from dataclasses import replace

    import jax

    from dig_jax.config import Config, RolloutConfig
    from dig_jax.hf.weights import load_params, read_model_config
    from dig_jax.inputs.decoding import Decoding
    from dig_jax.inputs.prompt import prompt_of_ids
    from dig_jax.mesh import programs, sharding
    from dig_jax.mesh.layout import Layout
    from dig_jax.model.qwen3vl import encode_prompt

    config = replace(read_model_config(folder), eos_tokens=(-1,))
    params = load_params(folder, config)
    ids, images = inputs(read_model_config(folder), size)
    prompt = prompt_of_ids(config, ids, [[size] * IMAGES] * BATCH)
    prefill = jax.jit(lambda p, q, i: encode_prompt(p, config, q, i))
    cfg = Config(rollout=RolloutConfig(max_tokens=TOKENS, chunk=TOKENS // 4, layers="unroll"))
    on = Layout(cfg, sharding.make_mesh(cfg.mesh, jax.devices()[:1]), config)
    sample = programs.jit_sampler(on, group=1, decoding=Decoding(0.0))
    key = jax.random.key(0)

    def first():
        jax.block_until_ready(prefill(params, prompt, images))

    def whole():
        return np.asarray(sample(params, prompt, images, key).tokens[:, 0])

    first(), whole()
    first_s = median(cpu_seconds(first) for _ in range(3))
    whole_s = median(cpu_seconds(whole) for _ in range(3))
    return report(prompt.tokens.shape[1], first_s, whole_s, whole())


def run_hf(folder: Path, size: Size) -> dict:
    import torch
    from transformers import Qwen3VLForConditionalGeneration

    from dig_jax.hf.weights import read_model_config
    from scripts.bench import hf_side

    torch.set_num_threads(1)
    model = Qwen3VLForConditionalGeneration.from_pretrained(folder, dtype=torch.float32).eval()
    config = read_model_config(folder)
    given = hf_side.inputs(config, *inputs(config, size))
    generate = hf_side.greedy(model, config, given)
    generate(2)
    first_s = median(cpu_seconds(lambda: generate(1)) for _ in range(3))
    whole_s = cpu_seconds(lambda: generate(TOKENS))
    return report(given["input_ids"].shape[1], first_s, whole_s, generate(TOKENS))


def report(prompt_tokens: int, first_s: float, whole_s: float, tokens: np.ndarray) -> dict:
    decode_s = whole_s - first_s
    return {
        "prompt_tokens": prompt_tokens,
        "prefill": BATCH * prompt_tokens / first_s,
        "decode": BATCH * (TOKENS - 1) / decode_s,
        "tokens": tokens.tolist(),
    }


def pinned(side: str, folder: Path, size: Size, core: int) -> dict:
    """One side's measurement, in a process that owns one core and one thread."""
    one = {name: "1" for name in ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS")}
    env = os.environ | one | {"JAX_PLATFORMS": "cpu", "HF_HUB_OFFLINE": "1"}
    command = [
        "taskset",
        "-c",
        str(core),
        sys.executable,
        "-m",
        "scripts.bench.generate",
        "--side",
        side,
        str(folder),
        *("--size", *map(str, size)),
    ]
    done = subprocess.run(command, env=env, capture_output=True, text=True, check=False)
    if done.returncode:
        sys.exit(f"{side}: {done.stderr[-2000:]}")
    return json.loads(done.stdout.splitlines()[-1])


def compare(name: str, folder: Path, size: Size, rounds: int, core: int) -> None:
    """Prints the table of one checkpoint folder."""
    from dig_jax.hf.weights import read_model_config

    pairs = [[pinned(s, folder, size, core) for s in ("ours", "hf")] for _ in range(rounds)]
    same = np.mean([np.array(a["tokens"]) == np.array(b["tokens"]) for a, b in pairs])
    million = count(model_specs(read_model_config(folder))) / 1e6
    print(f"{name}: {million:.2f} M parameters, {pairs[0][0]['prompt_tokens']} prompt tokens x 8,")
    print(f"  {TOKENS} greedy tokens each, {same:.1%} equal")
    for phase in ("prefill", "decode"):
        ours, theirs = ([pair[side][phase] for pair in pairs] for side in (0, 1))
        ratios = sorted(a / b for a, b in zip(ours, theirs, strict=True))
        print(
            f"  {phase:8s} tokens per CPU-second: ours {median(ours):9.0f}   HF "
            f"{median(theirs):9.0f}   ratio {median(ratios):.2f} ({ratios[0]:.2f}-{ratios[-1]:.2f})"
        )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--sizes", nargs="+", default=list(shapes()), choices=list(shapes()))
    parser.add_argument("--checkpoint", type=path_of, help="a folder instead of random ones")
    parser.add_argument("--size", type=int, nargs=2, default=(HEIGHT, WIDTH), metavar=("H", "W"))
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--core", type=int, default=0, help="the core that both sides run on")
    parser.add_argument("--side", nargs=2, metavar=("SIDE", "FOLDER"), help=argparse.SUPPRESS)
    args = parser.parse_args()
    size = tuple(args.size)
    if args.side:
        side, folder = args.side
        print(json.dumps((run_ours if side == "ours" else run_hf)(Path(folder), size)))
    elif args.checkpoint:
        compare(str(args.checkpoint), args.checkpoint, size, args.rounds, args.core)
    else:
        from scripts.make.random_checkpoint import write_random

        for name in args.sizes:
            with tempfile.TemporaryDirectory() as folder:
                write_random(Path(folder), shapes()[name], seed=0, dtype="float32")
                compare(name, Path(folder), size, args.rounds, args.core)


if __name__ == "__main__":
    main()
