"""The first of three trainings of the shipped base: difference pairs and questions about pictures.

Hardware: 2 CPU cores. Time: .77 s a step. `tiny_base_end` goes on from its last step. The commands
that make its data, its untrained start and what comes between: docs/base.md.
"""

import dataclasses

from dig_jax.config import (
    CheckpointConfig,
    Config,
    CurriculumConfig,
    DataConfig,
    EvalConfig,
    ModelSource,
    OptimConfig,
    RolloutConfig,
    SftConfig,
    Stage,
)

STEPS = 2400
# Place weights: with all tokens alike a model of this size learns nothing for hours.
PLACES = {
    "first_digit": 3.0,
    "second_digit": 1.5,
    "third_digit": 0.2,
    "stop": 2.0,
    "scaffold": 0.3,
}


def get_config() -> Config:
    return Config(
        name="tiny_base",
        learner="sft",
        steps=STEPS,
        pairs_per_step=8,
        run_dir="runs/tiny_base",
        model=ModelSource(source="runs/tiny_fresh"),
        data=DataConfig(
            root="data/base",
            image_width=96,
            image_height=64,
            buckets=("base",),
            eval_split="dev",
        ),
        rollout=RolloutConfig(max_tokens=78, chunk=20, compact=0.5, layers="unroll"),
        sft=SftConfig(
            questions_per_step=32,
            questions_root="data/base_questions",
            # more of what takes longest to learn: what is meant, the option that says so, counts
            questions="refcoco_val*4,vstar*2,cvbench/Count*8,cvbench*2,vsr*2,here",
            augment=True,
            choice=3.0,
            changed_weight=1.0,
            things_weight=1.0,
            asked_weight=1.0,
            **PLACES,
        ),
        optim=OptimConfig(rate=1e-3, warmup=50, b2=0.98),
        curriculum=curriculum_of(STEPS),
        # scored along the way, which chooses no checkpoint
        eval=EvalConfig(
            pairs=300,
            batch=50,
            samples=2,
            every=500,
            at_start=False,
            modes=("greedy", "sampled"),
        ),
        # all are kept: studies start from several
        checkpoint=CheckpointConfig(every=100, keep=40, best=""),
    )


def curriculum_of(steps: int) -> CurriculumConfig:
    """The pairs of the one split that there is."""
    return CurriculumConfig(stages=(Stage(until=steps, weights={"base": 1.0}),))


def next_part(before: Config, name: str, steps: int, source: str, **changes) -> Config:
    """A training that starts from a checkpoint of the one before it."""
    return dataclasses.replace(
        before,
        name=name,
        steps=steps,
        run_dir=f"runs/{name}",
        model=ModelSource(source=source),
        curriculum=curriculum_of(steps),
        **changes,
    )
