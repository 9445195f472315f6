"""How many answers are drawn, how long, and in which shapes."""

from dataclasses import dataclass
from typing import Literal

from dig_jax.common import typed
from dig_jax.common.fields import number, require
from dig_jax.config.rules import GROUP, TOKENS


@dataclass(frozen=True)
class RolloutConfig:
    group: int = number(8, least=2, most=GROUP)  # G: answers per pair, compared with one another
    max_tokens: int = number(96, least=1, most=TOKENS)  # T: answer tokens including EOS
    temperature: float = number(1.0, least=1e-3, most=100)  # of sampling and loss alike
    chunk: int = number(256, least=0, most=TOKENS)  # tokens of a first cache; 0 = max_tokens (1)
    compact: float = number(0.0, least=0, most=0.9)  # unfinished answers move; 0 = they stay (2)
    layers: Literal["auto", "model", "unroll"] = "auto"  # how blocks are repeated (3)

    # (1) A full cache is replaced by one of twice the length, up to max_tokens, so that a step
    #     reads what answers have written rather than what they may. A program for each length.
    # (2) Into this share of the rows, from 0.1 on, once they fit, again and again. 0.5 saves most
    #     of the time that ended answers take, 0.7 computes fewer empty rows with more programs.
    #     docs/results/rollout.md has figures.
    # (3) model: as model.layers. unroll: a copy of the program per block, and of the weights while
    #     decoding. A small model on a CPU decodes 1.4 times as fast and compiles half as fast; on a
    #     GPU a scan copies every block's weights and keys at every token. auto: unroll on a GPU.

    def __post_init__(self):
        typed.check_fields(self, "rollout")
        ok = self.compact == 0 or self.compact >= 0.1
        rule = "is neither 0 nor within [0.1, 0.9]"
        require(ok, "rollout.compact", self.compact, rule, "use 0.5, or 0 to leave rows in place")
