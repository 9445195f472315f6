"""Hugging Face's side of the benchmarks of generation: its inputs, and greedy answers.

Imports torch, which is only in the environment of scripts/parity.sh and on GPU machines.
"""

from collections.abc import Callable, Sequence

import numpy as np

from dig_jax.model.config import ModelConfig
from dig_jax.model.logprob import banned_tokens


def inputs(config: ModelConfig, ids: Sequence[Sequence[int]], images: np.ndarray) -> dict:
    """What `generate` is given: every row with its own images.

    ids     of rows of one length, with one image token per image
    images  u8[B, I, Y, X, 3]
    """
    import torch
    from transformers import Qwen2VLImageProcessorPil

    patch, image, size = config.vision.patch, config.image_token, images.shape[2:4]
    seen = Qwen2VLImageProcessorPil(
        patch_size=patch, do_resize=False, image_mean=[0.5] * 3, image_std=[0.5] * 3
    )(images=list(images.reshape(-1, *size, 3)), return_tensors="pt")
    cells = config.cells(*size)
    tokens = torch.tensor(
        [[t for i in row for t in [i] * (cells if i == image else 1)] for row in ids]
    )
    return {
        "input_ids": tokens,
        "attention_mask": torch.ones_like(tokens),
        "mm_token_type_ids": (tokens == image).long(),
        "pixel_values": seen["pixel_values"].float(),
        "image_grid_thw": seen["image_grid_thw"],
    }


def greedy(model, config: ModelConfig, given: dict) -> Callable[[int], np.ndarray]:
    """generate(steps) -> i[B, steps], no token of an image among them and none that ends."""
    import torch

    @torch.no_grad()
    def generate(steps: int) -> np.ndarray:
        made = model.generate(
            **given,
            do_sample=False,
            max_new_tokens=steps,
            min_new_tokens=steps,
            eos_token_id=None,
            pad_token_id=config.pad_token,
            suppress_tokens=np.flatnonzero(banned_tokens(config)).tolist(),
        )
        return made[:, given["input_ids"].shape[1] :].cpu().numpy()

    return generate
