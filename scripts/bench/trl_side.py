"""TRL's `GRPOTrainer` on the task of `scripts.bench.grpo`."""

import tempfile
import time
from statistics import median

import numpy as np

from scripts.bench.grpo_task import BETA, QUESTION, RATE, Task, cheap_reward, cpu_seconds


def run_trl(task: Task) -> dict:
    """`GRPOTrainer` on CPU: one generation batch per optimiser step, no checkpointing, no logs."""
    import torch
    from datasets import Dataset
    from transformers import TrainerCallback
    from trl import GRPOTrainer

    torch.set_num_threads(1)
    rows, ends, lengths, counted = trl_pairs(task), [], [], []

    def reward(completions, completion_ids, **_) -> list[float]:
        lengths.append(sum(map(len, completion_ids)))
        texts = [answer[0]["content"] for answer in completions]
        return [cheap_reward(text) for text in texts]

    class Clock(TrainerCallback):
        def on_step_end(self, *_, **__):
            ends.append(time.process_time())

    with tempfile.TemporaryDirectory() as scratch:
        trainer = GRPOTrainer(
            model=task.folder,
            reward_funcs=reward,
            args=trl_arguments(task, scratch),
            train_dataset=Dataset.from_list(rows),
            processing_class=picture_processor(task.folder),
            callbacks=[Clock()],
        )
        trainer.train()
    given = trl_rows(trainer.processing_class, rows, task.group)

    @torch.no_grad()
    def generate():
        made = trainer.model.generate(**given, generation_config=trainer.generation_config)
        counted.append(made[:, given["input_ids"].shape[1] :].numel())

    trainer.model.eval()
    alone = [cpu_seconds(generate) for _ in range(3)]
    return {
        "prompt": int(given["attention_mask"][0].sum()),
        "tokens": float(np.mean(lengths[task.warm :])),
        "rollout_tokens": counted[-1],
        "step_s": median(np.diff(ends[task.warm - 1 :]).tolist()),
        "rollout_s": median(alone),
        "params_in": str(next(trainer.model.parameters()).dtype),
    }


def trl_pairs(task: Task) -> list[dict]:
    """The task's pairs as rows of a conversational data set."""
    from PIL import Image

    ask = [{"type": "image"}, {"type": "image"}, {"type": "text", "text": QUESTION}]
    return [
        {
            "prompt": [{"role": "user", "content": ask}],
            "images": [Image.fromarray(image) for image in pair],
        }
        for pair in np.load(task.images)
    ]


def trl_arguments(task: Task, scratch: str):
    from trl import GRPOConfig

    return GRPOConfig(
        output_dir=scratch,
        use_cpu=True,
        bf16=False,
        gradient_checkpointing=False,
        per_device_train_batch_size=task.pairs * task.group,
        num_generations=task.group,
        max_completion_length=task.tokens,
        generation_kwargs={} if task.ends else {"min_new_tokens": task.tokens},
        temperature=1.0,
        beta=BETA,
        learning_rate=RATE,
        max_steps=task.warm + task.steps,
        logging_strategy="no",
        save_strategy="no",
        report_to="none",
        disable_tqdm=True,
        seed=0,
    )


def picture_processor(folder: str):
    """Hugging Face's Qwen3VLProcessor for images alone: its video part would need torchvision."""
    from transformers import (
        AutoTokenizer,
        ProcessorMixin,
        Qwen2VLImageProcessorPil,
        Qwen3VLProcessor,
    )

    class PictureProcessor(Qwen3VLProcessor):
        def __init__(self, image_processor, tokenizer, chat_template=None):
            for kind in ("image", "video"):
                token = f"<|{kind}_pad|>"
                setattr(self, f"{kind}_token", token)
                setattr(self, f"{kind}_token_id", tokenizer.convert_tokens_to_ids(token))
            ProcessorMixin.__init__(self, image_processor, tokenizer, chat_template=chat_template)

    tokenizer = AutoTokenizer.from_pretrained(folder)
    images = Qwen2VLImageProcessorPil.from_pretrained(folder)
    return PictureProcessor(images, tokenizer, chat_template=tokenizer.chat_template)


def trl_rows(processor, rows: list[dict], group: int) -> dict:
    """The batch that the trainer gives `generate`: every prompt `group` times."""
    text = processor.apply_chat_template(rows[0]["prompt"], add_generation_prompt=True)
    images = [row["images"] for row in rows for _ in range(group)]
    batch = processor(images=images, text=[text] * len(images), padding=True, return_tensors="pt")
    return dict(batch)
