"""The arms of study 3: what training on differences does to questions about single pictures.

    python -m scripts.study.ablate --arms configs/transfer.py --suite data/questions ...

The rival is the paper's: supervised training on referring expressions alone, about the pictures of
training splits (`data questions --allow-training --splits single,dual,mixed`, in data/tiny_asked).
"""

import dataclasses

from configs import learners, tiny_base
from dig_jax.config import Config, SftConfig

ASKED = "data/tiny_asked"
# Steps of expressions alone that take as long as one of GRPO: one picture each, a short answer.
REFERRING_STEPS = 7.7


def grpo(base: Config) -> Config:
    """GRPO on differences"""
    return base


def no_kl(base: Config) -> Config:
    """GRPO on differences without KL"""
    return dataclasses.replace(base, grpo=dataclasses.replace(base.grpo, kl_coef=0.0))


def supervised(base: Config) -> Config:
    """supervised on differences"""
    return learners.supervised(base)


def referring(base: Config) -> Config:
    """supervised on referring expressions alone"""
    like = learners.of_steps(base, round(base.steps * REFERRING_STEPS))
    rows = like.pairs_per_step
    sft = SftConfig(
        pairs_weight=0.0,
        questions_per_step=rows,
        questions_root=ASKED,
        questions="refcoco_val",
        augment=True,
        **tiny_base.PLACES,
    )
    return dataclasses.replace(like, sft=sft)


STUDIES = {"transfer": (grpo, no_kl, supervised, referring)}
REFERENCE = grpo
EQUAL = learners.EQUAL
