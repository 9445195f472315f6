"""The arms of a search: which settings make GRPO learn fastest from the shipped base.

    python -m scripts.study.ablate --arms configs/grpo_settings.py --root runs/settings ...

Each arm changes one setting of the base, which is `tiny_cpu`; an arm of more answers takes longer:
the tables tell the seconds.
"""

from collections.abc import Callable

from dig_jax.common import typed
from dig_jax.config import Config


def as_it_is(config: Config) -> Config:
    """the base's settings"""
    return config


def _changed(name: str, title: str, *settings: str) -> Callable[[Config], Config]:
    def arm(config: Config) -> Config:
        return typed.override(config, settings)

    arm.__name__, arm.__doc__ = name, title
    return arm


ARMS = (
    as_it_is,
    _changed("rate_third", "rate / 3", "optim.rate=1e-4"),
    _changed("rate_twice", "rate x 2", "optim.rate=6e-4"),
    _changed("no_kl", "no KL", "grpo.kl_coef=0"),
    _changed("strong_kl", "KL x 4", "grpo.kl_coef=0.02"),
    _changed("group_16", "16 answers", "rollout.group=16"),
    _changed("group_4", "4 answers", "rollout.group=4"),
    _changed("warm", "temperature 1.2", "rollout.temperature=1.2"),
    _changed("cool", "temperature .8", "rollout.temperature=0.8"),
    _changed("sapo", "SAPO", "grpo.objective=sapo"),
    _changed("summed", "one advantage of the sum", "grpo.advantage=group"),
    _changed("tis", "truncated importance sampling", "grpo.mismatch=truncate"),
    _changed("iou_1", "IoU weighs 1", "reward.w_iou=1"),
    _changed("iou_3", "IoU weighs 3", "reward.w_iou=3"),
)
STUDIES = {"settings": ARMS}
REFERENCE = as_it_is
EQUAL = ("steps", "pairs_per_step", "model")
