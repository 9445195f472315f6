"""Make a base model: a cold-started Qwen3-VL of one of SHAPES. The repository ships the tiny one.

    python -m dig_jax.data render --root data/base --preset base
    python -m scripts.make.tiny_tokenizer --out runs/tiny_tokenizer --patch 8
    python -m scripts.make.base --out assets/tiny_qwen3vl

Seeded, and resumable: the same command continues from the last save in --work. Trained on the
splits named by --splits only; `dev` (other scenes) is scored along the way and chooses nothing.
With --start the same trainer continues a checkpoint folder: the supervised control of GRPO.
`--shape mid` is for one GPU: scripts/train_mid.sh calls it, docs/mid_size.md tells the rest.
"""

import argparse
import json
import os
import time
from collections import deque
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from functools import partial
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np

from dig_jax.boxes import pad_boxes, unit_from_px
from dig_jax.common.commandline import place_of, seed_of
from dig_jax.config import OptimConfig, PromptConfig, RewardConfig
from dig_jax.data.records import decode_images, open_split, read_shard
from dig_jax.hf import weights
from dig_jax.inputs import prompt as prompts
from dig_jax.learner import sft
from dig_jax.learner.optim import make_optimizer
from dig_jax.model.coldinit import comparing_init
from dig_jax.model.config import ModelConfig, TextConfig, VisionConfig
from dig_jax.model.params import count
from dig_jax.model.specs import model_specs
from dig_jax.reward.reward import make_reward, score_texts
from dig_jax.sampler.rollout import make_sampler

VOCABULARY = 512  # rows of make/tiny_tokenizer.py
SHAPES = {
    # 1.7 M parameters: 96x64 pixels are 6x4 cells of 16 px
    "tiny": (
        TextConfig(
            vocab=VOCABULARY, width=128, mlp=384, layers=4, heads=8, kv_heads=4, head_dim=32,
            rope_theta=100.0, mrope_section=(6, 5, 5), tied=False,
        ),
        VisionConfig(
            width=96, mlp=256, depth=2, heads=3, out=128, positions=256, deepstack=(0,), patch=8
        ),
    ),
    # 61 M: the released 2B with a quarter of its widths and half of its blocks, heads and taps'
    # depths; 256x192 pixels are 8x6 cells of 32 px. Positions are few, so theta is the tiny one's
    "mid": (
        TextConfig(
            vocab=VOCABULARY, width=512, mlp=1536, layers=14, heads=8, kv_heads=4, head_dim=64,
            rope_theta=100.0, mrope_section=(12, 10, 10), tied=False,
        ),
        VisionConfig(
            width=256, mlp=1024, depth=12, heads=4, out=512, positions=256, deepstack=(2, 5, 8),
            patch=16,
        ),
    ),
}  # fmt: skip


def shaped(shape: str, processor: prompts.Processor) -> ModelConfig:
    """The model of a name of SHAPES, with the special ids of its tokenizer."""
    token = processor.tokenizer.convert_tokens_to_ids
    text, vision = SHAPES[shape]
    return ModelConfig(
        text=text,
        vision=vision,
        image_token=token("<|image_pad|>"),
        video_token=token("<|video_pad|>"),
        vision_start=token("<|vision_start|>"),
        vision_end=token("<|vision_end|>"),
        eos_tokens=(processor.eos_token, processor.tokenizer.pad_token_id),
        pad_token=processor.tokenizer.pad_token_id,
    )


def load_pairs(root: Path, splits: list[str]) -> tuple[np.ndarray, list[np.ndarray]]:
    """Images u8[n,2,Y,X,3] and boxes (unit frame) of every finished shard of some splits."""
    images, boxes = [], []
    shards = [s for split in splits for s in open_split(root / split, allow_partial=True)]
    with ThreadPoolExecutor() as pool:
        for shard in shards:
            for pair in pool.map(decode_images, read_shard(shard)):
                height, width = pair.image_a.shape[:2]
                images.append(np.stack([pair.image_a, pair.image_b]))
                boxes.append(unit_from_px(pair.boxes_px, width, height).reshape(-1, 4))
    return np.stack(images), boxes


def augment(images: np.ndarray, boxes: np.ndarray, rng: np.random.Generator):
    """Mirror, swap A and B, permute colour channels, change brightness: labels stay true."""
    if rng.random() < 0.5:
        images = images[:, :, ::-1]
        boxes = np.stack([1 - boxes[:, 2], boxes[:, 1], 1 - boxes[:, 0], boxes[:, 3]], -1)
    if rng.random() < 0.5:
        images = images[::-1]
    if rng.random() < 0.5:
        images = images[..., rng.permutation(3)]
    gain, shift = rng.uniform(0.85, 1.15), rng.uniform(-12, 12)
    levels = np.clip(np.arange(256) * gain + shift, 0, 255).astype(np.uint8)
    return levels[images], boxes


def make_lesson(pairs, processor, cells, args: argparse.Namespace, number: int) -> sft.Lesson:
    """The batch of a step: augmented pairs with their true answers and cell labels."""
    images, boxes = pairs
    rng = np.random.default_rng([args.seed, number])
    rows = []
    for i in rng.integers(0, len(images), args.batch):
        pictures, truth = augment(images[i], boxes[i], rng)
        truth = sft.reading_order(truth)
        tokens, weight = sft.answer_tokens(processor, truth, args.length, sft.SftConfig())
        rows.append((pictures, tokens, weight, *sft.cell_labels(truth, *cells)))
    return sft.Lesson(*(np.stack(column) for column in zip(*rows, strict=True)))


def ahead(make: Callable[[int], sft.Lesson], steps: range) -> Iterator[sft.Lesson]:
    """make(step) of every step, in order, by threads that are as many lessons ahead."""
    threads = max(1, (os.cpu_count() or 2) // 2)
    with ThreadPoolExecutor(threads) as pool:
        waiting = deque(pool.submit(make, step) for step in steps[:threads])
        for step in range(steps.start, steps.stop):
            lesson = waiting.popleft().result()
            if step + threads < steps.stop:
                waiting.append(pool.submit(make, step + threads))
            yield lesson


def make_step(config: ModelConfig, prompt, params, args):
    """The jitted update of (params, opt_state), and the optimiser's init."""
    optim = OptimConfig(rate=args.rate, warmup=args.warmup, b2=0.98, weight_decay=0.01)
    optimizer = make_optimizer(optim, args.steps, params)
    loss = sft.make_lesson_loss(config, prompt, sft.SftConfig(dense_weight=args.dense))

    @partial(jax.jit, donate_argnums=(0, 1))
    def step(params, opt_state, lesson, number, speed):
        (_, metrics), grads = jax.value_and_grad(loss, has_aux=True)(params, lesson)
        moved, opt_state, norm = optimizer.update(grads, opt_state, params, number)
        # `speed` falls to 0 over the last steps: warm up, stay, decay
        params = jax.tree.map(lambda p, m: p + speed * (m - p), params, moved)
        return params, opt_state, metrics | {"grad_norm": norm}

    return step, optimizer.init


def make_dev_scorer(config: ModelConfig, prompt, processor, pairs, length: int):
    """score(params) -> greedy F1, IoU, format and count accuracy on held-out pairs."""
    images, boxes = pairs
    sample = jax.jit(make_sampler(config, group=1, max_tokens=length, temperature=0.0))
    reward_fn = make_reward(RewardConfig())
    size = min(50, len(images))
    rows = prompts.repeat_prompt(prompt, size)

    def score(params) -> dict:
        parts = []
        for at in range(0, len(images) - size + 1, size):
            answer = jax.device_get(sample(params, rows, images[at : at + size], jax.random.key(0)))
            texts = prompts.decode_answers(
                processor, answer.tokens, answer.valid.sum(-1), stops=config.eos_tokens
            )
            truth = pad_boxes(boxes[at : at + size], 8)
            reward, _ = score_texts(texts, answer.ended, truth, reward_fn, RewardConfig())
            parts.append(jax.device_get(reward.parts))
        n = np.array([len(b) for b in boxes[: size * len(parts)]])
        whole = {name: np.concatenate([p[name][:, 0] for p in parts]) for name in parts[0]}
        out = {name: whole[name].mean() for name in ("format", "f1", "iou", "count_ok")}
        for k in np.unique(n):
            out |= {f"{m}_n{k}": whole[m][n == k].mean() for m in ("f1", "count_ok")}
        return {f"dev/{name}": round(float(value), 3) for name, value in out.items()}

    return score


def main() -> None:
    args = parse_args()
    work, root = Path(args.work), Path(args.data)
    work.mkdir(parents=True, exist_ok=True)
    processor = prompts.load_processor(args.start or args.tokenizer)
    config = weights.read_model_config(args.start) if args.start else shaped(args.shape, processor)
    config = replace(config, compute_dtype=args.compute_dtype)
    processor = replace(processor, rows=config.text.vocab)
    pairs, dev = (
        load_pairs(root, args.splits.split(",")),
        load_pairs(Path(args.dev), [args.dev_split]),
    )
    size = pairs[0].shape[2:4]
    config.check_image(*size)
    cells = (size[0] // config.vision.cell, size[1] // config.vision.cell)
    prompt = prompts.make_prompt(PromptConfig(), processor, config, [[size] * 2])
    print(f"{count(model_specs(config))} parameters, {len(pairs[0])} pairs of {size}")
    if args.start:
        params = weights.load_params(args.start, config)
    else:
        params = comparing_init(config, cells, key=jax.random.key(args.seed))
    step, init = make_step(config, prompt, params, args)
    state, first = restore(work / "state.npz", (params, init(params)))
    score = make_dev_scorer(config, prompt, processor, dev, args.length)
    began, seen, steps = time.time(), [], range(first, args.steps)
    make = partial(make_lesson, pairs, processor, cells, args)
    for number, lesson in zip(steps, ahead(make, steps), strict=True):
        speed = min(1.0, (args.steps - number) / max(1, args.steps * args.decay))
        *state, metrics = step(*state, lesson, jnp.int32(number), jnp.float32(speed))
        seen.append(metrics)  # read at the report: an accelerator need not wait for this thread
        done = number + 1
        if done % args.report == 0:
            row = {
                "step": done,
                "wall_s": round(time.time() - began),
                "cpu_s": round(time.process_time()),
            }
            row |= means(seen)
            row |= score(state[0]) if done % args.evaluate == 0 or done == args.steps else {}
            report(work / "log.jsonl", row)
            seen = []
        if done % args.save == 0 or done == args.steps:
            save(work / "state.npz", state, done)
    weights.save_hf(args.out, state[0], config, source_folder=args.start or args.tokenizer)
    print(f"wrote {args.out}")


def means(seen: list[dict[str, jax.Array]]) -> dict[str, float]:
    """Of every metric, f32[] each, over some steps; waits for them."""
    whole = jax.device_get(seen)
    return {name: round(float(np.mean([float(m[name]) for m in whole])), 4) for name in whole[0]}


def report(path: Path, row: dict) -> None:
    with path.open("a") as file:
        file.write(json.dumps(row) + "\n")
    print(json.dumps(row), flush=True)


def save(path: Path, state, step: int) -> None:
    """All leaves in one file, whole or not there."""
    part = path.with_suffix(".tmp.npz")
    np.savez(part, *map(np.asarray, jax.tree.leaves(tuple(state))), step=step)
    part.replace(path)


def restore(path: Path, state: tuple) -> tuple[tuple, int]:
    """The saved state and its step; the given state at step 0 if nothing is saved."""
    if not path.exists():
        return state, 0
    tree = jax.tree.structure(state)
    with np.load(path) as stored:
        leaves = [jnp.asarray(stored[f"arr_{i}"]) for i in range(tree.num_leaves)]
        return jax.tree.unflatten(tree, leaves), int(stored["step"])


def parse_args() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    add = parser.add_argument
    add("--data", type=place_of, default="data/base", help="folder of the training splits")
    add("--splits", default="base", help="training splits, comma separated")
    add(
        "--dev", type=place_of, default="data/base", help="folder of the split scored along the way"
    )
    add("--dev-split", default="dev", help="that split; it is never trained on")
    add("--shape", default="tiny", choices=list(SHAPES), help="sizes of the model")
    add("--compute-dtype", default="float32", choices=("float32", "bfloat16"), help="of matmuls")
    add("--work", type=place_of, default="runs/tiny_base", help="log and resumable state")
    add(
        "--tokenizer",
        type=place_of,
        default="runs/tiny_tokenizer",
        help="made by make/tiny_tokenizer.py",
    )
    add("--start", type=place_of, help="continue this checkpoint folder instead of starting afresh")
    add("--out", type=place_of, required=True, help="checkpoint folder to write")
    add("--seed", type=seed_of, default=0)
    add("--steps", type=int, default=1000)
    add("--batch", type=int, default=16)
    add("--rate", type=float, default=1e-3)
    add("--warmup", type=int, default=50, help="steps of linear rise of the rate")
    add("--decay", type=float, default=0.3, help="share of steps, the last ones, of linear decay")
    add("--dense", type=float, default=1.0, help="weight of the dense cell labels; 0 = plain SFT")
    add("--length", type=int, default=78, help="longest answer in tokens")
    add("--report", type=int, default=50)
    add("--evaluate", type=int, default=250)
    add("--save", type=int, default=250)
    return parser.parse_args()


if __name__ == "__main__":
    main()
