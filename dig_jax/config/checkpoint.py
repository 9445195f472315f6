"""What is kept of a run, and where."""

from dataclasses import dataclass

from dig_jax.common import typed
from dig_jax.common.typed import at_least, require
from dig_jax.config.rules import check_place


@dataclass(frozen=True)
class CheckpointConfig:
    every: int = 10  # steps between saves, >= 1; the last step is always saved
    keep: int = 2  # newest checkpoints kept on disk
    best: str = "reward"  # validation metric whose best weights are kept; "" = off (1)
    accept: tuple[str, ...] = ()  # what may differ at a resume: data, source.weights, ... (2)
    root: str = ""  # folder or gs://BUCKET/FOLDER that gets checkpoints/ and best/; "" = run_dir

    # (1) `f1` is that of the first of eval.modes, `greedy/f1` or `greedy/test_novel/f1` say which;
    #     `validation_scores` lists them all. Needs eval.every.
    # (2) Names of `run.depends`, whole or their first part: data, reward, source, flags, versions.

    def __post_init__(self):
        typed.check_fields(self, "checkpoint")
        at_least("checkpoint", self, every=1, keep=1)
        kinds = ("data", "reward", "source", "flags", "versions")
        wrong = [name for name in self.accept if name.partition(".")[0] not in kinds]
        remedy = f"use {', '.join(kinds)}, or a part of them such as versions.jax"
        require(not wrong, "checkpoint.accept", wrong, "is nothing that is compared", remedy)
        check_place("checkpoint.root", self.root)
