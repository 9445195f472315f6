"""What is kept of a run, and where."""

from dataclasses import dataclass

from dig_jax.common import typed
from dig_jax.common.fields import number, place
from dig_jax.common.typed import require
from dig_jax.config.rules import STEPS, check_place


@dataclass(frozen=True)
class CheckpointConfig:
    every: int = number(10, least=1, most=STEPS)  # steps between saves; the last is always saved
    keep: int = number(2, least=1, most=1000)  # newest checkpoints kept on disk
    best: str = "reward"  # validation metric whose best weights are kept; "" = off (1)
    accept: tuple[str, ...] = ()  # what may differ at a resume: data, source.weights, ... (2)
    root: str = place("", optional=True)  # gets checkpoints/ and best/; "" = run_dir (3)

    # (1) `f1` is that of the first of eval.modes, `greedy/f1` or `greedy/test_novel/f1` say which;
    #     `validation_scores` lists them all. Needs eval.every.
    # (2) Names of `run.depends`, whole or their first part: data, reward, source, flags, versions.
    # (3) A folder of this machine, or gs://BUCKET/FOLDER.

    def __post_init__(self):
        typed.check_fields(self, "checkpoint")
        kinds = ("data", "reward", "source", "flags", "versions")
        wrong = [name for name in self.accept if name.partition(".")[0] not in kinds]
        remedy = f"use {', '.join(kinds)}, or a part of them such as versions.jax"
        require(not wrong, "checkpoint.accept", wrong, "is nothing that is compared", remedy)
        check_place("checkpoint.root", self.root)
