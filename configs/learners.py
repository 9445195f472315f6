"""The arms of study 1: one base continued by GRPO and by supervised training, at equal seconds.

    python -m scripts.study.ablate --arms configs/learners.py --root runs/learners ...

An arm is as in `ablations.py`. What is meant to be equal are the seconds of their steps.
"""

import dataclasses

from configs import tiny_sft
from configs.ablations import shares_of
from dig_jax.config import Config, SftConfig, Stage

# Supervised steps that take as long as one of GRPO, on one core: measured, tables tell the seconds.
DENSE_STEPS, PLAIN_STEPS = 3.4, 4.4


def grpo(base: Config) -> Config:
    """GRPO"""
    return base


def supervised(base: Config) -> Config:
    """supervised, with dense labels"""
    trained = of_steps(base, round(base.steps * DENSE_STEPS))
    return dataclasses.replace(trained, sft=tiny_sft.get_config().sft)


def plain(base: Config) -> Config:
    """supervised, cross-entropy alone"""
    trained = of_steps(base, round(base.steps * PLAIN_STEPS))
    return dataclasses.replace(trained, sft=SftConfig(augment=True))


def of_steps(base: Config, steps: int) -> Config:
    """Supervised training on the pairs of the base's curriculum, in one mixture."""
    stages = (Stage(until=steps, weights=shares_of(base)),)
    return dataclasses.replace(
        base,
        learner="sft",
        steps=steps,
        optim=tiny_sft.get_config().optim,
        curriculum=dataclasses.replace(base.curriculum, stages=stages),
    )


STUDIES = {"learners": (grpo, supervised, plain)}
REFERENCE = grpo
EQUAL = ("pairs_per_step", "rollout", "model")
