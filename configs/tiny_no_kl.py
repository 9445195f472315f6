"""Control of tiny_cpu: the same budget and curriculum without the KL to the base."""

import dataclasses

from configs import tiny_cpu
from dig_jax.config import Config


def get_config() -> Config:
    base = tiny_cpu.get_config()
    grpo = dataclasses.replace(base.grpo, kl_coef=0.0)
    return dataclasses.replace(base, name="tiny_no_kl", run_dir="runs/tiny_no_kl", grpo=grpo)
