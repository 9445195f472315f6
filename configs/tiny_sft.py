"""The supervised control of `tiny_cpu`: the shipped base learns on from the same pairs' true boxes.

Hardware: 2 CPU cores. 450 steps took the CPU-seconds of 100 of GRPO from an early base; by what
`learners.py` reckons, 3.4 a step, those of 130 today. Not measured since, as the numbers to expect:
docs/results/controls.md. Plain cross-entropy, as a released model is tuned: --set
sft.changed_weight=0 and all token weights 1.
"""

import dataclasses

from configs import tiny_base, tiny_cpu
from dig_jax.config import (
    Config,
    CurriculumConfig,
    OptimConfig,
    SftConfig,
    Stage,
)

STEPS = 450


def get_config() -> Config:
    return dataclasses.replace(
        tiny_cpu.get_config(),
        name="tiny_sft",
        learner="sft",
        steps=STEPS,
        run_dir="runs/tiny_sft",
        # as the base was made, without questions
        sft=SftConfig(augment=True, changed_weight=1.0, **tiny_base.PLACES),
        optim=OptimConfig(rate=3e-4, warmup=10, schedule="wsd", decay=0.5, b2=0.98),
        curriculum=CurriculumConfig(
            stages=(Stage(until=STEPS, weights={"single": 1.0, "dual": 1.0, "mixed": 1.0}),)
        ),
    )
