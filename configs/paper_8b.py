"""DiG as far as its paper says it, on Qwen3-VL-8B-Thinking; what is guessed is named here.

Hardware: 8 GPUs of 80 GB, or a TPU slice by `--set mesh.fsdp=... --set mesh.tensor=...`. Time and
result: not run here. Known: the model, 4,800 rendered pairs (1,600 each with one, two and a mixed
number of differences), the curriculum single -> dual -> mixed, Hungarian matching by L1 and GIoU,
R of format, F1 and mean IoU, GRPO with a KL.

Guessed:
- how alpha and the lambdas enter R, and their values (`published_reward`; here a tenth for the
  format and equal shares of the rest, as EasyR1's examples weigh theirs);
- the matching cost's weights (DETR's), the threshold of F1 (IoU .5), the denominator of mean IoU
  (the larger count), the reward of two empty lists (1);
- the trainer's numbers: EasyR1's (`easyr1_parity.py`), its 512 prompts x 5 answers a step included;
- the correction of the sampler's log-probs (`mismatch`), which EasyR1 has not;
- length of the stages (a third each), one reference for all of them, Adam kept;
- answers of at most 4,096 tokens.
"""

from dataclasses import replace

from configs import easyr1_parity
from dig_jax.config import Config, published_reward


def get_config() -> Config:
    trainer = easyr1_parity.get_config()
    return replace(
        trainer,
        name="paper_8b",
        run_dir="runs/paper_8b",
        model=replace(trainer.model, source="models/Qwen3-VL-8B-Thinking"),
        rollout=replace(trainer.rollout, max_tokens=4096),
        reward=published_reward(alpha=0.1, lambda_f1=0.5, lambda_iou=0.5, think="prefilled"),
        grpo=replace(trainer.grpo, mismatch="truncate", answer_slices=5),
    )
