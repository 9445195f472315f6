"""The last of the shipped base's training: no labels, the form of an answer heavy, at full rate.

Until then last digits weigh .2, what stands between numbers .3, and labels are said by rows of the
vocabulary that no text has: of sampled answers one in eight is no list of boxes, most of them for
such a row in place of a digit. The rate does not fall: bases that were cooled gained less by GRPO
(docs/results/strengths.md). Hardware: 2 CPU cores. Time: .6 s a step. Commands: docs/base.md.
"""

import dataclasses

from configs import tiny_base, tiny_base_end
from dig_jax.config import CheckpointConfig, Config

STEPS = 800
FORM = {"first_digit": 0.5, "second_digit": 0.3, "third_digit": 1.0, "scaffold": 1.0, "stop": 1.0}
NO_LABELS = {"changed_weight": 0.0, "things_weight": 0.0, "asked_weight": 0.0}


def get_config() -> Config:
    before = tiny_base_end.get_config()
    return tiny_base.next_part(
        before,
        "tiny_base_polish",
        STEPS,
        "runs/tiny_unpolished",
        sft=dataclasses.replace(before.sft, pairs_weight=2.0, **FORM, **NO_LABELS),
        optim=dataclasses.replace(before.optim, warmup=10),
        eval=dataclasses.replace(before.eval, every=STEPS),
        checkpoint=CheckpointConfig(every=100, keep=8, best=""),
    )
