"""Text -> boxes -> matching -> reward: one batched call beside a loop over answers, on one core.

    .venv/bin/python -m scripts.bench.reward [--answers 4096] [--rounds 5]

The process is pinned to one core with one thread, and seconds are its CPU seconds. Both sides read
the same texts in turn; the table holds medians over the rounds of completions per CPU second, and
the medians of each round's ratio. The loop is what one writes first: json.loads, or a regular
expression where that fails, NumPy for the costs, scipy for the assignment. Its rewards must equal
the batched call's, or the program stops.

Answers: "near" are the true boxes moved by a few thousandths (what a trained policy writes),
"random" have nothing to do with the truth (where assignment is hardest), "broken" are near ones of
which a third are cut off or wrapped in prose (read by the full parser one by one).
"""

import argparse
import json
import os
import re
import time
from statistics import median

# before jax is imported: one thread, so that CPU seconds are seconds of one core
os.environ["XLA_FLAGS"] = "--xla_cpu_multi_thread_eigen=false intra_op_parallelism_threads=1"
os.environ |= dict.fromkeys(("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS"), "1")

import jax
import numpy as np
from scipy.optimize import linear_sum_assignment

from dig_jax.boxes import BoxSet, pad_boxes
from dig_jax.config import RewardConfig
from dig_jax.reward.parse_batch import parse_batch
from dig_jax.reward.reward import make_reward, score_texts

SIDE, MOST, GROUP = 1000, 16, 8
CASES = (  # name, boxes per answer from, to, kind
    ("1-4 near", 1, 4, "near"),
    ("1-4 random", 1, 4, "random"),
    ("1-4 broken", 1, 4, "broken"),
    ("0-16 near", 0, 16, "near"),
    ("0-16 random", 0, 16, "random"),
    ("16 near", 16, 16, "near"),
    ("16 random", 16, 16, "random"),
)


def answers(kind: str, low: int, high: int, count: int) -> tuple[list[list[str]], BoxSet]:
    """[B][G] texts and their truth BoxSet[B, 16]; the numbers of boxes are uniform in low..high."""
    rng = np.random.default_rng(0)
    truth = [_boxes(rng, rng.integers(low, high + 1)) for _ in range(count // GROUP)]
    texts = [[_answer(rng, kind, low, high, true) for _ in range(GROUP)] for true in truth]
    return texts, pad_boxes([boxes / SIDE for boxes in truth], MOST)


def _boxes(rng, count: int) -> np.ndarray:
    corner = rng.integers(0, 800, (count, 2))
    return np.concatenate([corner, corner + rng.integers(40, 200, (count, 2))], axis=1)


def _answer(rng, kind: str, low: int, high: int, true: np.ndarray) -> str:
    if kind == "random":
        boxes = _boxes(rng, rng.integers(low, high + 1))
    else:
        boxes = np.clip(rng.permutation(true) + rng.integers(-9, 10, true.shape), 0, SIDE)
    text = json.dumps([{"bbox_2d": box, "label": "difference"} for box in boxes.tolist()])
    if kind != "broken" or rng.random() > 1 / 3:
        return text
    return text[: rng.integers(1, len(text) + 1)] if rng.random() < 0.5 else f"I see {text}"


_FOUR = re.compile(r"\[\s*(\d+)\s*,\s*(\d+)\s*,\s*(\d+)\s*,\s*(\d+)\s*\]")


def loop(texts: list[list[str]], truth: BoxSet) -> np.ndarray:
    """The same reward, answer by answer; [B, G]."""
    totals = []
    for group, boxes, valid in zip(texts, truth.boxes, truth.valid, strict=True):
        totals.append([loop_reward(text, boxes[valid]) for text in group])
    return np.array(totals)


def loop_reward(text: str, true: np.ndarray) -> float:
    try:
        boxes = [item["bbox_2d"] for item in json.loads(text)]
        well_formed = True
    except (ValueError, TypeError, KeyError):
        boxes = [[int(x) for x in match] for match in _FOUR.findall(text)]
        well_formed = False
    pred = np.array(boxes, np.float32).reshape(-1, 4) / np.float32(SIDE)
    n, m = len(pred), len(true)
    if not n or not m:
        return float(well_formed) + 2.0 * (n == m)
    a, b = pred[:, None], true[None]
    shared = _area(np.maximum(a[..., :2], b[..., :2]), np.minimum(a[..., 2:], b[..., 2:]))
    hull = _area(np.minimum(a[..., :2], b[..., :2]), np.maximum(a[..., 2:], b[..., 2:]))
    union = _area(a[..., :2], a[..., 2:]) + _area(b[..., :2], b[..., 2:]) - shared
    iou = shared / union
    giou = iou - (hull - union) / hull
    rows, columns = linear_sum_assignment(5 * np.abs(a - b).sum(-1) - 2 * giou)
    matched = iou[rows, columns]
    f1 = 2 * (matched >= 0.5).sum() / (n + m)
    return float(well_formed) + f1 + matched.sum() / max(n, m)


def _area(low, high):
    sides = np.clip(high - low, 0, None)
    return sides[..., 0] * sides[..., 1]


def seconds(function) -> tuple[float, object]:
    start = time.process_time()
    result = function()
    return time.process_time() - start, result


def measure(kind: str, low: int, high: int, count: int, rounds: int) -> list[float]:
    """Completions per CPU second: batched, its parsing alone, the loop; and the median ratio."""
    cfg = RewardConfig()
    reward_fn = make_reward(cfg)
    texts, truth = answers(kind, low, high, count)
    ended = np.ones((len(texts), GROUP), bool)
    flat = [text for group in texts for text in group]

    def batched():
        return np.asarray(score_texts(texts, ended, truth, reward_fn, cfg)[0].total)

    def read():
        return parse_batch(flat, ended.ravel(), think=cfg.think, max_boxes=cfg.max_boxes)

    batched()  # compiles
    taken = []
    for _ in range(rounds):
        ours, got = seconds(batched)
        theirs, want = seconds(lambda: loop(texts, truth))
        # float32 sums of up to 16 terms near 1; an IoU on the threshold may fall either way
        far = np.abs(got - want) > 1e-4
        if far.mean() > 1e-3:
            raise SystemExit(f"{far.sum()} of {far.size} rewards differ; the figures mean nothing")
        taken.append((ours, seconds(read)[0], theirs))
    speeds = [len(flat) / median(side) for side in zip(*taken, strict=True)]
    return [*speeds, median(theirs / ours for ours, _, theirs in taken)]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--answers", type=int, default=4096)
    parser.add_argument("--rounds", type=int, default=5)
    args = parser.parse_args()
    os.sched_setaffinity(0, {min(os.sched_getaffinity(0))})
    print(f"{args.answers} answers in groups of {GROUP}, padded to {MOST} x {MOST}; jax "
          f"{jax.__version__}; completions per CPU second of one core")  # fmt: skip
    print("| boxes | batched | its parsing alone | loop | ratio |\n|---|---|---|---|---|")
    for name, low, high, kind in CASES:
        ours, reading, theirs, ratio = measure(kind, low, high, args.answers, args.rounds)
        print(f"| {name} | {ours:,.0f} | {reading:,.0f} | {theirs:,.0f} | {ratio:.1f} |")


if __name__ == "__main__":
    main()
