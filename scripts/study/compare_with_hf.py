"""Do we compute what `transformers` computes on this checkpoint? For any folder, at full size.

    .venv-parity/bin/python -m scripts.study.compare_with_hf FOLDER [--tokens 16]
    .venv-parity/bin/python -m scripts.study.compare_with_hf FOLDER --image a.png --image b.png

Opens the folder in float32 with Hugging Face's model and then with ours, each in a process of its
own (memory: four bytes per parameter and what the forward needs), and compares the logits of a
prompt with images and of every step of HF's greedy answer. Exits with 1 beyond --tolerance.
Images are cut to whole cells, not resized. A folder without a tokenizer is asked random tokens.
Needs the environment of scripts/parity.sh.
"""

import argparse
import os
import subprocess
import sys
import tempfile
from pathlib import Path

import numpy as np

from dig_jax.common.commandline import path_of

SIZES = ((256, 352), (288, 224))  # height, width of the default images: textures


def make_inputs(folder: Path, files: list[str], to: Path) -> None:
    """The prompt's expanded ids and the images, as both sides read them."""
    from PIL import Image

    from dig_jax.config import PromptConfig
    from dig_jax.hf.weights import read_model_config
    from dig_jax.inputs.prompt import load_processor, make_prompt, prompt_of_ids
    from scripts.make.goldens import texture

    config = read_model_config(folder)
    rng = np.random.default_rng(0)
    images = [np.asarray(Image.open(file).convert("RGB")) for file in files]
    images = images or [texture(rng, *size) for size in SIZES]
    cell = config.vision.cell
    images = [
        image[: len(image) // cell * cell, : image.shape[1] // cell * cell] for image in images
    ]
    sizes = [[image.shape[:2] for image in images]]
    if (folder / "tokenizer.json").is_file():
        prompt = make_prompt(PromptConfig(), load_processor(folder), config, sizes)
    else:
        one = [config.vision_start, config.image_token, config.vision_end]
        prompt = prompt_of_ids(config, [[*one * len(images), *rng.integers(0, 200, 24)]], sizes)
    stored = {f"image_{n}": image for n, image in enumerate(images)}
    np.savez(to, tokens=prompt.tokens[0, : prompt.length[0]], **stored)


def whole_cells(image: np.ndarray, cell: int) -> np.ndarray:
    height, width = (side // cell * cell for side in image.shape[:2])
    return image[:height, :width]


def run_hf(folder: Path, given: dict, steps: int) -> dict:
    import torch
    from transformers import Qwen2VLImageProcessorPil, Qwen3VLForConditionalGeneration

    model = Qwen3VLForConditionalGeneration.from_pretrained(folder, dtype=torch.float32).eval()
    c = model.config
    processor = Qwen2VLImageProcessorPil(
        patch_size=c.vision_config.patch_size,
        do_resize=False,
        image_mean=[0.5] * 3,
        image_std=[0.5] * 3,
    )
    seen = processor(images=images_of(given), return_tensors="pt")
    tokens = torch.from_numpy(given["tokens"]).long()[None]
    inputs = {
        "input_ids": tokens,
        "attention_mask": torch.ones_like(tokens),
        "mm_token_type_ids": (tokens == c.image_token_id).long(),
        "pixel_values": seen["pixel_values"].float(),
        "image_grid_thw": seen["image_grid_thw"],
    }
    vision_ids = [
        getattr(c, f"{name}_token_id") for name in ("image", "video", "vision_start", "vision_end")
    ]
    with torch.no_grad():
        prompt = model(**inputs).logits[0]
        model.model.rope_deltas = None
        made = model.generate(
            **inputs,
            do_sample=False,
            max_new_tokens=steps,
            min_new_tokens=steps,
            eos_token_id=None,
            pad_token_id=0,
            suppress_tokens=vision_ids,
            output_logits=True,
            return_dict_in_generate=True,
        )
    answer = made.sequences[0, tokens.shape[1] :].int().numpy()
    steps_logits = torch.cat(made.logits).numpy()
    return {"prompt": prompt.numpy(), "answer": answer, "answer_logits": steps_logits}


def run_ours(folder: Path, given: dict, answer: np.ndarray) -> dict:
    import jax
    import jax.numpy as jnp

    from dig_jax.hf.weights import load_params, read_model_config
    from dig_jax.inputs.prompt import prompt_of_ids
    from dig_jax.model import qwen3vl

    jax.config.update("jax_default_matmul_precision", "highest")
    config = read_model_config(folder)
    images = images_of(given)
    sizes = [[image.shape[:2] for image in images]]
    canvas = np.zeros((1, len(images), *np.max(sizes[0], axis=0), 3), np.uint8)
    for n, image in enumerate(images):
        canvas[0, n, : image.shape[0], : image.shape[1]] = image
    is_image = given["tokens"] == config.image_token
    keep = ~is_image | np.concatenate([[True], ~is_image[:-1]])  # one token per image again
    prompt = prompt_of_ids(config, [given["tokens"][keep]], sizes)
    params = load_params(folder, config)

    @jax.jit
    def logits(params):
        k, v, _, last = qwen3vl.prompt_states(params, config, prompt, canvas)
        cache = qwen3vl.cache_of(params, config, prompt, k, v, last)
        hidden = qwen3vl.score_tokens(params, config, cache, jnp.asarray(answer)[None, None])[0, 0]
        head = qwen3vl.unembed(params)
        return qwen3vl.final_norm(params, last, config)[0] @ head, hidden @ head

    whole, steps = logits(params)
    return {"prompt": np.asarray(whole), "answer_logits": np.asarray(steps)}


def images_of(given: dict) -> list[np.ndarray]:
    return [given[key] for key in sorted(given) if key.startswith("image_")]


def side(name: str, folder: str, work: str, steps: str) -> None:
    """What one of the two processes does."""
    given = dict(np.load(Path(work) / "given.npz"))
    if name == "hf":
        found = run_hf(Path(folder), given, int(steps))
    else:
        found = run_ours(Path(folder), given, np.load(Path(work) / "hf.npz")["answer"])
    np.savez(Path(work) / f"{name}.npz", **found)


def compare(folder: Path, work: Path, tolerance: float) -> bool:
    theirs, ours = (dict(np.load(work / f"{name}.npz")) for name in ("hf", "ours"))
    print(f"{folder}: {len(theirs['prompt'])} prompt tokens, {len(theirs['answer'])} answer tokens")
    good = True
    for part in ("prompt", "answer_logits"):
        gap = float(np.abs(theirs[part] - ours[part]).max())
        agree = (theirs[part].argmax(-1) == ours[part].argmax(-1)).mean()
        print(
            f"  {part:13s} largest difference {gap:.2g} (logits' standard deviation "
            f"{theirs[part].std():.2f}), argmax equal {agree:.1%}"
        )
        good &= gap <= tolerance
    return good


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("folder", type=path_of)
    parser.add_argument("--image", action="append", default=[], metavar="FILE")
    parser.add_argument("--tokens", type=int, default=16, help="length of the greedy answer")
    parser.add_argument("--tolerance", type=float, default=1e-4)
    parser.add_argument("--side", nargs=3, help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.side:
        side(args.side[0], str(args.folder), *args.side[1:])
        return 0
    with tempfile.TemporaryDirectory() as work:
        make_inputs(args.folder, args.image, Path(work) / "given.npz")
        env = os.environ | {"JAX_PLATFORMS": "cpu", "HF_HUB_OFFLINE": "1"}
        for name in ("hf", "ours"):
            command = [sys.executable, "-m", "scripts.study.compare_with_hf", str(args.folder)]
            subprocess.run([*command, "--side", name, work, str(args.tokens)], env=env, check=True)
        return 0 if compare(args.folder, Path(work), args.tolerance) else 1


if __name__ == "__main__":
    sys.exit(main())
