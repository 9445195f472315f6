"""Write tests/hf_outputs: tiny random Qwen3-VL checkpoints and what Hugging Face says of them.

    .venv-parity/bin/python -m scripts.make.goldens --out tests/hf_outputs

Needs the environment of scripts/parity.sh (torch, CPU). The default test run compares our model
with these files, so torch is needed only here and for the live comparison of the parity stage.

Weights come from `make_random_checkpoint.random_tensor`, rounded to float16; two checkpoints are
stored so, the deep one is drawn again by the tests. All arithmetic is float32, but for one
bfloat16 forward whose deviation is what a correct bfloat16 run may have.
"""

import argparse
import tempfile
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from safetensors.torch import save_file
from transformers import Qwen2VLImageProcessorPil, Qwen3VLConfig, Qwen3VLForConditionalGeneration

from dig_jax.common.commandline import path_of
from dig_jax.hf.weights import read_model_config
from dig_jax.model.specs import model_specs, named_specs
from scripts.make.random_checkpoint import random_tensor, sketch

START, END, IMAGE, VIDEO, PAD, EOS = 240, 241, 242, 243, 244, 245  # of a vocabulary of 251
STEPS = 64  # greedy tokens
SCORED = 16  # tokens of each answer in the log-likelihood whose gradient is compared
HEAD = "lm_head.weight"


@dataclass(frozen=True)
class Case:
    """One checkpoint and the image sizes (height, width) of each row of its batch."""

    config: Qwen3VLConfig
    sizes: tuple[tuple[tuple[int, int], ...], ...]
    seed: int


def make_config(*, tied: bool, text: dict, vision: dict, rope: dict) -> Qwen3VLConfig:
    rope = {"rope_type": "default", "mrope_interleaved": True, **rope}
    return Qwen3VLConfig(
        text_config={"vocab_size": 251, "eos_token_id": EOS, "rope_parameters": rope, **text},
        vision_config={"out_hidden_size": text["hidden_size"], **vision},
        image_token_id=IMAGE,
        video_token_id=VIDEO,
        vision_start_token_id=START,
        vision_end_token_id=END,
        tie_word_embeddings=tied,
    )


def tied_case() -> Case:
    """Tied, theta 5,000,000, three deepstack taps; three, two, one and no image in a row."""
    config = make_config(
        tied=True,
        text={
            "hidden_size": 48,
            "intermediate_size": 80,
            "num_hidden_layers": 4,
            "num_attention_heads": 4,
            "num_key_value_heads": 2,
            "head_dim": 32,
        },
        vision={
            "hidden_size": 32,
            "intermediate_size": 56,
            "depth": 4,
            "num_heads": 2,
            "patch_size": 4,
            "num_position_embeddings": 64,
            "deepstack_visual_indexes": [0, 1, 3],
        },
        rope={"rope_theta": 5e6, "mrope_section": [6, 5, 5]},
    )
    three = ((16, 16), (8, 24), (24, 8))
    return Case(config, (((24, 40), (32, 16)), ((40, 24),), (), three), seed=12)


def untied_case() -> Case:
    """Untied, theta 10,000 and section [16, 8, 8], where a wrong section length shows."""
    config = make_config(
        tied=False,
        text={
            "hidden_size": 40,
            "intermediate_size": 72,
            "num_hidden_layers": 3,
            "num_attention_heads": 3,
            "num_key_value_heads": 1,
            "head_dim": 64,
        },
        vision={
            "hidden_size": 48,
            "intermediate_size": 64,
            "depth": 3,
            "num_heads": 2,
            "patch_size": 8,
            "num_position_embeddings": 144,
            "deepstack_visual_indexes": [1, 2],
        },
        rope={"rope_theta": 1e4, "mrope_section": [16, 8, 8]},
    )
    return Case(config, (((48, 80), (64, 32)), ((32, 32), (48, 16))), seed=12)


def deep_case() -> Case:
    """The 8B's depth, taps, head sizes, patch and positions, in narrow layers; not stored."""
    config = make_config(
        tied=False,
        text={
            "hidden_size": 64,
            "intermediate_size": 96,
            "num_hidden_layers": 36,
            "num_attention_heads": 8,
            "num_key_value_heads": 2,
            "head_dim": 128,
        },
        vision={
            "hidden_size": 144,
            "intermediate_size": 272,
            "depth": 27,
            "num_heads": 2,
            "patch_size": 16,
            "num_position_embeddings": 2304,
            "deepstack_visual_indexes": [8, 16, 24],
        },
        rope={"rope_theta": 5e6, "mrope_section": [24, 20, 20]},
    )
    return Case(config, (((96, 160), (128, 64)), ((64, 32),), ()), seed=4)


CASES = {"tied": tied_case, "untied": untied_case, "deep": deep_case}


def build(case: Case) -> Qwen3VLForConditionalGeneration:
    """A float32 model with every parameter random, logits of standard deviation near 1.5."""
    model = Qwen3VLForConditionalGeneration._from_config(case.config, attn_implementation="eager")
    specs = specs_by_key(case.config)
    for name, parameter in model.named_parameters():
        value = torch.from_numpy(random_tensor(name, specs[name], case.seed))
        parameter.data = value.half().float()
    return model.eval()


def specs_by_key(config: Qwen3VLConfig) -> dict:
    """Our table's row of every checkpoint key of a Hugging Face configuration."""
    with tempfile.TemporaryDirectory() as folder:
        config.save_pretrained(folder)
        ours = read_model_config(folder)
    return {key: spec for _, spec in named_specs(model_specs(ours)) for key in spec.keys}


def make_images(case: Case) -> list[list[np.ndarray]]:
    """Textured u8 images, all different: smooth colour waves plus noise."""
    rng = np.random.default_rng(case.seed)
    return [[texture(rng, *size) for size in row] for row in case.sizes]


def texture(rng: np.random.Generator, height: int, width: int) -> np.ndarray:
    y = np.linspace(0, 1, height)[:, None, None]
    x = np.linspace(0, 1, width)[None, :, None]
    up, across, phase = rng.uniform(1, 4, 3), rng.uniform(1, 4, 3), rng.uniform(0, 6, 3)
    waves = 128 + 90 * np.sin(6.3 * (up * y + across * x) + phase)
    noise = rng.normal(0, 25, (height, width, 3))
    return np.clip(waves + noise, 0, 255).astype(np.uint8)


def make_ids(case: Case) -> list[list[int]]:
    """Random text around one image token per image."""
    rng = np.random.default_rng(case.seed + 100)

    def words(low: int, high: int) -> list[int]:
        return rng.integers(0, START, rng.integers(low, high)).tolist()

    rows = []
    for row in case.sizes:
        ids = words(1, 4)
        for _ in row:
            ids += [START, IMAGE, END, *words(0, 3)]
        rows.append(ids + words(5, 9))
    return rows


def hf_inputs(
    case: Case, ids: list[list[int]], images: list[list[np.ndarray]], answers: list | None = None
) -> dict:
    """A left-padded batch as HF's generate wants it, by HF's own image processor.

    answers  token ids to append to each row
    """
    vision = case.config.vision_config
    processor = Qwen2VLImageProcessorPil(
        patch_size=vision.patch_size, do_resize=False, image_mean=[0.5] * 3, image_std=[0.5] * 3
    )
    flat = [image for row in images for image in row]
    seen = processor(images=flat, return_tensors="pt")
    counts = iter((seen["image_grid_thw"].prod(-1) // 4).tolist())
    rows = [[t for i in row for t in [i] * (next(counts) if i == IMAGE else 1)] for row in ids]
    rows = [[*row, *answer] for row, answer in zip(rows, answers or [[]] * len(rows), strict=True)]
    width = max(map(len, rows))
    tokens = torch.tensor([[PAD] * (width - len(row)) + row for row in rows])
    mask = torch.tensor([[0] * (width - len(row)) + [1] * len(row) for row in rows])
    return {
        "input_ids": tokens,
        "attention_mask": mask,
        "pixel_values": seen["pixel_values"].float(),
        "image_grid_thw": seen["image_grid_thw"],
        "mm_token_type_ids": (tokens == IMAGE).long(),
    }


@torch.no_grad()
def answers_of(model: Qwen3VLForConditionalGeneration, inputs: dict) -> dict[str, np.ndarray]:
    """What HF computes: logits and positions right-padded, vision features, greedy decoding."""
    model.model.rope_deltas = None  # the model object remembers them between calls
    logits = model(**inputs).logits
    rope = {k: v for k, v in inputs.items() if k != "pixel_values"}
    positions, _ = model.model.get_rope_index(**rope)
    seen = model.model.visual(inputs["pixel_values"], grid_thw=inputs["image_grid_thw"])
    model.model.rope_deltas = None
    made = model.generate(
        **inputs,
        do_sample=False,
        max_new_tokens=STEPS,
        min_new_tokens=STEPS,
        eos_token_id=None,
        pad_token_id=PAD,
        suppress_tokens=list(range(START, VIDEO + 1)),  # as `banned_tokens`
        output_logits=True,
        return_dict_in_generate=True,
    )
    mask = inputs["attention_mask"].bool()
    return {
        "tokens": _right_padded(inputs["input_ids"], mask),
        "length": mask.sum(-1).numpy().astype(np.int32),
        "positions": _right_padded(positions.permute(1, 2, 0), mask).transpose(0, 2, 1),
        "logits": _right_padded(logits, mask),
        "vision": seen.pooler_output.numpy(),
        "deepstack": torch.stack(seen.deepstack_features).numpy(),
        "greedy": made.sequences[:, mask.shape[1] :].numpy().astype(np.int32),
        "greedy_logits": torch.stack(made.logits, 1).numpy(),
    }


def gradients_of(
    model: Qwen3VLForConditionalGeneration, case: Case, ids, images, answers: np.ndarray
) -> tuple[float, dict[str, np.ndarray]]:
    """Mean log-likelihood of answers i32[B, G, T] in nats, and its gradient by checkpoint key.

    Every prompt is repeated for each of its G answers, images and all.
    """
    group = answers.shape[1]
    rows = [
        (row, pictures) for row, pictures in zip(ids, images, strict=True) for _ in range(group)
    ]
    flat = torch.from_numpy(answers.reshape(len(rows), -1)).long()
    inputs = hf_inputs(case, [r for r, _ in rows], [p for _, p in rows], flat.tolist())
    model.model.rope_deltas = None
    model.zero_grad()
    logits = model(**inputs).logits[:, -flat.shape[1] - 1 : -1]
    logp = logits.log_softmax(-1).gather(-1, flat[..., None])
    logp.mean().backward()
    found = {name: p.grad.numpy() for name, p in model.named_parameters()}
    return logp.mean().item(), found


@torch.no_grad()
def bfloat16_deviation(case: Case, inputs: dict, logits: np.ndarray) -> np.ndarray:
    """Root mean square over the vocabulary of (HF in bfloat16 - HF in float32), f32[B, P]."""
    model = build(case).to(torch.bfloat16)
    narrow = _right_padded(model(**inputs).logits.float(), inputs["attention_mask"].bool())
    return np.sqrt(np.square(narrow - logits).mean(-1))


def _right_padded(values: torch.Tensor, mask: torch.Tensor) -> np.ndarray:
    """Rows without their left padding, zeros at the end instead."""
    out = torch.zeros_like(values)
    for row, (value, keep) in enumerate(zip(values, mask, strict=True)):
        out[row, : keep.sum()] = value[keep]
    return out.numpy().astype(np.float32 if values.is_floating_point() else np.int32)


def save_checkpoint(model: Qwen3VLForConditionalGeneration, folder: Path) -> None:
    """config.json and the weights as float16, which holds them exactly."""
    model.config.save_pretrained(folder)
    state = model.state_dict()
    if model.config.tie_word_embeddings:
        state.pop("lm_head.weight")
    halves = {key: value.half().contiguous() for key, value in state.items()}
    save_file(halves, folder / "model.safetensors", metadata={"format": "pt"})


def compute(case: Case) -> tuple[Qwen3VLForConditionalGeneration, dict, dict]:
    """The model, all that HF says of a case, and its gradients by key."""
    model, images, ids = build(case), make_images(case), make_ids(case)
    inputs = hf_inputs(case, ids, images)
    found = answers_of(model, inputs)
    found["bfloat16_rms"] = bfloat16_deviation(case, inputs, found["logits"])
    greedy = found["greedy"][:, :SCORED]
    found["answers"] = np.stack([greedy, np.roll(greedy, 1, axis=1)], axis=1)
    found["loglik"], gradients = gradients_of(model, case, ids, images, found["answers"])
    found |= {
        f"image_{r}_{k}": image for r, row in enumerate(images) for k, image in enumerate(row)
    }
    found |= {f"ids_{r}": np.array(row, np.int32) for r, row in enumerate(ids)}
    return model, found, gradients


def greedy_margin(found: dict) -> float:
    """How far the second-best token stays behind; below the noise the comparison is a lottery."""
    logits = found["greedy_logits"].copy()
    logits[..., START : VIDEO + 1] = -np.inf
    top = np.sort(logits, axis=-1)
    return float((top[..., -1] - top[..., -2]).min())


def write_golden(name: str, folder: Path) -> None:
    case = CASES[name]()
    model, found, gradients = compute(case)
    margin = greedy_margin(found)
    assert margin > 1e-3, f"{name}: greedy tie within {margin}; choose another seed"
    folder.mkdir(parents=True, exist_ok=True)
    if name == "deep":
        model.config.save_pretrained(folder)
        # 27 + 36 layers of features tell nothing that the logits do not
        found = {key: value for key, value in found.items() if key not in ("vision", "deepstack")}
    else:
        save_checkpoint(model, folder)
    keys = sorted(gradients)
    found["gradient_norm"] = np.array([np.linalg.norm(gradients[key]) for key in keys])
    found["gradient_sketch"] = np.stack([sketch(key, gradients[key]) for key in keys])
    np.savez_compressed(folder / "golden.npz", seed=case.seed, **found)
    real = found["logits"][found["tokens"].astype(bool)]
    print(f"{name}: logits std {real.std():.2f}, greedy margin {margin:.4f}")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--out", type=path_of, default=Path("tests/hf_outputs"))
    parser.add_argument("--only", choices=CASES, help="one case instead of all")
    args = parser.parse_args()
    for name in [args.only] if args.only else CASES:
        write_golden(name, args.out / name)


if __name__ == "__main__":
    main()
