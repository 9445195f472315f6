"""Make an untrained Qwen3-VL of one of SHAPES, which a supervised run then trains.

    python -m scripts.make.tiny_tokenizer --out runs/tiny_tokenizer --patch 8
    python -m scripts.make.base --tokenizer runs/tiny_tokenizer --out runs/tiny_fresh
    python -m dig_jax.sft --config configs/tiny_base.py

Seeded. Its first text blocks start as a comparison of two pictures, whose size it is made for
(others work, with less of a start), the next and the last one as searches (`model.coldinit`).
With --trained the last one alone starts anew, in a model of this kind that was trained for a while.
docs/base.md tells how the shipped one was made.
"""

import argparse

import jax
import numpy as np

from dig_jax.common.commandline import clear_errors, path_of, place_of, seed_of
from dig_jax.config import SftConfig
from dig_jax.hf import weights
from dig_jax.inputs import prompt as prompts
from dig_jax.learner.cells import ASKED, GAPS, THINGS, label_rows, places_of
from dig_jax.model.coldinit import Codes, comparing_init, matching_init
from dig_jax.model.config import ModelConfig, TextConfig, VisionConfig
from dig_jax.model.params import Params, count
from dig_jax.model.specs import model_specs
from scripts.make.tiny_tokenizer import VOCABULARY

SHAPES = {
    # 2.1 M parameters: 96x64 pixels are 6x4 cells of 16 px
    "tiny": (
        TextConfig(
            vocab=VOCABULARY, width=128, mlp=384, layers=5, heads=8, kv_heads=4, head_dim=32,
            rope_theta=100.0, mrope_section=(6, 5, 5), tied=False,
        ),
        VisionConfig(
            width=96, mlp=256, depth=2, heads=3, out=128, positions=256, deepstack=(0,), patch=8
        ),
    ),
    # 61 M: the released 2B with a quarter of its widths and half of its blocks, heads and taps'
    # depths; 256x192 pixels are 8x6 cells of 32 px. Positions are few, so theta is the tiny one's
    "mid": (
        TextConfig(
            vocab=VOCABULARY, width=512, mlp=1536, layers=14, heads=8, kv_heads=4, head_dim=64,
            rope_theta=100.0, mrope_section=(12, 10, 10), tied=False,
        ),
        VisionConfig(
            width=256, mlp=1024, depth=12, heads=4, out=512, positions=256, deepstack=(2, 5, 8),
            patch=16,
        ),
    ),
}  # fmt: skip
PICTURES = {"tiny": (96, 64), "mid": (256, 192)}  # px, width and height


def shaped(shape: str, processor: prompts.Processor) -> ModelConfig:
    """The model of a name of SHAPES, with the special ids of its tokenizer."""
    token = processor.tokenizer.convert_tokens_to_ids
    text, vision = SHAPES[shape]
    return ModelConfig(
        text=text,
        vision=vision,
        image_token=token("<|image_pad|>"),
        video_token=token("<|video_pad|>"),
        vision_start=token("<|vision_start|>"),
        vision_end=token("<|vision_end|>"),
        eos_tokens=(processor.eos_token, processor.tokenizer.pad_token_id),
        pad_token=processor.tokenizer.pad_token_id,
    )


def label_codes() -> Codes:
    """The rows of dense labels, where `sft.first_row` is left as it is."""
    rows = label_rows(SftConfig().first_row)
    used = np.delete(rows, places_of(GAPS))
    kinds = (THINGS, ASKED, ["wanted"], ["truth"])
    shown, asked, wanted, truth = (rows[places_of(names)] for names in kinds)
    return Codes(used, shown, asked, wanted[1:], truth[1:])  # yes: the second of each


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    add = parser.add_argument
    add("--tokenizer", type=place_of, required=True, help="folder of scripts.make.tiny_tokenizer")
    add("--out", type=path_of, required=True, help="checkpoint folder to write")
    add("--shape", default="tiny", choices=list(SHAPES), help="sizes of the model")
    add("--trained", type=place_of, help="checkpoint whose last block starts anew, as a search")
    add("--seed", type=seed_of, default=0)
    args = parser.parse_args()
    config = shaped(args.shape, prompts.load_processor(args.tokenizer))
    key = jax.random.key(args.seed)
    if args.trained:
        with clear_errors():
            params = trained(args.trained, config, key)
    else:
        params = fresh(args.shape, config, key)
    weights.save_hf(args.out, params, config, source_folder=args.tokenizer)
    what = f"a new search in {args.trained}" if args.trained else "untrained"
    print(f"wrote {args.out}: {count(model_specs(config))} parameters, {what}")


def fresh(shape: str, config: ModelConfig, key: jax.Array) -> Params:
    """Untrained parameters of one of SHAPES."""
    width, height = PICTURES[shape]
    config.check_image(height, width)
    cells = (height // config.vision.cell, width // config.vision.cell)
    return comparing_init(config, cells, key=key, codes=label_codes())


def trained(folder: str, config: ModelConfig, key: jax.Array) -> Params:
    """Those of a checkpoint of this shape with a new search; ValueError where it has another."""
    found = weights.read_model_config(folder)
    if (found.text, found.vision) != (config.text, config.vision):
        raise ValueError(f"--trained={folder} is no checkpoint of --shape; name the one it has")
    return matching_init(weights.load_params(folder, config), config, label_codes(), key=key)


if __name__ == "__main__":
    main()
