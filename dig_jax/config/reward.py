"""What an answer earns."""

import difflib
from dataclasses import dataclass
from typing import Literal

from dig_jax.common import typed
from dig_jax.common.fields import number, require
from dig_jax.config.rules import BOXES, TOKENS

REWARD_FUNCTIONS = ("dig", "perception_r1", "vlm_r1_weighted", "vlm_r1_ap", "vision_reasoner")


@dataclass(frozen=True)
class RewardConfig:
    """R = w_format * format + w_f1 * F1 + w_iou * mean IoU; each part lies in [0, 1].

    The weights make `dig`; another function gives its own value instead, and DiG's parts are
    logged beside it. docs/rewards.md has them all.
    """

    function: str = "dig"  # one of REWARD_FUNCTIONS, or your own as module:function
    w_format: float = number(1.0, least=0, most=1e6)  # weight of the format part
    w_f1: float = number(1.0, least=0, most=1e6)  # weight of F1 at iou_threshold
    w_iou: float = number(1.0, least=0, most=1e6)  # weight of the mean IoU of matched boxes
    iou_threshold: float = number(0.5, above=0, most=1)  # IoU from which a match is a true one
    cost_l1: float = number(5.0, least=0, most=1e6)  # matching cost: L1 of unit-frame corners (1)
    cost_giou: float = number(2.0, least=0, most=1e6)  # matching cost: -GIoU
    cost_iou: float = number(0.0, least=0, most=1e6)  # matching cost: -IoU
    iou_denominator: Literal["max", "matched", "true"] = "max"  # of mean IoU: max(n_pred, n_true)
    empty_is_perfect: bool = True  # a readable empty list, nothing true: F1 = IoU = 1, else 0
    max_boxes: int = number(16, least=1, most=BOXES)  # Q: of an answer; more make it malformed
    matching: Literal["scipy", "xla"] = "scipy"  # assignment: host callback, or on device
    think: Literal["none", "prefilled", "full"] = "none"  # <think>: absent, opened by us, by it
    overlong_buffer: int = number(0, least=0, most=TOKENS)  # last tokens that cost; 0 = none (2)
    overlong_weight: float = number(1.0, least=0, most=1e6)  # off the longest, or unreadable

    # (1) The three weights are DETR's.
    # (2) Of rollout.max_tokens, as in DAPO.

    def __post_init__(self):
        typed.check_fields(self, "reward")
        _check_function(self.function)
        cost = self.cost_l1 + self.cost_giou + self.cost_iou
        remedy = "give cost_l1, cost_giou or cost_iou a weight"
        require(cost > 0, "reward.cost_*", cost, "makes every match equal", remedy)

    @property
    def parts(self) -> dict[str, float]:
        """What DiG's reward adds up, by name, with the weights."""
        parts = {"format": self.w_format, "f1": self.w_f1, "iou": self.w_iou}
        return parts | ({"overlong": self.overlong_weight} if self.overlong_buffer else {})


def _check_function(name: str) -> None:
    """A function of the user's own is imported when the session opens, not here."""
    module, colon, attribute = name.partition(":")
    ok = bool(module and attribute) if colon else name in REWARD_FUNCTIONS
    near = difflib.get_close_matches(name, REWARD_FUNCTIONS, n=1, cutoff=0.4)
    guess = f"did you mean {near[0]!r}? " if near and not colon else ""
    remedy = f"{guess}use one of {', '.join(REWARD_FUNCTIONS)}, or your own as module:function"
    require(ok, "reward.function", name, "names no reward", remedy)


def published_reward(
    *, alpha: float, lambda_f1: float, lambda_iou: float, **others
) -> RewardConfig:
    """The reward as the paper names its weights.

    alpha                  share of the format, in [0, 1]
    lambda_f1, lambda_iou  weights of F1 and mean IoU in the rest
    others                 further fields of RewardConfig

    R = alpha format + (1 - alpha) (lambda_f1 F1 + lambda_iou IoU); how alpha enters is our reading.
    Any w_format, w_f1, w_iou are some alpha and lambdas times a number (lambda_i = w_i / (1 -
    alpha)), and an advantage that is divided by a standard deviation does not see that number.
    """
    require(0 <= alpha <= 1, "alpha", alpha, "is outside [0, 1]", "use the format's share")
    rest = 1 - alpha
    return RewardConfig(w_format=alpha, w_f1=rest * lambda_f1, w_iou=rest * lambda_iou, **others)


REWARD_PRESETS = {  # the paper's ablation rows
    "format_only": RewardConfig(w_f1=0.0, w_iou=0.0),
    "with_iou": RewardConfig(w_f1=0.0),
    "with_f1": RewardConfig(w_iou=0.0),
    "full": RewardConfig(),
}
