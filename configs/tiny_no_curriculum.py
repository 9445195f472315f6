"""Control of tiny_cpu: the same budget, all three buckets in equal parts from the first step."""

import dataclasses

from configs import tiny_cpu
from dig_jax.config import Config, CurriculumConfig, Stage


def get_config() -> Config:
    base = tiny_cpu.get_config()
    stage = Stage(until=base.steps, weights={"single": 1.0, "dual": 1.0, "mixed": 1.0})
    curriculum = CurriculumConfig(stages=(stage,))
    return dataclasses.replace(
        base, name="tiny_no_curriculum", run_dir="runs/tiny_no_curriculum", curriculum=curriculum
    )
