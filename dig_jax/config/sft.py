"""What a supervised run learns from, and what each part of its loss weighs."""

import re
from dataclasses import dataclass

from dig_jax.common import typed
from dig_jax.common.fields import number, place, require
from dig_jax.config.rules import check_local

_WEIGHT = {"least": 0, "most": 1e6}
_ROW = {"least": 0, "most": 2**24}


@dataclass(frozen=True)
class SftConfig:
    pairs_weight: float = number(1.0, **_WEIGHT)  # of difference pairs; 0: no split is read
    questions_weight: float = number(1.0, **_WEIGHT)  # of questions with answers
    questions_per_step: int = number(0, least=0, most=2**16)  # beside pairs_per_step pairs
    questions_root: str = place("", optional=True)  # folder of benchmarks that are learned (1)
    questions: str = "here"  # which of them: names with commas; here: all of the root (6)
    shapes: int = number(4, least=1, most=64)  # static shapes of questions' prompts, at most
    accumulate: int = number(1, least=1, most=2**16)  # slices of a step's rows, one after another
    augment: bool = False  # mirror, swap and recolour pairs, dim all pictures (2)
    # of an answer's tokens (3); all alike is plain cross-entropy
    first_digit: float = number(1.0, **_WEIGHT)  # of a coordinate
    second_digit: float = number(1.0, **_WEIGHT)  # of one
    third_digit: float = number(1.0, **_WEIGHT)  # and any after it
    stop: float = number(1.0, **_WEIGHT)  # what decides between another box and the end
    choice: float = number(1.0, **_WEIGHT)  # an answer in words: yes, a letter
    scaffold: float = number(1.0, **_WEIGHT)  # everything else
    # of what cells of the pictures say, read by the ordinary head (4); 0 = not asked
    changed_weight: float = number(0.0, **_WEIGHT)  # of image B: what changed, where, which box
    things_weight: float = number(0.0, **_WEIGHT)  # of image A: what stands there, box and core
    asked_weight: float = number(0.0, **_WEIGHT)  # of a question: its words, what they mean (7)
    changed_layer: int = number(1, least=0, most=1000)  # text block that says it, from 0
    rank_layer: int = number(2, least=0, most=1000)  # that says which box of the answer it is
    things_layer: int = number(1, least=0, most=1000)  # that says what stands there
    asked_layer: int = number(1, least=0, most=1000)  # that says which words were read
    meant_layer: int = number(2, least=0, most=1000)  # that says what they mean, and where it is
    told_layer: int = number(3, least=0, most=1000)  # that says what the question decides
    first_row: int = number(94, **_ROW)  # first row of the vocabulary that they use (5)

    # (1) As `dig_jax.benchmark` reads them: RefCOCO's training split, or what `data questions
    #     --allow-training` makes of rendered training splits.
    # (2) Labels stay true. Questions about pictures are not mirrored: they tell left from right.
    # (3) A model of a million parameters learns nothing for hours where all of them weigh alike.
    # (4) Dense labels, for a cold start: no other part of the loss reaches a cell directly.
    # (5) Bytes that no text in ASCII has, in a byte-level vocabulary as Qwen's: 137 of the 144 from
    #     it on.
    # (6) NAME*3 asks each question of a benchmark three times in an epoch, NAME/CATEGORY*5 those of
    #     one of its categories five times, whatever the rest of it is told.
    # (7) By the token from which its answer starts and by the last word of what it names; words of
    #     the rendered scenes alone. Where things lie: from `things.jsonl` of the questions' folder.

    def __post_init__(self):
        typed.check_fields(self, "sft")
        check_local("sft.questions_root", self.questions_root)
        ok = not self.questions_per_step or bool(self.questions_root)
        remedy = "name the folder that holds them in sft.questions_root"
        require(ok, "sft.questions_per_step", self.questions_per_step, "reads none", remedy)
        ok = all(
            re.fullmatch(r"\w+(/[^,*/\s][^,*/]*)?(\*[1-9]\d{0,3})?", w.strip())
            for w in self.questions.split(",")
        )
        remedy = "write names with commas, as refcoco_train*3,cvbench/Count*2,pope"
        require(ok, "sft.questions", self.questions, "is no list of benchmarks", remedy)
        ok = self.pairs_weight > 0 or (self.questions_per_step > 0 and self.questions_weight > 0)
        remedy = "ask questions, or give pairs a weight"
        require(ok, "sft.pairs_weight", self.pairs_weight, "leaves nothing to learn", remedy)
