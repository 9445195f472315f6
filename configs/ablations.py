"""The arms of the paper's two ablations, over any base config; `scripts/study/ablate.py` runs them.

An arm is a function from the base to its own Config; its docstring is what reports call it. What
an arm does not name stays the base's: model, pairs per step, answers, rate, KL, steps.
`full` stands in both studies and is trained once. All spend the same, but for `mixed`, whose pairs
have longer answers.
"""

import dataclasses
import itertools

from dig_jax.config import REWARD_PRESETS, Config, Stage

# Of a true answer to a pair of each bucket, on average: one box is 20, each further one 18.
TOKENS = {"single": 20.0, "dual": 38.0, "mixed": 38.0}


def format_only(base: Config) -> Config:
    """format"""
    return _rewarded(base, "format_only")


def with_iou(base: Config) -> Config:
    """format + IoU"""
    return _rewarded(base, "with_iou")


def with_f1(base: Config) -> Config:
    """format + F1"""
    return _rewarded(base, "with_f1")


def full(base: Config) -> Config:
    """format + F1 + IoU; single, dual, mixed in turn"""
    return _rewarded(base, "full")


def single(base: Config) -> Config:
    """single pairs alone"""
    return _staged(base, Stage(until=base.steps, weights=base.curriculum.stages[0].weights))


def single_dual(base: Config) -> Config:
    """single, then dual to the end"""
    first, second = base.curriculum.stages[:2]
    return _staged(base, first, dataclasses.replace(second, until=base.steps))


def shuffled(base: Config) -> Config:
    """the curriculum's pairs in one mixture, no order"""
    return _staged(base, Stage(until=base.steps, weights=shares_of(base)))


def mixed(base: Config) -> Config:
    """mixed pairs from the first step, for as many tokens of answers"""
    stages = base.curriculum.stages
    tokens = [length * _tokens(stage) for length, stage in zip(_lengths(base), stages, strict=True)]
    only = Stage(until=round(sum(tokens) / TOKENS["mixed"]), weights={"mixed": 1.0})
    curriculum = dataclasses.replace(base.curriculum, stages=(only,))
    return dataclasses.replace(_rewarded(base, "full"), steps=only.until, curriculum=curriculum)


def backwards(base: Config) -> Config:
    """the stages reversed: mixed, dual, single"""
    ends = itertools.accumulate(reversed(_lengths(base)))
    stages = zip(ends, reversed(base.curriculum.stages), strict=True)
    return _staged(base, *(Stage(until=end, weights=stage.weights) for end, stage in stages))


# Each study's arms, in the order of its table; differences are taken from REFERENCE.
STUDIES = {
    "table4": (format_only, with_iou, with_f1, full),
    "curriculum": (single, single_dual, full, shuffled, backwards, mixed),
}
REFERENCE = full
EQUAL = ("pairs_per_step", "rollout", "model")  # and steps, but for `mixed`


def shares_of(base: Config) -> dict[str, float]:
    """Of each bucket in all pairs that the base's curriculum draws."""
    shares = dict.fromkeys(base.data.buckets, 0.0)
    for length, stage in zip(_lengths(base), base.curriculum.stages, strict=True):
        whole = sum(stage.weights.values())
        for bucket, weight in stage.weights.items():
            shares[bucket] += length / base.steps * weight / whole
    return shares


def _rewarded(base: Config, preset: str) -> Config:
    """The base with a preset's weights; its matching, parser and other conventions stay."""
    chosen = REWARD_PRESETS[preset]
    weights = {name: getattr(chosen, name) for name in ("w_format", "w_f1", "w_iou")}
    return dataclasses.replace(base, reward=dataclasses.replace(base.reward, **weights))


def _staged(base: Config, *stages: Stage) -> Config:
    full_reward = _rewarded(base, "full")
    curriculum = dataclasses.replace(base.curriculum, stages=stages)
    return dataclasses.replace(full_reward, curriculum=curriculum)


def _tokens(stage: Stage) -> float:
    """Of a true answer to a pair of the stage, on average."""
    whole = sum(stage.weights.values())
    return sum(TOKENS[bucket] * weight / whole for bucket, weight in stage.weights.items())


def _lengths(base: Config) -> list[int]:
    """Steps of each stage of the base's curriculum."""
    untils = [0, *(stage.until for stage in base.curriculum.stages)]
    return [end - start for start, end in itertools.pairwise(untils)]
