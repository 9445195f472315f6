"""The arms of a search: from which mixture of pairs GRPO learns to count three differences.

    python -m scripts.study.ablate --arms configs/mixture.py --root runs/mixture ...

An arm is as in `ablations.py`; the base is `tiny_cpu`.
"""

import dataclasses

from dig_jax.config import Config, Stage


def as_it_is(base: Config) -> Config:
    """the base's stages"""
    return base


def sooner(base: Config) -> Config:
    """single to 15 %, dual to 40 %, then mixed alone"""
    return _staged(base, 0.15, 0.4)


def soonest(base: Config) -> Config:
    """single to 10 %, dual to 25 %, then mixed alone"""
    return _staged(base, 0.1, 0.25)


def mixed_alone(base: Config) -> Config:
    """mixed pairs alone"""
    return _with(base, Stage(until=base.steps, weights={"mixed": 1.0}))


STUDIES = {"mixture": (as_it_is, sooner, soonest, mixed_alone)}
REFERENCE = as_it_is
EQUAL = ("steps", "pairs_per_step", "model")


def _staged(base: Config, single: float, dual: float) -> Config:
    """The base's first two mixtures until these shares of its steps, then mixed pairs alone."""
    first, second = (stage.weights for stage in base.curriculum.stages[:2])
    return _with(
        base,
        Stage(until=round(single * base.steps), weights=first),
        Stage(until=round(dual * base.steps), weights=second),
        Stage(until=base.steps, weights={"mixed": 1.0}),
    )


def _with(base: Config, *stages: Stage) -> Config:
    return dataclasses.replace(base, curriculum=dataclasses.replace(base.curriculum, stages=stages))
