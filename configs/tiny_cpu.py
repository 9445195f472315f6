"""The embedded default: the shipped tiny Qwen3-VL through the whole curriculum, on a laptop CPU.

Purpose   show DiG work end to end without pretrained weights: Blender pairs of 96x64 px,
          single -> dual -> mixed, GRPO with KL to the shipped base
Hardware  2 CPU cores, 4 GB of memory
Time      (to be filled from a run)
Expect    (to be filled from a run; RESULTS.md has the runs)

    python scripts/make_pairs.py --root data/tiny --preset tiny-quickstart
    python -m dig_jax.train --config configs/tiny_cpu.py

`scripts/quickstart.sh` does both, and evaluates before and after.
"""

from dig_jax.config import (
    CheckpointConfig,
    Config,
    CurriculumConfig,
    DataConfig,
    EvalConfig,
    GrpoConfig,
    ModelSource,
    OptimConfig,
    RolloutConfig,
    Stage,
)


def get_config() -> Config:
    return Config(
        name="tiny_cpu",
        steps=120,
        pairs_per_step=16,
        run_dir="runs/tiny_cpu",
        model=ModelSource("assets/tiny_qwen3vl"),
        data=DataConfig(root="data/tiny", image_width=96, image_height=64),
        rollout=RolloutConfig(group=8, max_tokens=78),  # four boxes
        grpo=GrpoConfig(kl_coef=0.005),
        optim=OptimConfig(rate=3e-4, warmup=5, weight_decay=0.0),
        curriculum=CurriculumConfig(
            stages=(
                Stage(until=40, weights={"single": 1.0}),
                Stage(until=80, weights={"single": 0.3, "dual": 0.7}),
                Stage(until=120, weights={"single": 0.2, "dual": 0.3, "mixed": 0.5}),
            )
        ),
        eval=EvalConfig(pairs=150, batch=25),
        checkpoint=CheckpointConfig(every=20, keep=2),
    )
