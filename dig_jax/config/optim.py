"""AdamW and its rate; what is frozen."""

from dataclasses import dataclass
from typing import Literal

from dig_jax.common import typed
from dig_jax.common.typed import above, at_least, require


@dataclass(frozen=True)
class OptimConfig:
    rate: float = 1e-6  # peak learning rate, > 0
    warmup: int = 0  # steps of linear rise from 0; step 0 already moves
    schedule: Literal["constant", "linear", "cosine"] = "constant"  # after warm-up, to 0 at steps
    b1: float = 0.9  # Adam, [0, 1)
    b2: float = 0.999  # Adam, [0, 1)
    eps: float = 1e-8  # Adam, > 0
    weight_decay: float = 0.01  # on matrices only: not norms, biases, embeddings; >= 0
    max_grad_norm: float = 1.0  # global norm clip, > 0
    freeze: tuple[str, ...] = ()  # parameter path prefixes such as "vision" or "blocks/wq" (1)

    # (1) Frozen parameters have no gradient and no moments. With all of "vision" frozen, a step
    #     encodes its images once, for rollout, reference and every update. With lora.rank > 0
    #     everything but the adapters is frozen already.

    def __post_init__(self):
        typed.check_fields(self, "optim")
        at_least("optim", self, warmup=0, weight_decay=0)
        above("optim", self, rate=0, eps=0, max_grad_norm=0)
        for name in ("b1", "b2"):
            value = getattr(self, name)
            require(0 <= value < 1, f"optim.{name}", value, "is outside [0, 1)", "use 0.9 or 0.999")
