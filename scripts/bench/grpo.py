"""A GRPO step, ours beside TRL's `GRPOTrainer`, on one checkpoint and one core.

    .venv-parity/bin/python -m pip install trl==1.16.0
    .venv-parity/bin/python -m scripts.bench.grpo [--pairs 16] [--group 8] [--rounds 3]

Each side runs in a process of its own, pinned to the same core with one thread, in turn. Both read
the same Hugging Face folder (float32), the same pairs of noise images of the shipped size, ask the
same question, draw G answers per pair at temperature 1, score them with the same cheap function of
the text, and make one AdamW update at a tiny rate with a KL to the reference. No answer ends early,
so both write pairs x G x tokens tokens a step: ours has no end token, TRL's generation has
`min_new_tokens` = `max_new_tokens`.

Seconds are CPU seconds of the process from one step's end to the next, after warm-up steps (ours
compiles in them): data, rollout, reward, reference, update. "Rollout alone" is the sampler, and
`generate` on the same rows with the trainer's own generation config. Needs torch and TRL: the
environment of scripts/parity.sh and the line above.
"""

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path
from statistics import median

import numpy as np

QUESTION = "Find every difference between the two images. Answer with a JSON list of bbox_2d boxes."
BETA, RATE = 0.005, 1e-7


@dataclass(frozen=True)
class Task:
    """What both sides do.

    pairs x group answers of `tokens` tokens to images [height, width]; `steps` are counted
    """

    folder: str
    images: str  # .npy, u8[pairs, 2, height, width, 3]
    pairs: int
    group: int
    tokens: int
    warm: int
    steps: int


def cheap_reward(text: str) -> float:
    """The share of digits in a text: something to differ by, computed in no time."""
    return sum(c.isdigit() for c in text) / max(1, len(text))


def cpu_seconds(function) -> float:
    start = time.process_time()
    function()
    return time.process_time() - start


def run_ours(task: Task) -> dict:
    """Our step as `dig_jax.train` makes it, around the package's own functions."""
    from dataclasses import replace

    import jax

    from dig_jax.config import (
        Config,
        GrpoConfig,
        ModelSource,
        OptimConfig,
        PromptConfig,
        RolloutConfig,
    )
    from dig_jax.hf.weights import load_params, read_model_config
    from dig_jax.inputs.prompt import decode_answers, load_processor, make_prompt, repeat_prompt
    from dig_jax.learner.grpo import TrainState, make_update
    from dig_jax.learner.optim import make_optimizer
    from dig_jax.learner.trainable import trained_names
    from dig_jax.mesh import programs, sharding
    from dig_jax.mesh.layout import Layout
    from dig_jax.model.params import param_shapes
    from dig_jax.model.specs import model_specs

    images = np.load(task.images)
    model = replace(read_model_config(task.folder), eos_tokens=(-1,))
    processor = load_processor(task.folder)
    size = images.shape[2:4]
    cfg = Config(
        model=ModelSource(task.folder),
        pairs_per_step=task.pairs,
        prompt=PromptConfig(QUESTION),
        # as configs/tiny_cpu.py, but no answer ends, so that no row is packed
        rollout=RolloutConfig(task.group, task.tokens, chunk=20, layers="unroll"),
        grpo=GrpoConfig(kl_coef=BETA, accumulate=task.pairs),
        optim=OptimConfig(rate=RATE),
    )
    row = make_prompt(
        cfg.prompt, processor, model, [[size, size]], names=["pair"], answer=task.tokens
    )
    prompt = repeat_prompt(row, task.pairs)
    shapes = param_shapes(model_specs(model))
    optimizer, trained = make_optimizer(cfg.optim, cfg.steps, shapes), trained_names(cfg, shapes)
    params = load_params(task.folder, model)
    state = jax.jit(lambda p: TrainState.start(p, optimizer, cfg.grpo, trained))(params)
    sample = programs.jit_sampler(
        Layout(cfg, sharding.make_mesh(cfg.mesh, jax.devices()[:1]), model)
    )
    update = make_update(cfg.grpo, model, optimizer, trained, temperature=1.0)
    update = jax.jit(update, donate_argnums=0)
    root = jax.random.key(0)

    def step(state, number):
        rollout = sample(state.params, prompt, images, jax.random.fold_in(root, number))
        host = jax.device_get(rollout)
        lengths = host.valid.sum(-1)
        texts = decode_answers(processor, host.tokens, lengths, stops=model.eos_tokens)
        rewards = np.array([[cheap_reward(t) for t in answers] for answers in texts], np.float32)
        state, stats, _ = update(state, prompt, images, rollout, rewards)
        jax.device_get(stats)
        return state, int(lengths.sum())

    spent = []
    for number in range(task.warm + task.steps):
        start = time.process_time()
        state, tokens = step(state, number)
        spent.append(time.process_time() - start)
    alone = [
        cpu_seconds(lambda: jax.block_until_ready(sample(state.params, prompt, images, root)))
        for _ in range(3)
    ]
    return {
        "prompt": int(row.length[0]),
        "tokens": tokens,
        "step_s": median(spent[task.warm :]),
        "rollout_s": median(alone),
    }


def run_trl(task: Task) -> dict:
    """`GRPOTrainer` on CPU: one generation batch per optimiser step, no checkpointing, no logs."""
    import torch
    from datasets import Dataset
    from PIL import Image
    from transformers import TrainerCallback
    from trl import GRPOConfig, GRPOTrainer

    torch.set_num_threads(1)
    images = np.load(task.images)
    ask = [{"type": "image"}, {"type": "image"}, {"type": "text", "text": QUESTION}]
    rows = [
        {
            "prompt": [{"role": "user", "content": ask}],
            "images": [Image.fromarray(image) for image in pair],
        }
        for pair in images
    ]
    ends, lengths, counted = [], [], []

    def reward(completions, completion_ids, **_) -> list[float]:
        lengths.append(sum(map(len, completion_ids)))
        texts = [answer[0]["content"] for answer in completions]
        return [cheap_reward(text) for text in texts]

    class Clock(TrainerCallback):
        def on_step_end(self, *_, **__):
            ends.append(time.process_time())

    answers = task.pairs * task.group
    with tempfile.TemporaryDirectory() as scratch:
        args = GRPOConfig(
            output_dir=scratch,
            use_cpu=True,
            bf16=False,
            gradient_checkpointing=False,
            per_device_train_batch_size=answers,
            num_generations=task.group,
            max_completion_length=task.tokens,
            generation_kwargs={"min_new_tokens": task.tokens},
            temperature=1.0,
            beta=BETA,
            learning_rate=RATE,
            max_steps=task.warm + task.steps,
            logging_strategy="no",
            save_strategy="no",
            report_to="none",
            disable_tqdm=True,
            seed=0,
        )
        trainer = GRPOTrainer(
            model=task.folder,
            reward_funcs=reward,
            args=args,
            train_dataset=Dataset.from_list(rows),
            processing_class=picture_processor(task.folder),
            callbacks=[Clock()],
        )
        trainer.train()
    given = trl_rows(trainer.processing_class, rows, task.group)

    @torch.no_grad()
    def generate():
        made = trainer.model.generate(**given, generation_config=trainer.generation_config)
        counted.append(made[:, given["input_ids"].shape[1] :].numel())

    trainer.model.eval()
    alone = [cpu_seconds(generate) for _ in range(3)]
    return {
        "prompt": int(given["attention_mask"][0].sum()),
        "tokens": lengths[-1],
        "rollout_tokens": counted[-1],
        "step_s": median(np.diff(ends[task.warm - 1 :]).tolist()),
        "rollout_s": median(alone),
        "params_in": str(next(trainer.model.parameters()).dtype),
    }


def picture_processor(folder: str):
    """Hugging Face's Qwen3VLProcessor for images alone: its video part would need torchvision."""
    from transformers import (
        AutoTokenizer,
        ProcessorMixin,
        Qwen2VLImageProcessorPil,
        Qwen3VLProcessor,
    )

    class PictureProcessor(Qwen3VLProcessor):
        def __init__(self, image_processor, tokenizer, chat_template=None):
            for kind in ("image", "video"):
                token = f"<|{kind}_pad|>"
                setattr(self, f"{kind}_token", token)
                setattr(self, f"{kind}_token_id", tokenizer.convert_tokens_to_ids(token))
            ProcessorMixin.__init__(self, image_processor, tokenizer, chat_template=chat_template)

    tokenizer = AutoTokenizer.from_pretrained(folder)
    images = Qwen2VLImageProcessorPil.from_pretrained(folder)
    return PictureProcessor(images, tokenizer, chat_template=tokenizer.chat_template)


def trl_rows(processor, rows: list[dict], group: int) -> dict:
    """The batch that the trainer gives `generate`: every prompt `group` times."""
    text = processor.apply_chat_template(rows[0]["prompt"], add_generation_prompt=True)
    images = [row["images"] for row in rows for _ in range(group)]
    batch = processor(images=images, text=[text] * len(images), padding=True, return_tensors="pt")
    return dict(batch)


def pinned(side: str, task: Task, core: int) -> dict:
    """One side's measurement, in a process that owns one core and one thread."""
    names = ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS")
    more = {"JAX_PLATFORMS": "cpu", "HF_HUB_OFFLINE": "1", "TOKENIZERS_PARALLELISM": "false"}
    env = os.environ | dict.fromkeys(names, "1") | more
    words = [sys.executable, "-m", "scripts.bench.grpo", "--side", side, json.dumps(vars(task))]
    done = subprocess.run(
        ["taskset", "-c", str(core), *words], env=env, capture_output=True, text=True, check=False
    )
    if done.returncode:
        sys.exit(f"{side}: {done.stderr[-3000:]}")
    return json.loads(done.stdout.splitlines()[-1])


def write_images(path: Path, pairs: int, height: int, width: int) -> None:
    rng = np.random.default_rng(0)
    np.save(path, rng.integers(0, 256, (pairs, 2, height, width, 3), np.uint8))


def table(task: Task, rounds: list[dict[str, dict]]) -> str:
    """Medians over the rounds and the ratio of each round's two sides."""
    first = rounds[0]
    lines = [
        f"{task.pairs} pairs x {task.group} answers of {task.tokens} tokens; prompt tokens: ours "
        f"{first['ours']['prompt']}, TRL {first['trl']['prompt']}; tokens a step: ours "
        f"{first['ours']['tokens']}, TRL {first['trl']['tokens']} ({len(rounds)} rounds)"
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
    parser.add_argument("--checkpoint", default="assets/tiny_qwen3vl", help="Hugging Face folder")
    parser.add_argument("--pairs", type=int, default=16)
    parser.add_argument("--group", type=int, default=8)
    parser.add_argument("--tokens", type=int, default=78, help="of every answer")
    parser.add_argument("--size", type=int, nargs=2, default=(64, 96), metavar=("H", "W"))
    parser.add_argument("--warm", type=int, default=2, help="steps before the counted ones")
    parser.add_argument("--steps", type=int, default=5, help="counted steps of each round")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--core", type=int, default=0, help="the core that both sides run on")
    parser.add_argument("--side", nargs=2, metavar=("SIDE", "TASK"), help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.side:
        side, task = args.side
        run = {"ours": run_ours, "trl": run_trl}[side]
        print(json.dumps(run(Task(**json.loads(task)))))
        return
    for name in ("pairs", "warm", "steps", "rounds", "tokens"):
        if getattr(args, name) < 1:
            parser.error(f"--{name} {getattr(args, name)} is below 1; use 1 or more")
    with tempfile.TemporaryDirectory() as scratch:
        images = Path(scratch) / "images.npy"
        write_images(images, args.pairs, *args.size)
        task = Task(
            args.checkpoint, str(images), args.pairs, args.group, args.tokens, args.warm, args.steps
        )
        found = []
        for number in range(args.rounds):
            found.append({side: pinned(side, task, args.core) for side in ("ours", "trl")})
            print(f"round {number + 1}: {json.dumps(found[-1])}", flush=True)
    print(table(task, found))


if __name__ == "__main__":
    main()
