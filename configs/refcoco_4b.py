"""The paper's rival: Qwen3-VL-4B-Instruct tuned on RefCOCO's training splits, by cross-entropy.

Hardware: a v5e-16, or 8 H100; never run on either. Files: those that `python -m dig_jax.benchmark
list` names for RefCOCO, of the split train, in data/refcoco. Before and after, the suite:
`python -m dig_jax.benchmark run --suite paper`; docs/supervised.md.
"""

from dig_jax.config import (
    CheckpointConfig,
    Config,
    CurriculumConfig,
    DataConfig,
    EvalConfig,
    MeshConfig,
    ModelSource,
    OptimConfig,
    RolloutConfig,
    SftConfig,
    Stage,
)

STEPS = 2500  # of 128 expressions: the three splits hold 321,327


def get_config() -> Config:
    return Config(
        name="refcoco_4b",
        learner="sft",
        steps=STEPS,
        run_dir="runs/refcoco_4b",
        model=ModelSource(source="Qwen3-VL-4B-Instruct", compute_dtype="bfloat16", remat="qkvo"),
        # COCO's pictures are 640x480 at most: as they are, in whole cells of 32 px
        data=DataConfig(image_width=640, image_height=480, prefetch=8),
        rollout=RolloutConfig(max_tokens=64),
        sft=SftConfig(
            pairs_weight=0.0,
            questions_per_step=128,
            questions_root="data/refcoco",
            questions="refcoco_train,refcocoplus_train,refcocog_train",
            shapes=4,
        ),
        optim=OptimConfig(
            rate=1e-5, warmup=100, schedule="cosine", weight_decay=0.0, freeze=("vision",)
        ),
        curriculum=CurriculumConfig(stages=(Stage(until=STEPS, weights={"single": 1.0}),)),
        eval=EvalConfig(batch=16, every=0),
        checkpoint=CheckpointConfig(every=250, keep=1),
        mesh=MeshConfig(fsdp=16, tensor=1),
    )
