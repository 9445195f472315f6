"""The main job on one GPU: a cold-started Qwen3-VL of 61 M parameters, 256x192 pairs, GRPO with KL.

Hardware: one H100 or H200. Time and result: not run yet; docs/mid_size.md says what is estimated.
`scripts/train_mid.sh` makes the base, runs this and reports.
"""

from dig_jax.config import (
    CheckpointConfig,
    Config,
    CurriculumConfig,
    DataConfig,
    EvalConfig,
    GrpoConfig,
    LogConfig,
    ModelSource,
    OptimConfig,
    RolloutConfig,
    Stage,
)

STAGES = (
    Stage(until=50, weights={"single": 1.0}),
    Stage(until=110, weights={"single": 0.3, "dual": 0.7}),
    Stage(until=200, weights={"single": 0.15, "dual": 0.15, "mixed": 0.7}),
)


def get_config() -> Config:
    return Config(
        name="mid_gpu",
        steps=200,
        pairs_per_step=64,
        run_dir="runs/mid/grpo",
        # a prompt is 123 tokens, an image 192 patches: all scores at once are small, and the
        # kernel that CPU tests compare with Hugging Face's model
        model=ModelSource(source="runs/mid/base", compute_dtype="bfloat16", attention="xla"),
        data=DataConfig(root="data/mid", image_width=256, image_height=192),
        # one program: a decoding step of so small a model is launches, whatever rows it holds
        rollout=RolloutConfig(group=8, max_tokens=78, temperature=1.0, chunk=0, compact=0.0),
        # configs/tiny_cpu.py's rate by the inverse of the width: 3e-4 x 128 / 512
        optim=OptimConfig(rate=7.5e-5, warmup=10, schedule="linear", b2=0.98, weight_decay=0.0),
        grpo=GrpoConfig(kl_coef=0.005, accumulate=2),
        curriculum=CurriculumConfig(stages=STAGES),
        eval=EvalConfig(pairs=300, batch=100, samples=4, every=50),
        # 0.73 GB each, and what a kill costs
        checkpoint=CheckpointConfig(every=50, keep=1),
        log=LogConfig(samples_every=50),
    )
