"""What an answer earns."""

import difflib
from dataclasses import dataclass
from typing import Literal

from dig_jax.common import typed
from dig_jax.common.typed import at_least, require

REWARD_FUNCTIONS = ("dig", "perception_r1", "vlm_r1_weighted", "vlm_r1_ap", "vision_reasoner")


@dataclass(frozen=True)
class RewardConfig:
    """R = w_format * format + w_f1 * F1 + w_iou * mean IoU; each part lies in [0, 1].

    The weights make `dig`; another function gives its own value instead, and DiG's parts are
    logged beside it. docs/rewards.md has them all.
    """

    function: str = "dig"  # one of REWARD_FUNCTIONS, or your own as module:function
    w_format: float = 1.0  # weight of the format part, >= 0
    w_f1: float = 1.0  # weight of F1 at iou_threshold, >= 0
    w_iou: float = 1.0  # weight of the mean IoU of matched boxes, >= 0
    iou_threshold: float = 0.5  # a match with at least this IoU is a true positive, (0, 1]
    cost_l1: float = 5.0  # matching cost: L1 of unit-frame corners, >= 0 (DETR's weights)
    cost_giou: float = 2.0  # matching cost: -GIoU, >= 0
    cost_iou: float = 0.0  # matching cost: -IoU, >= 0
    iou_denominator: Literal["max", "matched", "true"] = "max"  # of mean IoU: max(n_pred, n_true)
    empty_is_perfect: bool = True  # a readable empty list, nothing true: F1 = IoU = 1, else 0
    max_boxes: int = 16  # Q: predicted boxes kept per answer; more make the answer malformed
    matching: Literal["scipy", "xla"] = "scipy"  # assignment: host callback, or on device
    think: Literal["none", "prefilled", "full"] = "none"  # <think>: absent, opened by us, by it
    overlong_buffer: int = 0  # last tokens of rollout.max_tokens that cost (DAPO); 0 = none
    overlong_weight: float = 1.0  # off one of rollout.max_tokens tokens, or unreadable; >= 0

    def __post_init__(self):
        typed.check_fields(self, "reward")
        names = ("w_format", "w_f1", "w_iou", "cost_l1", "cost_giou", "cost_iou")
        names += ("overlong_buffer", "overlong_weight")
        at_least("reward", self, max_boxes=1, **dict.fromkeys(names, 0))
        _check_function(self.function)
        ok = 0 < self.iou_threshold <= 1
        require(ok, "reward.iou_threshold", self.iou_threshold, "is outside (0, 1]", "use 0.5")
        cost = self.cost_l1 + self.cost_giou + self.cost_iou
        remedy = "give cost_l1, cost_giou or cost_iou a weight"
        require(cost > 0, "reward.cost_*", cost, "makes every match equal", remedy)


def _check_function(name: str) -> None:
    """A function of the user's own is imported when the session opens, not here."""
    module, colon, attribute = name.partition(":")
    ok = bool(module and attribute) if colon else name in REWARD_FUNCTIONS
    near = difflib.get_close_matches(name, REWARD_FUNCTIONS, n=1, cutoff=0.4)
    guess = f"did you mean {near[0]!r}? " if near and not colon else ""
    remedy = f"{guess}use one of {', '.join(REWARD_FUNCTIONS)}, or your own as module:function"
    require(ok, "reward.function", name, "names no reward", remedy)


REWARD_PRESETS = {  # the paper's ablation rows
    "format_only": RewardConfig(w_f1=0.0, w_iou=0.0),
    "with_iou": RewardConfig(w_f1=0.0),
    "with_f1": RewardConfig(w_iou=0.0),
    "full": RewardConfig(),
}
