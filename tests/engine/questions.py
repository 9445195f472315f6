"""Groups of questions about random pictures of many sizes, for the small model."""

from dataclasses import dataclass, replace

import numpy as np

from dig_jax.engine import jobs
from dig_jax.inputs.decoding import Decoding
from tests import tiny_model

CONFIG = tiny_model.CONFIG
MOST = 20  # tokens of an answer
GREEDY = Decoding(0.0)


@dataclass(frozen=True)
class Plain:
    """One question by itself, as a sampler would be asked it."""

    ids: list[int]
    sizes: list[tuple[int, int]]
    pictures: list[np.ndarray]


def make_groups(count: int, *, seed: int = 0, how: Decoding = GREEDY, most: int = MOST):
    """(groups, {tag: Plain}): up to two pictures and three questions each."""
    rng, groups, plain = np.random.default_rng(seed), [], {}
    for g in range(count):
        sizes = [tuple((rng.integers(1, 4, 2) * CONFIG.vision.cell).tolist()) for _ in range(g % 3)]
        pictures = [rng.integers(0, 256, (*size, 3), np.uint8) for size in sizes]
        shown = [CONFIG.vision_start, CONFIG.image_token, CONFIG.vision_end] * len(sizes)
        head = [int(rng.choice(tiny_model.WORDS)), *shown]
        group = jobs.Group(f"group {g}", (), sizes, lambda some=pictures: some)
        for q in range(rng.integers(1, 4)):
            ids = head + rng.choice(tiny_model.WORDS, rng.integers(1, 12)).tolist()
            prefix, suffix = jobs.cut_prompt(CONFIG, ids)
            seed_of, tokens = jobs.seed_words(seed, f"{g}/{q}", 0), int(rng.integers(3, most + 1))
            group.asked.append(jobs.Asked((g, q), suffix, how, seed_of, tokens))
            plain[g, q] = Plain(ids, sizes, pictures)
        groups.append(replace(group, prefix=prefix))
    return groups, plain
