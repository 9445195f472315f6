"""How many answers are drawn, how long, and in which shapes."""

from dataclasses import dataclass
from typing import Literal

from dig_jax.common import typed
from dig_jax.common.typed import above, at_least, require


@dataclass(frozen=True)
class RolloutConfig:
    group: int = 8  # G: answers per pair, >= 2 (advantages are relative to the group)
    max_tokens: int = 96  # T: answer tokens including EOS
    temperature: float = 1.0  # > 0, of sampling and loss alike; evaluation may be greedy
    chunk: int = 256  # tokens that answers' caches have room for at first; 0 = max_tokens (1)
    compact: float = 0.0  # unfinished answers move into this share of the rows; 0 = they stay (2)
    layers: Literal["auto", "model", "unroll"] = "auto"  # how blocks are repeated (3)

    # (1) A full cache is replaced by one of twice the length, up to max_tokens, so that a step
    #     reads what answers have written rather than what they may. A program for each length.
    # (2) Once they fit, again and again. 0.5 saves most of the time that ended answers take,
    #     0.7 computes fewer empty rows with more programs. docs/results/rollout.md has figures.
    # (3) model: as model.layers. unroll: a copy of the program per block, and of the weights while
    #     decoding. A small model on a CPU decodes 1.4 times as fast and compiles half as fast; on a
    #     GPU a scan copies every block's weights and keys at every token. auto: unroll on a GPU.

    def __post_init__(self):
        typed.check_fields(self, "rollout")
        at_least("rollout", self, group=2, max_tokens=1, chunk=0)
        above("rollout", self, temperature=0)
        ok = self.compact == 0 or 0.1 <= self.compact <= 0.9
        rule = "is neither 0 nor within [0.1, 0.9]"
        require(ok, "rollout.compact", self.compact, rule, "use 0.5, or 0 to leave rows in place")
