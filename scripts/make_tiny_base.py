"""Make the tiny base model that the repository ships: a cold-started Qwen3-VL of 1.6 M parameters.

    python scripts/make_pairs.py --root data/base --preset tiny-base
    python scripts/make_tiny_base.py --data data/base --work runs/tiny_base --out assets/tiny_qwen3vl

Seeded and resumable: the same command continues from the last checkpoint in --work. Trained on
the split `base` only; `dev` (other scenes) chooses nothing but is scored along the way.
"""

import argparse
import json
import time
from functools import partial
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np

from dig_jax import prompt as prompts
from dig_jax import sft
from dig_jax.boxes import unit_from_px
from dig_jax.config import OptimConfig, PromptConfig
from dig_jax.data.records import decode, open_split, read_shard
from dig_jax.model.coldinit import comparing_init
from dig_jax.model.params import ModelConfig, TextConfig, VisionConfig, count, model_specs
from dig_jax.optim import make_optimizer
from dig_jax.rollout import make_sampler


def tiny_config(processor: prompts.Processor) -> ModelConfig:
    """Four text layers of 128, two vision layers of 96, one deepstack tap, patch 8."""
    token = processor.tokenizer.convert_tokens_to_ids
    return ModelConfig(
        text=TextConfig(
            vocab=512, width=128, mlp=384, layers=4, heads=8, kv_heads=4, head_dim=32,
            rope_theta=100.0, mrope_section=(6, 5, 5), tied=False,
        ),
        vision=VisionConfig(
            width=96, mlp=256, depth=2, heads=3, out=128, positions=256, deepstack=(0,), patch=8
        ),
        image_token=token("<|image_pad|>"),
        video_token=token("<|video_pad|>"),
        vision_start=token("<|vision_start|>"),
        vision_end=token("<|vision_end|>"),
        eos_tokens=processor.stop_tokens,
        pad_token=processor.tokenizer.pad_token_id,
    )  # fmt: skip


def load_pairs(folder: Path) -> tuple[np.ndarray, list[np.ndarray]]:
    """All finished shards: images u8[n,2,Y,X,3] and boxes (unit frame) of each pair."""
    images, boxes = [], []
    for shard in open_split(folder, allow_partial=True):
        for record in read_shard(shard):
            pair = decode(record)
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
    gain = rng.uniform(0.85, 1.15)
    shift = rng.uniform(-12, 12)
    return np.clip(images * gain + shift, 0, 255).astype(np.uint8), boxes


def make_lesson(images, boxes, chosen, processor, cells, length, cfg, rng) -> sft.Lesson:
    rows = []
    for i in chosen:
        pictures, truth = augment(images[i], boxes[i], rng)
        truth = sft.reading_order(truth)
        tokens, weight = sft.answer_tokens(processor, truth, length, cfg)
        rows.append((pictures, tokens, weight, *sft.cell_labels(truth, *cells)))
    fields = (np.stack(column) for column in zip(*rows, strict=True))
    return sft.Lesson(*fields)


def main() -> None:
    args = parse_args()
    work = Path(args.work)
    work.mkdir(parents=True, exist_ok=True)
    processor = prompts.load_processor(args.tokenizer)
    config = tiny_config(processor)
    images, boxes = load_pairs(Path(args.data) / "base")
    dev_images, dev_boxes = load_pairs(Path(args.data) / "dev")
    height, width = images.shape[2:4]
    config.check_image(height, width)
    cells = (height // config.vision.cell, width // config.vision.cell)
    prompt = prompts.make_prompt(PromptConfig(), processor, config, [[(height, width)] * 2])
    print(f"{count(model_specs(config))} parameters, {len(images)} pairs, prompt {prompt.tokens.shape}")

    cfg = sft.SftConfig(dense_weight=args.dense)
    optim = OptimConfig(rate=args.rate, warmup=50, b2=0.98, weight_decay=0.01)
    params = comparing_init(config, cells, key=jax.random.key(args.seed))
    optimizer = make_optimizer(optim, args.steps, params)
    loss = sft.make_lesson_loss(config, prompt, cfg)

    @partial(jax.jit, donate_argnums=(0, 1))
    def update(params, opt_state, lesson, step, speed):
        (_, metrics), grads = jax.value_and_grad(loss, has_aux=True)(params, lesson)
        moved, opt_state, norm = optimizer.update(grads, opt_state, params, step)
        params = jax.tree.map(lambda p, m: p + speed * (m - p), params, moved)
        return params, opt_state, metrics | {"grad_norm": norm}

    opt_state, start = optimizer.init(params), 0
    saved = work / "state.npz"
    if saved.exists():
        params, opt_state, start = restore(saved, params, opt_state)
    sample = jax.jit(make_sampler(config, group=1, max_tokens=args.length, temperature=0.0))
    log = open(work / "log.jsonl", "a", buffering=1)
    began, sums, dead = time.time(), {}, 0
    for step in range(start, args.steps):
        rng = np.random.default_rng([args.seed, step])
        chosen = rng.integers(0, len(images), args.batch)
        lesson = make_lesson(images, boxes, chosen, processor, cells, args.length, cfg, rng)
        left = (args.steps - step) / max(1, args.steps * args.decay)
        params, opt_state, metrics = update(
            params, opt_state, lesson, jnp.int32(step), jnp.float32(min(1.0, left))
        )
        for name, value in metrics.items():
            sums[name] = sums.get(name, 0.0) + float(value)
        if (step + 1) % args.report == 0:
            row = {k: round(v / args.report, 4) for k, v in sums.items()}
            row |= {"step": step + 1, "wall_s": round(time.time() - began), "cpu_s": round(time.process_time())}
            if (step + 1) % args.evaluate == 0:
                row |= score(sample, params, prompt, processor, dev_images, dev_boxes, args.dev)
            log.write(json.dumps(row) + "\n")
            print(json.dumps(row), flush=True)
            sums = {}
        if (step + 1) % args.save == 0 or step + 1 == args.steps:
            save(saved, params, opt_state, step + 1)


def save(path: Path, params, opt_state, step: int) -> None:
    leaves = jax.tree.leaves((params, opt_state))
    part = path.with_suffix(".tmp.npz")
    np.savez(part, step=step, **{f"leaf{i}": np.asarray(x) for i, x in enumerate(leaves)})
    part.replace(path)


def restore(path: Path, params, opt_state):
    tree = jax.tree.structure((params, opt_state))
    with np.load(path) as stored:
        leaves = [jnp.asarray(stored[f"leaf{i}"]) for i in range(tree.num_leaves)]
        return *jax.tree.unflatten(tree, leaves), int(stored["step"])


def score(sample, params, prompt, processor, images, boxes, pairs: int) -> dict:
    """Greedy F1@0.5, mean IoU, format and count accuracy by number of differences."""
    from dig_jax.reward.parse import parse

    texts = []
    for start in range(0, pairs, 50):
        batch = images[start : start + 50]
        rows = prompts.repeat_prompt(prompt, len(batch))
        rollout = sample(params, rows, batch, jax.random.key(0))
        texts += prompts.decode_answers(
            processor, np.asarray(rollout.tokens[:, 0]), np.asarray(rollout.lengths[:, 0])
        )
    rows = []
    for text, truth in zip(texts, boxes, strict=False):
        found = parse(text)
        rows.append((len(truth), len(found.boxes_unit), found.ok, *f1_iou(found.boxes_unit, truth)))
    n, count_found, ok, f1, iou = (np.array(c, float) for c in zip(*rows, strict=True))
    out = {"format": ok.mean(), "f1": f1.mean(), "iou": iou.mean(), "count": (n == count_found).mean()}
    for k in np.unique(n):
        at = n == k
        out |= {f"f1_{k:.0f}": f1[at].mean(), f"count_{k:.0f}": (count_found[at] == k).mean()}
    return {name: round(float(v), 3) for name, v in out.items()} | {"example": texts[0]}


def f1_iou(pred: np.ndarray, true: np.ndarray) -> tuple[float, float]:
    from scipy.optimize import linear_sum_assignment

    if not len(pred):
        return 0.0, 0.0
    low = np.maximum(pred[:, None, :2], true[None, :, :2])
    high = np.minimum(pred[:, None, 2:], true[None, :, 2:])
    shared = np.prod(np.clip(high - low, 0, None), -1)
    area = lambda b: np.prod(b[:, 2:] - b[:, :2], -1)  # noqa: E731
    iou = shared / (area(pred)[:, None] + area(true)[None] - shared + 1e-9)
    i, j = linear_sum_assignment(-iou)
    return 2 * (iou[i, j] >= 0.5).sum() / (len(pred) + len(true)), iou[i, j].sum() / max(iou.shape)


def parse_args() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--data", default="data/base")
    parser.add_argument("--work", default="runs/tiny_base")
    parser.add_argument("--tokenizer", default="assets/tiny_qwen3vl")
    parser.add_argument("--out", default="assets/tiny_qwen3vl")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--steps", type=int, default=8000)
    parser.add_argument("--batch", type=int, default=16)
    parser.add_argument("--rate", type=float, default=1e-3)
    parser.add_argument("--decay", type=float, default=0.3, help="last share of steps, linear to 0")
    parser.add_argument("--dense", type=float, default=1.0)
    parser.add_argument("--length", type=int, default=72)
    parser.add_argument("--dev", type=int, default=150)
    parser.add_argument("--report", type=int, default=50)
    parser.add_argument("--evaluate", type=int, default=500)
    parser.add_argument("--save", type=int, default=250)
    return parser.parse_args()


if __name__ == "__main__":
    main()
