"""What both sides of `scripts.bench.grpo` do, and how it is timed."""

import time
from dataclasses import dataclass

QUESTION = "Find every difference between the two images. Answer with a JSON list of bbox_2d boxes."
BETA, RATE = 0.005, 1e-7
SLICE = 4  # pairs of a slice of our update, as configs/tiny_cpu.py had them


@dataclass(frozen=True)
class Task:
    """What both sides do.

    pairs x group answers of at most `tokens` tokens to images [height, width]; `steps` are counted
    """

    folder: str
    images: str  # .npy, u8[pairs, 2, height, width, 3]
    pairs: int
    group: int
    tokens: int
    warm: int
    steps: int
    ends: bool = False  # answers end where the model ends them, else all have `tokens`


def cheap_reward(text: str) -> float:
    """The share of digits in a text: something to differ by, computed in no time."""
    return sum(c.isdigit() for c in text) / max(1, len(text))


def cpu_seconds(function) -> float:
    start = time.process_time()
    function()
    return time.process_time() - start
