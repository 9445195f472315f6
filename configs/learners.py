"""The arms of study 1: one base continued by GRPO and by supervised training, at equal seconds.

    python -m scripts.study.ablate --arms configs/learners.py --root runs/learners ...

An arm is as in `ablations.py`. What is meant to be equal are the seconds of their steps.
"""

import dataclasses

from configs import tiny_sft
from dig_jax.config import Config, SftConfig, Stage

# Supervised steps that take as long as one of GRPO, on one core: measured, tables tell the seconds.
DENSE_STEPS, PLAIN_STEPS = 3.4, 4.4


def grpo(base: Config) -> Config:
    """GRPO"""
    return base


def supervised(base: Config) -> Config:
    """supervised, with dense labels"""
    return _supervised(base, tiny_sft.get_config().sft, DENSE_STEPS)


def plain(base: Config) -> Config:
    """supervised, cross-entropy alone"""
    return _supervised(base, SftConfig(augment=True), PLAIN_STEPS)


STUDIES = {"learners": (grpo, supervised, plain)}
REFERENCE = grpo
EQUAL = ("pairs_per_step", "rollout", "model")


def _supervised(base: Config, sft: SftConfig, each: float) -> Config:
    """On the pairs of the base's last stage, which all buckets are in."""
    steps, like = round(base.steps * each), tiny_sft.get_config()
    stages = (Stage(until=steps, weights=base.curriculum.stages[-1].weights),)
    return dataclasses.replace(
        base,
        learner="sft",
        steps=steps,
        sft=sft,
        optim=like.optim,
        curriculum=dataclasses.replace(base.curriculum, stages=stages),
    )
