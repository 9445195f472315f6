"""Qwen3-VL-4B-Thinking on a TPU slice: `pod_8b.py` with the smaller model.

Hardware: v5e-16 as it stands; other slices as there. Time and result: not run yet.
"""

from configs import pod_8b
from dig_jax.config import Config


def get_config() -> Config:
    return pod_8b.get_config(size="4B")
