"""A GRPO step, ours beside TRL's `GRPOTrainer`, on one checkpoint and one core.

    .venv-parity/bin/python -m pip install trl==1.16.0
    .venv-parity/bin/python -m scripts.bench.grpo [--pairs 16] [--group 8] [--rounds 3]
        [--split data/tiny/mixed]

Each side runs in a process of its own, pinned to the same core with one thread, in turn. Both read
the same Hugging Face folder (float32), the same pairs, ask the same question, draw G answers per
pair at temperature 1, score them with the same cheap function of the text, and make one AdamW
update at a tiny rate with a KL to the reference. The pairs are the first of a split, and answers
end where the model ends them; or without --split they are noise, and no answer ends early: ours
has no end token, TRL's generation has `min_new_tokens` = `max_new_tokens`. TRL's environment lags
behind ours, so --ours may name another Python for our side.

Seconds are CPU seconds of the process from one step's end to the next, after warm-up steps (ours
compiles in them): data, rollout, reward, reference, update. "Rollout alone" is the sampler, and
`generate` on the same rows with the trainer's own generation config. Needs torch and TRL: the
environment of scripts/parity.sh and the line above.
"""

import argparse
import json
import math
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from statistics import median
from typing import Any, NamedTuple

import numpy as np

from dig_jax.common.commandline import place_of
from scripts.bench.grpo_task import (
    BETA,
    QUESTION,
    RATE,
    SLICE,
    Task,
    cheap_reward,
    cpu_seconds,
)


def run_ours(task: Task) -> dict:
    """Our step as `dig_jax.train` makes it, around the package's own functions."""
    import jax

    from dig_jax.mesh import programs

    ours = our_side(task)
    state, images, root = ours.state, np.load(task.images), jax.random.key(0)

    def step(state, number):
        key = jax.random.fold_in(root, number)
        host = jax.device_get(rollout := ours.sample(state.params, ours.prompt, images, key))
        lengths = host.valid.sum(-1)
        texts = ours.texts(host.tokens, lengths)
        rewards = np.array([[cheap_reward(t) for t in answers] for answers in texts], np.float32)
        plan, _ = programs.plan_update(ours.layout, host)
        state, stats, _ = ours.update(state, ours.prompt, images, rollout, rewards, plan)
        jax.device_get(stats)
        return state, int(lengths.sum())

    spent, tokens = [], []
    for number in range(task.warm + task.steps):
        start = time.process_time()
        state, written = step(state, number)
        spent.append(time.process_time() - start)
        tokens.append(written)

    def sample():
        jax.block_until_ready(ours.sample(state.params, ours.prompt, images, root))

    return {
        "prompt": int(ours.prompt.length[0]),
        "tokens": float(np.mean(tokens[task.warm :])),
        "step_s": median(spent[task.warm :]),
        "rollout_s": median(cpu_seconds(sample) for _ in range(3)),
    }


class OurSide(NamedTuple):
    """What a step of ours is made of."""

    state: Any  # TrainState
    prompt: Any  # PromptInputs of all pairs
    sample: Callable
    texts: Callable  # of tokens and lengths
    update: Callable
    layout: Any


def our_side(task: Task) -> OurSide:
    """Weights, programs and prompt of a task, on one device."""
    from dataclasses import replace

    import jax

    from dig_jax.config import Config
    from dig_jax.hf.weights import load_params, read_model_config
    from dig_jax.inputs.prompt import decode_answers, load_processor, make_prompt, repeat_prompt
    from dig_jax.mesh import programs, sharding
    from dig_jax.mesh.layout import Layout

    cfg: Config = our_config(task)
    model = read_model_config(task.folder)
    if not task.ends:
        model = replace(model, eos_tokens=(-1,))
    processor, size = load_processor(task.folder), np.load(task.images).shape[2:4]
    row = make_prompt(
        cfg.prompt, processor, model, [[size, size]], names=["pair"], answer=task.tokens
    )
    layout = Layout(cfg, sharding.make_mesh(cfg.mesh, jax.devices()[:1]), model)
    return OurSide(
        state=jax.jit(partial(programs.start_state, layout))(load_params(task.folder, model)),
        prompt=repeat_prompt(row, task.pairs),
        sample=programs.jit_sampler(layout),
        texts=partial(decode_answers, processor, stops=model.eos_tokens),
        update=programs.jit_update(layout),
        layout=layout,
    )


def our_config(task: Task):
    """As tiny_cpu's, with one advantage of one number; where no answer ends no row is packed."""
    from dig_jax.config import (
        Config,
        GrpoConfig,
        ModelSource,
        OptimConfig,
        PromptConfig,
        RolloutConfig,
    )

    return Config(
        model=ModelSource(task.folder),
        pairs_per_step=task.pairs,
        prompt=PromptConfig(QUESTION),
        rollout=RolloutConfig(
            task.group, task.tokens, chunk=20, compact=0.5 if task.ends else 0.0, layers="unroll"
        ),
        grpo=GrpoConfig(kl_coef=BETA, accumulate=task.pairs // math.gcd(task.pairs, SLICE)),
        optim=OptimConfig(rate=RATE),
    )


def pinned(side: str, task: Task, core: int, python: str) -> dict:
    """One side's measurement by an environment's Python, with one core and one thread."""
    names = ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS")
    more = {"JAX_PLATFORMS": "cpu", "HF_HUB_OFFLINE": "1", "TOKENIZERS_PARALLELISM": "false"}
    env = os.environ | dict.fromkeys(names, "1") | more
    words = [python, "-m", "scripts.bench.grpo", "--side", side, json.dumps(vars(task))]
    done = subprocess.run(
        ["taskset", "-c", str(core), *words], env=env, capture_output=True, text=True, check=False
    )
    if done.returncode:
        sys.exit(f"{side}: {done.stderr[-3000:]}")
    return json.loads(done.stdout.splitlines()[-1])


def write_images(path: Path, pairs: int, height: int, width: int) -> None:
    rng = np.random.default_rng(0)
    np.save(path, rng.integers(0, 256, (pairs, 2, height, width, 3), np.uint8))


def write_split(path: Path, pairs: int, split: str) -> None:
    """The first pairs of a rendered split."""
    from itertools import islice

    from dig_jax.data import records

    found = (one for shard in records.open_split(split) for one in records.read_shard(shard))
    read = [records.decode_images(one) for one in islice(found, pairs)]
    np.save(path, np.stack([[pair.image_a, pair.image_b] for pair in read]))


def table(task: Task, rounds: list[dict[str, dict]]) -> str:
    """Medians over the rounds and the ratio of each round's two sides."""
    first = rounds[0]
    lines = [
        f"{task.pairs} pairs x {task.group} answers of {'up to ' if task.ends else ''}"
        f"{task.tokens} tokens; prompt tokens: ours "
        f"{first['ours']['prompt']}, TRL {first['trl']['prompt']}; tokens a step: ours "
        f"{first['ours']['tokens']:.0f}, TRL {first['trl']['tokens']:.0f} ({len(rounds)} rounds)"
    ]
    for name, key in (("step", "step_s"), ("rollout alone", "rollout_s")):
        ours, trl = ([found[side][key] for found in rounds] for side in ("ours", "trl"))
        ratios = sorted(b / a for a, b in zip(ours, trl, strict=True))
        lines.append(
            f"  {name:14s} CPU-s: ours {median(ours):8.3f}   TRL {median(trl):8.3f}   ratio "
            f"{median(ratios):.2f} ({ratios[0]:.2f}-{ratios[-1]:.2f})"
        )
    rates = [first[s]["tokens"] / median(f[s]["rollout_s"] for f in rounds) for s in first]
    lines.append(
        f"  rollout tokens per CPU-second: ours {rates[0]:.0f}   HF generate {rates[1]:.0f}"
    )
    return "\n".join(lines)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument(
        "--checkpoint", type=place_of, default="assets/tiny_qwen3vl", help="Hugging Face folder"
    )
    parser.add_argument("--pairs", type=int, default=16)
    parser.add_argument("--group", type=int, default=8)
    parser.add_argument("--tokens", type=int, default=78, help="of every answer")
    parser.add_argument("--split", type=place_of, help="folder of rendered pairs; else noise")
    parser.add_argument("--size", type=int, nargs=2, default=(64, 96), metavar=("H", "W"))
    parser.add_argument("--warm", type=int, default=2, help="steps before the counted ones")
    parser.add_argument("--steps", type=int, default=5, help="counted steps of each round")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--ours", default=sys.executable, help="Python of our side's environment")
    parser.add_argument("--core", type=int, default=0, help="the core that both sides run on")
    parser.add_argument("--side", nargs=2, metavar=("SIDE", "TASK"), help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.side:
        side, task = args.side
        from scripts.bench.trl_side import run_trl

        run = {"ours": run_ours, "trl": run_trl}[side]
        print(json.dumps(run(Task(**json.loads(task)))))
        return
    for name in ("pairs", "warm", "steps", "rounds", "tokens"):
        if getattr(args, name) < 1:
            parser.error(f"--{name} {getattr(args, name)} is below 1; use 1 or more")
    with tempfile.TemporaryDirectory() as scratch:
        images = Path(scratch) / "images.npy"
        if args.split:
            write_split(images, args.pairs, args.split)
        else:
            write_images(images, args.pairs, *args.size)
        sizes = (args.pairs, args.group, args.tokens, args.warm, args.steps)
        task = Task(args.checkpoint, str(images), *sizes, ends=bool(args.split))
        found = []
        for number in range(args.rounds):
            with_python = {"ours": args.ours, "trl": sys.executable}
            found.append({s: pinned(s, task, args.core, p) for s, p in with_python.items()})
            print(f"round {number + 1}: {json.dumps(found[-1])}", flush=True)
    print(table(task, found))


if __name__ == "__main__":
    main()
