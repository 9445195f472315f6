"""What is scored, when, and on how many answers."""

from dataclasses import dataclass
from typing import Literal

from dig_jax.common import typed
from dig_jax.common.fields import number, require
from dig_jax.config.rules import GROUP, PAIRS, STEPS


@dataclass(frozen=True)
class EvalConfig:
    pairs: int = number(120, least=1, most=PAIRS)  # held-out pairs scored, from the first
    batch: int = number(20, least=1, most=2**16)  # pairs per forward; the last batch is padded
    every: int = number(0, least=0, most=STEPS)  # steps between validations; 0 = none in training
    at_start: bool = True  # with `every`: validate before the first step too
    modes: tuple[Literal["greedy", "sampled"], ...] = ("sampled", "greedy")  # of a validation (1)
    splits: tuple[str, ...] = ()  # validated beside data.eval_split, e.g. test_novel
    controls: str = ""  # split of identical pairs whose right answer is []; "" = none
    bootstrap: int = number(2000, least=1, most=10**6)  # resamples behind each 95 % interval
    samples: int = number(0, least=0, most=GROUP)  # answers drawn per pair; 0 = one, greedy (1)
    decoding: Literal["policy", "checkpoint"] = "policy"  # or as generation_config.json says

    # (1) A validation while training scores every mode; `sampled` draws max(1, samples) answers
    #     per pair, at rollout.temperature. `dig_jax.evaluate` writes one protocol: sampled where
    #     samples > 0.

    def __post_init__(self):
        typed.check_fields(self, "eval")
        ok = bool(self.modes) and len(set(self.modes)) == len(self.modes)
        remedy = "use sampled,greedy or one of them"
        require(ok, "eval.modes", self.modes, "is empty or repeats a mode", remedy)
        names = [*self.splits, *filter(None, [self.controls])]
        ok = len(set(names)) == len(names) and not set(names) & {"", "controls"}
        rule = 'with eval.controls repeats a name, or has "" or "controls"'
        require(ok, "eval.splits", self.splits, rule, "name each split once")


# Scores of answers, means over pairs and their answers, for all of which more is better.
EVAL_SCORES = ("reward", "f1", "iou", "precision", "recall", "format", "count_ok")


def validation_scores(cfg: EvalConfig) -> list[str]:
    """Names of the scores that a validation gives: "sampled/f1", "greedy/test_novel/f1", ..."""
    splits = ("", *(f"{name}/" for name in cfg.splits))
    names = [f"{split}{score}" for split in splits for score in EVAL_SCORES]
    names += ["controls/empty"] if cfg.controls else []
    return [f"{mode}/{name}" for mode in cfg.modes for name in names]
