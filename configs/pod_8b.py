"""Qwen3-VL-8B-Thinking on a TPU slice: GRPO with KL through the curriculum, 480x320 pairs.

Hardware: v5e-16 as it stands (16 chips, mesh 2 x 8, one pair per chip at a time); other slices by
`--set mesh.fsdp=... --set mesh.tensor=... --set pairs_per_step=...`, which `python -m
tpu.preflight --slice NAME --model 8B --config configs/pod_8b.py` prints with the memory each
phase takes. Expect of it what docs/results/preflight.md says. Time and result: not run yet.

The vision tower is frozen, so a step encodes its images once; `--set optim.freeze=` trains it.
A pair's answers are trained 4,096 tokens at a time, as many of them as that holds: with their
prompt they fill a chip. Sampler and learner round differently in bfloat16, hence mismatch.
"""

from dig_jax.config import (
    CheckpointConfig,
    Config,
    CurriculumConfig,
    DataConfig,
    EvalConfig,
    GrpoConfig,
    MeshConfig,
    ModelSource,
    OptimConfig,
    RewardConfig,
    RolloutConfig,
    Stage,
)

STEPS = 300  # 4,800 pairs, 16 at a time
STAGES = (
    Stage(until=100, weights={"single": 1.0}),
    Stage(until=200, weights={"single": 0.3, "dual": 0.7}),
    Stage(until=STEPS, weights={"single": 0.2, "dual": 0.3, "mixed": 0.5}),
)


def get_config(size: str = "8B") -> Config:
    return Config(
        name=f"pod_{size.lower()}",
        steps=STEPS,
        pairs_per_step=16,
        run_dir=f"runs/pod_{size.lower()}",
        model=ModelSource(
            source=f"models/Qwen3-VL-{size}-Thinking", compute_dtype="bfloat16", remat="full"
        ),
        data=DataConfig(root="data/paper", image_width=480, image_height=320),
        rollout=RolloutConfig(group=8, max_tokens=4096, temperature=1.0),
        reward=RewardConfig(think="prefilled"),
        grpo=GrpoConfig(kl_coef=0.01, reference="bfloat16", answer_slices=8, mismatch="truncate"),
        optim=OptimConfig(rate=1e-6, warmup=10, freeze=("vision",)),
        curriculum=CurriculumConfig(stages=STAGES),
        eval=EvalConfig(pairs=300, batch=16),
        checkpoint=CheckpointConfig(every=20, keep=2),
        mesh=MeshConfig(fsdp=2, tensor=8),
    )
