"""Questions of mixed sizes, answered by the engine and by a plain `generate` loop, on one core.

    .venv-parity/bin/python -m scripts.bench.questions [--ours .venv/bin/python] [--rounds 3]

200 questions about 80 random pictures of six sizes, some about two at once, put to one checkpoint
(the shipped base), greedily, at most 64 tokens each. Both sides run in turn in processes of their
own on the same core with one thread; seconds are CPU seconds. Ours stands with its compilation
(what a first run pays) and without. HF's loop asks one question after the other, as a short script
would.
Needs torch: the environment of scripts/parity.sh; --ours may name another environment's Python.
"""

import argparse
import json
import os
import subprocess
import sys
import time
from pathlib import Path
from statistics import median

import numpy as np

from dig_jax.common.commandline import path_of

COUNT, PICTURES, MOST, ROWS, SLOTS = 200, 80, 64, 8, 32
SIZES = ((64, 96), (96, 64), (128, 128), (64, 160), (160, 96), (128, 224))
WORDS = (
    "is there a red cube left of the small ball how many things can you see what is behind".split()
)


def questions() -> list[tuple[str, list[np.ndarray]]]:
    """(text, pictures) of each; questions about one picture hold the same array."""
    rng = np.random.default_rng(0)
    pictures = [rng.integers(0, 256, (*SIZES[n % 6], 3), np.uint8) for n in range(PICTURES)]
    found = []
    for _ in range(COUNT):
        first = int(rng.integers(PICTURES))
        shown = [pictures[first]]
        if rng.random() < 0.25:
            shown.append(pictures[(first + 6) % PICTURES])
        if shown[-1].shape != shown[0].shape:
            shown = shown[:1]
        found.append((" ".join(rng.choice(WORDS, rng.integers(4, 24))) + "?", shown))
    return found


def run_ours(folder: Path) -> dict:
    import jax

    from dig_jax.config import Config, MeshConfig, PromptConfig, RolloutConfig
    from dig_jax.engine import jobs
    from dig_jax.engine.loop import answer_all
    from dig_jax.engine.slots import make_engine
    from dig_jax.hf.weights import load_params, read_model_config
    from dig_jax.inputs.decoding import Decoding
    from dig_jax.inputs.prompt import load_processor, render
    from dig_jax.mesh.layout import Layout
    from dig_jax.mesh.sharding import make_mesh

    config, processor = read_model_config(folder), load_processor(folder)
    params = load_params(folder, config)
    mesh = make_mesh(MeshConfig(), jax.devices()[:1])
    layout = Layout(Config(rollout=RolloutConfig(layers="unroll")), mesh, config)
    engine = make_engine(layout, slots=SLOTS, answer=MOST)

    def once() -> tuple[float, dict]:
        start, groups = time.process_time(), {}
        for number, (text, shown) in enumerate(questions()):
            ids = render(PromptConfig(), processor, text, len(shown))
            prefix, suffix = jobs.cut_prompt(config, ids)
            asked = jobs.Asked(number, suffix, Decoding(0.0), (0, number), MOST)
            sizes = [picture.shape[:2] for picture in shown]
            key = (*map(lambda a: a.tobytes()[:64], shown),)
            new = jobs.Group(str(number), prefix, sizes, lambda shown=shown: shown)
            groups.setdefault(key, new).asked.append(asked)
        groups = list(groups.values())
        coming = jobs.batches(config, groups, jobs.plan_shapes(config, groups, 6), ROWS)
        more = lambda idle: next(coming, None)  # noqa: E731
        found = answer_all(engine, layout, params, more, rows=ROWS, chunk=16)
        answers = {one.tag: one.tokens.tolist() for one in found}
        return time.process_time() - start, answers

    first_s, _ = once()
    again = [once() for _ in range(3)]
    tokens = [again[0][1][number] for number in range(COUNT)]
    return {"first_s": first_s, "s": median(s for s, _ in again), "tokens": tokens}


def run_hf(folder: Path) -> dict:
    import torch
    from transformers import Qwen3VLForConditionalGeneration

    from dig_jax.config import PromptConfig
    from dig_jax.hf.weights import read_model_config
    from dig_jax.inputs.prompt import load_processor, render
    from dig_jax.model.logprob import banned_tokens
    from scripts.bench import hf_side

    torch.set_num_threads(1)
    model = Qwen3VLForConditionalGeneration.from_pretrained(folder, dtype=torch.float32).eval()
    config, processor = read_model_config(folder), load_processor(folder)
    banned = np.flatnonzero(banned_tokens(config)).tolist()

    @torch.no_grad()
    def answer(text: str, shown: list[np.ndarray], most: int) -> list[int]:
        ids = render(PromptConfig(), processor, text, len(shown))
        given = hf_side.inputs(config, [ids], np.stack(shown)[None])
        made = model.generate(
            **given,
            do_sample=False,
            max_new_tokens=most,
            eos_token_id=list(config.eos_tokens),
            pad_token_id=config.pad_token,
            suppress_tokens=banned,
        )
        return made[0, given["input_ids"].shape[1] :].tolist()

    some = questions()
    answer(*some[0], 2)
    start = time.process_time()
    tokens = [answer(*one, MOST) for one in some]
    return {"s": time.process_time() - start, "tokens": tokens}


def pinned(side: str, python: str, folder: Path, core: int) -> dict:
    """One side's measurement, in a process that owns one core and one thread."""
    one = {name: "1" for name in ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS")}
    env = os.environ | one | {"JAX_PLATFORMS": "cpu", "HF_HUB_OFFLINE": "1"}
    env |= {"JAX_ENABLE_COMPILATION_CACHE": "false"}
    command = ["taskset", "-c", str(core), python, "-m", "scripts.bench.questions"]
    command += ["--side", side, "--checkpoint", str(folder)]
    done = subprocess.run(command, env=env, capture_output=True, text=True, check=False)
    if done.returncode:
        sys.exit(f"{side}: {done.stderr[-2000:]}")
    return json.loads(done.stdout.splitlines()[-1])


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--checkpoint", type=path_of, default=Path("assets/tiny_qwen3vl"))
    parser.add_argument("--ours", default=sys.executable, help="Python of our side")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--core", type=int, default=0, help="the core that both sides run on")
    parser.add_argument("--side", choices=("ours", "hf"), help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.side:
        print(json.dumps((run_ours if args.side == "ours" else run_hf)(args.checkpoint)))
        return
    pairs = [
        [pinned("ours", args.ours, args.checkpoint, args.core),
         pinned("hf", sys.executable, args.checkpoint, args.core)]
        for _ in range(args.rounds)
    ]  # fmt: skip
    ours, theirs = pairs[0][0]["tokens"], pairs[0][1]["tokens"]
    same = np.mean([a == b for a, b in zip(ours, theirs, strict=True)])
    print(f"{COUNT} questions, {np.mean([len(a) for a in theirs]):.1f} tokens an answer, ", end="")
    print(f"{same:.1%} of the answers equal token for token")
    for name in ("s", "first_s"):
        ratios = sorted(b["s"] / a[name] for a, b in pairs)
        print(
            f"  {'compiled' if name == 's' else 'with compilation'}: questions a CPU-second: ours "
            f"{COUNT / median(a[name] for a, _ in pairs):.2f}   generate loop "
            f"{COUNT / median(b['s'] for _, b in pairs):.2f}   ratio {median(ratios):.2f} "
            f"({ratios[0]:.2f}-{ratios[-1]:.2f})"
        )


if __name__ == "__main__":
    main()
