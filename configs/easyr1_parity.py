"""EasyR1's GRPO on DiG's data: the trainer of the paper, number by number.

Hardware: 8 GPUs of 80 GB for the 4B model. Time and result: not run here. Numbers are those of
EasyR1's example configuration and of its dataclass defaults: 512 prompts x 5 answers a rollout in
four updates of 128 prompts, clips .2/.3 and 3, k3 .01 clamped to 10, token mean, AdamW 1e-6.

What EasyR1 does and this does not: an advantage where all rewards of a group are equal, weight
decay on norms and biases, a skipped update where the gradient is not finite (the run stops here),
rescaling of sequence losses between micro-batches, a ban on sampling <|image_pad|> alone (all
vision tokens are banned here). 2,048 answer tokens truncate a Thinking model's answers; watch
`truncated` and raise rollout.max_tokens.
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
    PromptConfig,
    RewardConfig,
    RolloutConfig,
    Stage,
)

STEPS = 140  # 15 epochs of 4,800 pairs, rounded down to whole rollouts
STAGES = (
    Stage(until=46, weights={"single": 1.0}),
    Stage(until=93, weights={"single": 0.5, "dual": 0.5}),
    Stage(until=STEPS, weights={"single": 1.0, "dual": 1.0, "mixed": 1.0}),
)


def get_config() -> Config:
    return Config(
        name="easyr1_parity",
        steps=STEPS,
        pairs_per_step=512,
        run_dir="runs/easyr1_parity",
        model=ModelSource(
            source="models/Qwen3-VL-4B-Thinking", compute_dtype="bfloat16", remat="full"
        ),
        data=DataConfig(
            root="data/paper",
            image_width=480,
            image_height=320,
            min_pixels=262144,  # 480x320 is enlarged, as EasyR1 does
            max_pixels=4194304,
        ),
        prompt=PromptConfig(max_tokens=2048),
        rollout=RolloutConfig(group=5, max_tokens=2048, temperature=1.0),
        reward=RewardConfig(think="prefilled"),
        grpo=GrpoConfig(
            advantage="group",
            ddof=1,
            advantage_eps=1e-6,
            clip_low=0.2,
            clip_high=0.3,
            dual_clip=3.0,
            aggregate="token",
            kl_coef=0.01,
            kl="k3",
            kl_in="loss",
            kl_max=10.0,
            minibatches=4,
            accumulate=16,
            epochs=1,
        ),
        optim=OptimConfig(
            rate=1e-6, b1=0.9, b2=0.999, eps=1e-8, weight_decay=0.01, max_grad_norm=1.0
        ),
        curriculum=CurriculumConfig(stages=STAGES, reference="fixed", optimizer="keep"),
        eval=EvalConfig(every=5, batch=24),
        checkpoint=CheckpointConfig(every=5, keep=3),
        mesh=MeshConfig(fsdp=8),
    )
