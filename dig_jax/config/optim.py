"""AdamW and its rate; what is frozen."""

from dataclasses import dataclass
from typing import Literal

from dig_jax.common import typed
from dig_jax.common.fields import number
from dig_jax.config.rules import STEPS

BELOW_1 = 0.999999  # float32 takes what is nearer for 1, and Adam would divide by 1 - 1


@dataclass(frozen=True)
class OptimConfig:
    rate: float = number(1e-6, least=1e-12, most=10)  # peak learning rate
    warmup: int = number(0, least=0, most=STEPS)  # steps of linear rise; step 0 already moves
    schedule: Literal["constant", "linear", "cosine", "wsd"] = "constant"  # after warm-up (3)
    decay: float = number(0.3, above=0, most=1)  # share of the steps in which wsd falls, the last
    b1: float = number(0.9, least=0, most=BELOW_1)  # Adam
    b2: float = number(0.999, least=0, most=BELOW_1)  # Adam
    eps: float = number(1e-8, least=1e-20, most=1)  # Adam
    weight_decay: float = number(0.01, least=0, most=10)  # on matrices only (2)
    max_grad_norm: float = number(1.0, least=1e-9, most=1e9)  # global norm clip
    freeze: tuple[str, ...] = ()  # parameter path prefixes such as "vision" or "blocks/wq" (1)

    # (1) Frozen parameters have no gradient and no moments. With all of "vision" frozen, a step
    #     encodes its images once, for rollout, reference and every update. With lora.rank > 0
    #     everything but the adapters is frozen already.
    # (2) Not on norms, biases and embeddings.
    # (3) linear and cosine fall from then on, wsd (warm-up, stable, decay) stays and falls on a
    #     line at the end; all to 0 at `steps`.

    def __post_init__(self):
        typed.check_fields(self, "optim")
