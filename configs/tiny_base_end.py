"""The second of three trainings of the shipped base, once its options know which one is right.

Its last block starts anew as a search for that one (`scripts.make.base --trained`). What has a
letter or two things is asked more often, and pairs weigh less: GRPO is to learn them. Hardware: 2
CPU cores. Time: .77 s a step. The commands: docs/base.md.
"""

import dataclasses

from configs import tiny_base
from dig_jax.config import CheckpointConfig, Config

STEPS = 1200


def get_config() -> Config:
    first = tiny_base.get_config()
    return tiny_base.next_part(
        first,
        "tiny_base_end",
        STEPS,
        "runs/tiny_matched",
        sft=dataclasses.replace(
            first.sft,
            questions="refcoco_val*3,vstar*3,cvbench/Count*8,cvbench*4,vsr*4,here",
            # answers and changes at .2, what cells show at 1 as before
            pairs_weight=0.2,
            things_weight=5.0,
        ),
        checkpoint=CheckpointConfig(every=100, keep=20, best=""),
    )
