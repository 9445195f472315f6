"""The arms of a search: from which mixture of pairs GRPO learns to count three differences.

    python -m scripts.study.ablate --arms configs/mixture.py --root runs/mixture ...

An arm is as in `ablations.py`; the base is `tiny_cpu`.
"""

import dataclasses

from dig_jax.config import Config, Stage


def as_it_is(base: Config) -> Config:
    """the base's stages: single to 10 %, dual to 25 %, then mixed alone"""
    return base


def sooner(base: Config) -> Config:
    """single to 15 %, dual to 40 %, then mixed alone"""
    return _staged(base, 0.15, 0.4, {"mixed": 1.0})


def stirred(base: Config) -> Config:
    """single to 25 %, dual to 55 %, then mixed (.7) with .15 of each"""
    return _staged(base, 0.25, 0.55, {"single": 0.15, "dual": 0.15, "mixed": 0.7})


def mixed_alone(base: Config) -> Config:
    """mixed pairs alone"""
    return _with(base, Stage(until=base.steps, weights={"mixed": 1.0}))


STUDIES = {"mixture": (stirred, sooner, as_it_is, mixed_alone)}
REFERENCE = as_it_is
EQUAL = ("steps", "pairs_per_step", "model")


def _staged(base: Config, single: float, dual: float, last: dict[str, float]) -> Config:
    """The base's first two mixtures until these shares of its steps, then the last."""
    first, second = (stage.weights for stage in base.curriculum.stages[:2])
    return _with(
        base,
        Stage(until=round(single * base.steps), weights=first),
        Stage(until=round(dual * base.steps), weights=second),
        Stage(until=base.steps, weights=last),
    )


def _with(base: Config, *stages: Stage) -> Config:
    return dataclasses.replace(base, curriculum=dataclasses.replace(base.curriculum, stages=stages))
