"""The learner's choices."""

from dataclasses import dataclass
from typing import Literal

from dig_jax.common import typed
from dig_jax.common.fields import number, require
from dig_jax.config.rules import GROUP


@dataclass(frozen=True)
class GrpoConfig:
    """The learner. docs/grpo.md writes every choice out as a formula, with its origin."""

    advantage: Literal["group", "batch", "none", "leave_one_out", "parts"] = "group"  # (1)
    ddof: Literal[0, 1] = 1  # of that standard deviation: divides by n - ddof
    advantage_eps: float = number(1e-6, least=1e-12, most=1)  # added to it
    objective: Literal["clip", "cispo", "sapo"] = "clip"  # how a ratio counts (2)
    importance: Literal["token", "sequence"] = "token"  # ratio of a token, or of its answer (3)
    clip_low: float = number(0.2, least=1e-6, most=1)  # ratio floor 1 - clip_low; 1 = no floor
    clip_high: float = number(0.28, least=1e-6, most=1e6)  # ratio ceiling 1 + clip_high
    dual_clip: float = number(3.0, least=0, most=1e6)  # bounds bad answers' ratio, > 1; 0 = off (9)
    sapo_up: float = number(1.0, above=0, most=1e3)  # slope of sapo's gate where A > 0
    sapo_down: float = number(1.05, above=0, most=1e3)  # and where A <= 0
    mismatch: Literal["none", "truncate", "mask"] = "none"  # sampler's log-probs corrected (12)
    mismatch_level: Literal["token", "sequence"] = "token"  # ratio of a token, or of its answer
    mismatch_cap: float = number(2.0, least=1, most=1e6)  # largest such ratio
    entropy_share: float = number(1.0, above=0, most=1)  # most uncertain tokens, which alone count
    aggregate: Literal["token", "sequence", "constant"] = "token"  # what the loss is a mean of (4)
    truncated: Literal["train", "mask"] = "train"  # answers cut off by rollout.max_tokens
    kl_coef: float = number(0.01, least=0, most=1e3)  # weight of the KL; 0 keeps no reference
    kl: Literal["k1", "k2", "k3", "abs"] = "k3"  # its estimator; k1 in the loss has no pull (5)
    kl_in: Literal["loss", "reward"] = "loss"  # per token in the loss, or summed off the reward
    kl_max: float = number(0.0, least=0, most=1e6)  # one token's |KL| pulls up to it; 0 = none
    reference: Literal["float32", "bfloat16", "host"] = "float32"  # how it is kept (6)
    entropy_coef: float = number(0.0, least=0, most=1e3)  # weight of the entropy bonus
    resample: int = number(0, least=0, most=100)  # times flat groups are drawn again; 0 = never (7)
    min_spread: float = number(0.0, least=0, most=1e6)  # rewards that span no more are flat
    minibatches: int = number(1, least=1, most=2**16)  # optimiser updates per epoch
    accumulate: int = number(1, least=1, most=2**16)  # gradient slices per update, over pairs (10)
    answer_slices: int = number(1, least=1, most=GROUP)  # parts of a group, one at a time (8)
    packed: bool = True  # the update computes answers as long as they are, not max_tokens (11)
    epochs: int = number(1, least=1, most=1000)  # passes over one rollout
    vocab_chunk: int = number(4096, least=1, most=2**20)  # columns per log-softmax block, at most

    # (1) group: (r - mean) / std of the group (GRPO); batch: std of the whole batch; none: r - mean
    #     (Dr. GRPO); leave_one_out: r - mean of the others (RLOO); parts: format, F1 and IoU each
    #     as in group, then added (GDPO). 0 for flat groups, always.
    # (2) clip: min(ratio A, clipped ratio A), no gradient beyond the clip; cispo: the clipped ratio
    #     weighs A log p and has no gradient itself, so that every token keeps one (MiniMax-M1);
    #     sapo: a sigmoid gate that fades out to both sides.
    # (3) sequence: the exponential of the answer's mean log-ratio, for all of its tokens (GSPO);
    #     wants clips near 3e-4 and 4e-4, and aggregate=sequence.
    # (4) token: all tokens of the minibatch (DAPO); sequence: its answers' token means (GRPO as
    #     published); constant: answers x rollout.max_tokens, whatever their lengths (Dr. GRPO).
    # (5) On-policy the expected gradient of k1 is 0. In the reward k1 is the usual choice.
    # (6) Only what is trained is kept twice. float32: the KL of a policy that has not moved is
    #     exactly 0; bfloat16: half the memory, rounded; host: in the host's memory, where the
    #     backend has such, fetched once a step.
    # (7) With other pairs. The last draw is kept, flat or not: no step fails for want of spread.
    # (8) Activations of long answers to one pair need not fit a device together: the prompt is
    #     still encoded once, forwards and backwards, and the gradient is the same.
    # (9) ratio x |advantage| where the advantage is negative.
    # (10) A group is never split.
    # (11) Answers stand one behind the other in streams, answer_slices of a padded group's tokens
    #      at most and no more than keep a device busy. Without: all of rollout.max_tokens.
    # (12) The ratio of the learner's own log-probs to the sampler's is a constant weight of the
    #      objective: at most mismatch_cap (truncate, TIS), or without what is beyond it or below
    #      its inverse (mask, MIS). Equal log-probs: no effect at all.

    def __post_init__(self):
        typed.check_fields(self, "grpo")
        ok = self.dual_clip == 0 or self.dual_clip > 1
        require(ok, "grpo.dual_clip", self.dual_clip, "is not above 1", "use 3, or 0 for none")
        ok = self.objective == "clip" or self.importance == "token"
        rule = "works on tokens, but grpo.importance=sequence has one ratio per answer"
        require(ok, "grpo.objective", self.objective, rule, "use importance=token")
        ok = (self.advantage, self.kl_in) != ("parts", "reward")
        rule = "has no part for grpo.kl_in=reward"
        require(ok, "grpo.advantage", self.advantage, rule, "use kl_in=loss")
        ok = self.kl_coef > 0 or self.reference == "float32"
        rule = "says how to keep a reference, but grpo.kl_coef=0 keeps none"
        require(ok, "grpo.reference", self.reference, rule, "drop it or give kl_coef a weight")
