"""What a run shows while it trains: figures, and pictures of sampled answers."""

from dataclasses import dataclass
from typing import Literal

from dig_jax.common import typed
from dig_jax.common.fields import number, require
from dig_jax.config.rules import STEPS


@dataclass(frozen=True)
class LogConfig:
    samples_every: int = number(20, least=0, most=STEPS)  # steps between pictures; 0 = none
    samples: int = number(4, least=1, most=1000)  # pairs in each picture
    trackers: tuple[Literal["wandb", "trackio"], ...] = ()  # beside TensorBoard, which is always on
    project: str = "dig_jax"  # that the trackers file the run under

    def __post_init__(self):
        typed.check_fields(self, "log")
        ok = len(set(self.trackers)) == len(self.trackers)
        require(ok, "log.trackers", self.trackers, "repeats a tracker", "name each once")
        require(bool(self.project.strip()), "log.project", self.project, "is empty", "name one")
