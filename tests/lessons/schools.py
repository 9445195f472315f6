"""What rows of lessons are made from in tests: painted pairs, questions about planned scenes."""

import dataclasses
from pathlib import Path

from dig_jax.config import Config, CurriculumConfig, DataConfig, RolloutConfig, SftConfig, Stage
from dig_jax.data.questions import suite
from dig_jax.hf.weights import read_model_config
from dig_jax.inputs.images import read_rules
from dig_jax.inputs.prompt import load_processor, make_prompt
from dig_jax.lessons.pairs import PairLessons
from dig_jax.lessons.questions import QuestionLessons
from tests.corpora import paint_split, write_split
from tests.data.questions.planned import planned
from tests.tiny_model import ASSETS

SIZE, CELL = (48, 64), 16  # of painted pairs, height and width
PAIRS, QUESTIONS = 4, 6  # rows of a step
SCENES = 20


def paint(root: Path) -> None:
    """Two training splits of painted pairs: one and two differences, with masks and plans."""
    paint_split(root, "single", 12, k_low=1, k_high=1)
    paint_split(root, "dual", 8, k_low=2, k_high=2)


def ask(root: Path) -> Path:
    """A folder of questions about planned scenes."""
    write_split(root, "test_mixed", [planned(i) for i in range(SCENES)])
    suite.make(root, root / "questions", splits=["test_mixed"], seed=0)
    return root / "questions"


def config(data: Path, questions: Path | str = "", **sft) -> Config:
    return Config(
        learner="sft",
        steps=8,
        pairs_per_step=PAIRS,
        data=DataConfig(
            root=str(data), image_width=SIZE[1], image_height=SIZE[0], buckets=("single", "dual")
        ),
        rollout=RolloutConfig(max_tokens=80),
        sft=SftConfig(
            questions_per_step=QUESTIONS if questions else 0, questions_root=str(questions), **sft
        ),
        curriculum=CurriculumConfig(
            stages=(Stage(4, {"single": 1.0}), Stage(8, {"single": 1.0, "dual": 1.0}))
        ),
    )


def pair_lessons(cfg: Config) -> PairLessons:
    processor, model = load_processor(ASSETS), read_model_config(ASSETS)
    prompt = make_prompt(cfg.prompt, processor, model, [[SIZE, SIZE]])
    return PairLessons(cfg, processor, prompt, SIZE, CELL)


def question_lessons(cfg: Config, **changes) -> QuestionLessons:
    cfg = dataclasses.replace(cfg, sft=dataclasses.replace(cfg.sft, **changes))
    processor, model = load_processor(ASSETS), read_model_config(ASSETS)
    return QuestionLessons(cfg, processor, model, read_rules(ASSETS))
