"""The main job on a laptop: the shipped tiny Qwen3-VL, GRPO with KL, single -> dual -> mixed.

Hardware: 2 CPU cores. Time: 7 to 10 minutes after the renders. Numbers to expect: RESULTS.md.
`scripts/quickstart.sh` renders the pairs, runs this and reports.
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
    RewardConfig,
    RolloutConfig,
    Stage,
)

# most steps on mixed pairs alone: where fewer have three differences, a third is left out
STAGES = (
    Stage(until=13, weights={"single": 1.0}),
    Stage(until=33, weights={"single": 0.3, "dual": 0.7}),
    Stage(until=130, weights={"mixed": 1.0}),
)


def get_config() -> Config:
    return Config(
        name="tiny_cpu",
        steps=130,
        pairs_per_step=16,
        run_dir="runs/tiny_cpu",
        model=ModelSource(source="assets/tiny_qwen3vl"),
        data=DataConfig(root="data/tiny", image_width=96, image_height=64),
        # one box is 20 tokens, each further one 18: most answers end long before the longest
        rollout=RolloutConfig(
            group=8, max_tokens=78, temperature=1.0, chunk=20, compact=0.5, layers="unroll"
        ),
        # a box that is found is found loosely: at weight 1 mean IoU ended .012 to .015 lower
        reward=RewardConfig(w_iou=2.0),
        # a model of 2.1 M parameters learns at a rate 300 times that of the released sizes
        optim=OptimConfig(rate=3e-4, warmup=5, schedule="linear", b2=0.98, weight_decay=0.0),
        # each part of the reward has its own spread (GDPO): by their sum the count of three did
        # not rise (docs/results/settings.md). Eight pairs at a time: four leave more of a turn
        # empty, all at once are no faster
        grpo=GrpoConfig(advantage="parts", kl_coef=0.005, accumulate=2),
        curriculum=CurriculumConfig(stages=STAGES),
        # the sampled policy, which GRPO trains, not its greedy answer
        eval=EvalConfig(pairs=300, batch=50, samples=4, splits=("test_noise", "test_jitter")),
        checkpoint=CheckpointConfig(every=20, keep=2),
    )
