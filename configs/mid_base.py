"""The cold start of `mid_gpu`: an untrained Qwen3-VL of 61 M parameters learns to box differences.

Hardware: one H100 or H200. Time and result: not run yet; docs/mid_size.md says what is estimated.
`scripts/train_mid.sh` makes the untrained start, runs this and exports it.
"""

from configs import tiny_base
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

STEPS = 2500


def get_config() -> Config:
    return Config(
        name="mid_base",
        learner="sft",
        steps=STEPS,
        pairs_per_step=128,
        run_dir="runs/mid/cold_start",
        model=ModelSource(source="runs/mid/fresh", compute_dtype="bfloat16", attention="xla"),
        data=DataConfig(
            root="data/mid",
            image_width=256,
            image_height=192,
            buckets=("base",),
            eval_split="dev",
            prefetch=4,
            cache="decoded",
        ),
        rollout=RolloutConfig(max_tokens=78, chunk=0, compact=0.0),
        sft=SftConfig(augment=True, changed_weight=1.0, **tiny_base.PLACES),
        # configs/tiny_base.py's rate by the inverse of the width, more for the larger batch
        optim=OptimConfig(rate=5e-4, warmup=100, schedule="wsd", decay=0.3, b2=0.98),
        curriculum=CurriculumConfig(stages=(Stage(until=STEPS, weights={"base": 1.0}),)),
        eval=EvalConfig(pairs=300, batch=100, every=250, modes=("greedy",), at_start=False),
        checkpoint=CheckpointConfig(every=250, keep=1, best=""),
    )
