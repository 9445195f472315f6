"""What a run shows while it trains."""

from dataclasses import dataclass
from typing import Literal

from dig_jax.common import typed
from dig_jax.common.typed import at_least, require


@dataclass(frozen=True)
class LogConfig:
    samples_every: int = 20  # steps between pictures of sampled answers; 0 = none
    samples: int = 4  # pairs in each picture, >= 1
    trackers: tuple[Literal["wandb", "trackio"], ...] = ()  # beside TensorBoard, which is always on
    project: str = "dig_jax"  # that the trackers file the run under

    def __post_init__(self):
        typed.check_fields(self, "log")
        at_least("log", self, samples_every=0, samples=1)
        ok = len(set(self.trackers)) == len(self.trackers)
        require(ok, "log.trackers", self.trackers, "repeats a tracker", "name each once")
        require(bool(self.project.strip()), "log.project", self.project, "is empty", "name one")
