"""The last of the shipped base's training: no labels, all tokens of an answer alike, to rate 0.

Until then last digits weigh .2, what stands between numbers .3, and labels are said by rows of the
vocabulary that no text has: of sampled answers one in eleven is no list of boxes, most of them for
such a row in place of a digit. Hardware: 2 CPU cores. Time: .7 s a step. Commands: docs/base.md.
"""

import dataclasses

from configs import tiny_base_end
from dig_jax.config import CheckpointConfig, Config, CurriculumConfig, ModelSource, Stage

STEPS = 300


def get_config() -> Config:
    before = tiny_base_end.get_config()
    return dataclasses.replace(
        before,
        name="tiny_base_polish",
        steps=STEPS,
        run_dir="runs/tiny_base_polish",
        model=ModelSource(source="runs/tiny_unpolished"),
        sft=dataclasses.replace(
            before.sft,
            third_digit=1.0,
            scaffold=1.0,
            changed_weight=0.0,
            things_weight=0.0,
            asked_weight=0.0,
        ),
        optim=dataclasses.replace(before.optim, warmup=10, schedule="linear"),
        curriculum=CurriculumConfig(stages=(Stage(until=STEPS, weights={"base": 1.0}),)),
        eval=dataclasses.replace(before.eval, every=STEPS),
        checkpoint=CheckpointConfig(every=100, keep=3, best=""),
    )
