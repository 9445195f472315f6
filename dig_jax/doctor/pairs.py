"""What can be known of a run's pairs, their true answers and its reward before it starts.

Functions as in `checks`: the configuration and what other checks have found in, a `Finding` out.
"""

import numpy as np

from dig_jax.boxes import boxes_text, reading_order
from dig_jax.config import Config
from dig_jax.data.feed.checks import check_scored, drawn_splits, scored_splits
from dig_jax.data.feed.curriculum import index_table
from dig_jax.data.feed.fetch import render_root
from dig_jax.data.feed.source import PairSource
from dig_jax.doctor.findings import Finding
from dig_jax.doctor.selftest import Probe, check_reward
from dig_jax.inputs.prompt import Processor, encode_answer
from dig_jax.model.inputs import PromptInputs

PROBED = 64  # first pairs of a split whose true answers are read


def split(cfg: Config, name: str) -> Finding:
    """There, whole, of the right size, and fit for what it is scored for. Value: its PairSource."""
    source = PairSource(cfg.data, name)
    if not len(source):
        remedy = (
            f"make some with `python -m dig_jax.data render --root {render_root(cfg.data.root)} "
            f"--split {name} --pairs N --k K`"
        )
        return Finding("0 pairs", rule="a run draws from it, or scores it", remedy=remedy)
    if name in scored_splits(cfg):
        check_scored(cfg, name, source)
    counts = sorted({len(source.true_boxes(i)) for i in probed(source)}) or [0]
    boxes = " to ".join(str(count) for count in dict.fromkeys((counts[0], counts[-1])))
    noun = "difference" if boxes == "1" else "differences"
    text = f"{len(source)} pairs, {boxes} {noun} each in the first {len(probed(source))}"
    return Finding(text, source)


def curriculum(cfg: Config, *sources: PairSource) -> Finding:
    """How often each bucket is gone through; `sources` in the order of `drawn_splits`."""
    sizes = dict(zip(drawn_splits(cfg), map(len, sources), strict=True))
    drawn = np.bincount(index_table(cfg, sizes).bucket, minlength=len(cfg.data.buckets))
    draws = {name: int(drawn[cfg.data.buckets.index(name)]) for name in sizes}
    epochs = (f"{name} {draws[name] / size:.1f}" for name, size in sizes.items())
    text = f"{cfg.steps} steps x {cfg.pairs_per_step} pairs, {len(cfg.curriculum.stages)} stages; "
    return Finding(f"{text}epochs: {', '.join(epochs)}")


def disjoint(cfg: Config, *sources: PairSource) -> Finding:
    """No scored pair shares a stored picture with a training pair.

    sources  in the order of `drawn_splits`, then those of `compared_splits`

    Identical pairs (eval.controls) are left out: no answer of theirs can be learned by heart.
    """
    trained, scored = drawn_splits(cfg), compared_splits(cfg)
    known = {}
    for name, source in zip(trained, sources, strict=False):
        for index in range(len(source)):
            known |= dict.fromkeys(source.picture_hashes(index), (name, index))
    for name, source in zip(scored, sources[len(trained) :], strict=True):
        found = ((i, source.picture_hashes(i) & known.keys()) for i in range(len(source)))
        shared = [(i, known[hashes.pop()]) for i, hashes in found if hashes]
        if shared:
            at, (bucket, other) = shared[0]
            text = f"{len(shared)} of {len(source)} pairs of {name} share pictures with training "
            text += f"pairs, first pair {at} with pair {other} of {bucket}"
            rule = "pairs that were trained on say nothing about others"
            remedy = f"make {name} again with another --seed, or name another split"
            return Finding(text, rule=rule, remedy=remedy)
    pairs = sum(map(len, sources[: len(trained)]))
    return Finding(f"{', '.join(scored)}: no picture among those of {pairs} training pairs")


def compared_splits(cfg: Config) -> list[str]:
    """Splits whose scores are to tell about pairs that were never trained on."""
    return [name for name in scored_splits(cfg) if name != cfg.eval.controls]


def answers(cfg: Config, opened: tuple[Processor, PromptInputs], *sources: PairSource) -> Finding:
    """Tokens of true answers, thoughts not counted; `sources` in the order of `drawn_splits`."""
    limit, names = cfg.rollout.max_tokens, drawn_splits(cfg)
    lengths = {
        name: [answer_length(opened[0], source.true_boxes(i)) for i in probed(source)]
        for name, source in zip(names, sources, strict=True)
    }
    longest = {name: max(found, default=0) for name, found in lengths.items()}
    text = ", ".join(f"{name} {most}" for name, most in longest.items())
    text = f"longest true: {text} tokens; rollout.max_tokens={limit}"
    over = {name: sum(n > limit for n in found) for name, found in lengths.items()}
    worst = max(over, key=over.get)
    if not over[worst]:
        return Finding(text)
    rule = f"{over[worst]} of the first {len(lengths[worst])} pairs of {worst} cannot be answered"
    remedy = f"use --set rollout.max_tokens={max(longest.values())} or more"
    return Finding(text, rule=rule, remedy=remedy)


def answer_length(processor: Processor, boxes_unit: np.ndarray) -> int:
    """Tokens of the true answer to boxes f32[n, 4], end token included."""
    return len(encode_answer(processor, boxes_text(reading_order(boxes_unit))))


def reward(cfg: Config, *sources: PairSource) -> Finding:
    """`selftest.check_reward` on a pair of each bucket, of its first ones that with most boxes."""
    probes = []
    for name, source in zip(drawn_splits(cfg), sources, strict=True):
        index = max(probed(source), key=lambda i: len(source.true_boxes(i)))
        probes.append(Probe(index, cfg.data.buckets.index(name), source.true_boxes(index)))
    return check_reward(cfg, probes)


def probed(source: PairSource) -> range:
    """Numbers of the pairs that are looked into."""
    return range(min(PROBED, len(source)))
