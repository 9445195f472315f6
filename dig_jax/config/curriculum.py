"""Which pairs at which step."""

import itertools
from dataclasses import dataclass, field
from typing import Literal

from dig_jax.common import typed
from dig_jax.common.fields import number, require
from dig_jax.config.rules import STEPS


@dataclass(frozen=True)
class Stage:
    until: int = number(least=1, most=STEPS)  # first step that is no longer in this stage
    weights: dict[str, float] = number(least=0, most=1e9)  # bucket -> its part of the pairs (1)

    # (1) Normalised, so that 3 and 1 are three of four; 0 = off, else from 1e-9 on.

    def __post_init__(self):
        typed.check_fields(self, "curriculum.stages")
        where, remedy = "curriculum.stages.weights", "give at least one bucket a positive share"
        shares = [weight for weight in self.weights.values() if weight]
        require(bool(shares), where, self.weights, "is empty or all zero", remedy)
        ok, rule = min(shares) >= 1e-9, "has a share that no run draws"
        require(ok, where, self.weights, rule, "use 0 for off, else 1e-9 or more")


def _three_stages() -> tuple[Stage, ...]:
    return (
        Stage(until=20, weights={"single": 1.0}),
        Stage(until=40, weights={"single": 0.3, "dual": 0.7}),
        Stage(until=60, weights={"single": 0.2, "dual": 0.3, "mixed": 0.5}),
    )


@dataclass(frozen=True)
class CurriculumConfig:
    stages: tuple[Stage, ...] = field(default_factory=_three_stages)  # ascending `until`
    reference: Literal["fixed", "per_stage"] = "fixed"  # KL reference renewed at a stage change?
    optimizer: Literal["keep", "reset"] = "keep"  # moments kept or zeroed at a stage change

    def __post_init__(self):
        typed.check_fields(self, "curriculum")
        untils = [0, *(stage.until for stage in self.stages)]
        ok = len(untils) > 1 and all(a < b for a, b in itertools.pairwise(untils))
        rule = "are not ascending positive steps"
        require(ok, "curriculum.stages until", untils[1:], rule, "order the stages by `until`")
