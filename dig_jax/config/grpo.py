"""The learner's choices."""

from dataclasses import dataclass
from typing import Literal

from dig_jax.common import typed
from dig_jax.common.typed import above, at_least, require


@dataclass(frozen=True)
class GrpoConfig:
    """The learner. docs/grpo.md writes every choice out as a formula, with its origin."""

    advantage: Literal["group", "batch", "none", "leave_one_out"] = "group"  # scale, baseline (1)
    ddof: Literal[0, 1] = 1  # of that standard deviation: divides by n - ddof
    advantage_eps: float = 1e-6  # added to it, > 0
    objective: Literal["clip", "cispo"] = "clip"  # clipped surrogate, or clipped weight (2)
    importance: Literal["token", "sequence"] = "token"  # ratio of a token, or of its answer (3)
    clip_low: float = 0.2  # ratio floor 1 - clip_low, (0, 1]; 1 = no floor
    clip_high: float = 0.28  # ratio ceiling 1 + clip_high, > 0
    dual_clip: float = 3.0  # bound of ratio x |advantage| where that is negative, > 1; 0 = off
    aggregate: Literal["token", "sequence", "constant"] = "token"  # what the loss is a mean of (4)
    truncated: Literal["train", "mask"] = "train"  # answers cut off by rollout.max_tokens
    kl_coef: float = 0.01  # weight of KL(policy, reference), >= 0; 0 keeps no reference
    kl: Literal["k1", "k2", "k3", "abs"] = "k3"  # its estimator; k1 in the loss has no pull (5)
    kl_in: Literal["loss", "reward"] = "loss"  # per token in the loss, or summed off the reward
    kl_max: float = 0.0  # bound of one token's |KL|, beyond which it pulls no more; 0 = none
    reference: Literal["float32", "bfloat16", "host"] = "float32"  # how it is kept (6)
    entropy_coef: float = 0.0  # weight of the entropy bonus, >= 0
    resample: int = 0  # times flat groups are drawn again with other pairs; 0 = never (7)
    min_spread: float = 0.0  # a group whose rewards span no more than this is flat, >= 0
    minibatches: int = 1  # optimiser updates per epoch over one rollout
    accumulate: int = 1  # gradient slices per update (over pairs; a group is never split)
    answer_slices: int = 1  # parts of a group whose activations exist at a time (8)
    epochs: int = 1  # passes over one rollout
    vocab_chunk: int = 4096  # vocabulary columns per log-softmax block of a device, at most

    # (1) group: (r - mean) / std of the group (GRPO); batch: std of the whole batch; none: r - mean
    #     (Dr. GRPO); leave_one_out: r - mean of the others (RLOO). 0 for flat groups, always.
    # (2) clip: min(ratio A, clipped ratio A), no gradient beyond the clip; cispo: the clipped ratio
    #     weighs A log p and has no gradient itself, so that every token keeps one (MiniMax-M1).
    # (3) sequence: the exponential of the answer's mean log-ratio, for all of its tokens (GSPO);
    #     wants clips near 3e-4 and 4e-4, and aggregate=sequence.
    # (4) token: all tokens of the minibatch (DAPO); sequence: its answers' token means (GRPO as
    #     published); constant: answers x rollout.max_tokens, whatever their lengths (Dr. GRPO).
    # (5) On-policy the expected gradient of k1 is 0. In the reward k1 is the usual choice.
    # (6) Only what is trained is kept twice. float32: the KL of a policy that has not moved is
    #     exactly 0; bfloat16: half the memory, rounded; host: in the host's memory, where the
    #     backend has such, fetched once a step.
    # (7) The last draw is kept, flat or not: a step never fails for want of spread.
    # (8) Long answers to one pair need not fit a device together: the prompt is still encoded
    #     once, forwards and backwards, and the gradient is the same.

    def __post_init__(self):
        typed.check_fields(self, "grpo")
        at_least("grpo", self, kl_coef=0, kl_max=0, entropy_coef=0, resample=0, min_spread=0)
        at_least("grpo", self, minibatches=1, accumulate=1, epochs=1, vocab_chunk=1)
        at_least("grpo", self, answer_slices=1)
        ok = 0 < self.clip_low <= 1
        require(ok, "grpo.clip_low", self.clip_low, "is outside (0, 1]", "use 0.2")
        above("grpo", self, clip_high=0, advantage_eps=0)
        ok = self.dual_clip == 0 or self.dual_clip > 1
        require(ok, "grpo.dual_clip", self.dual_clip, "is not above 1", "use 3, or 0 for none")
        ok = (self.objective, self.importance) != ("cispo", "sequence")
        rule = "weighs tokens, but grpo.importance=sequence has one ratio per answer"
        require(ok, "grpo.objective", self.objective, rule, "use importance=token")
        ok = self.kl_coef > 0 or self.reference == "float32"
        rule = "says how to keep a reference, but grpo.kl_coef=0 keeps none"
        require(ok, "grpo.reference", self.reference, rule, "drop it or give kl_coef a weight")
