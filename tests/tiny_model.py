"""A Qwen3-VL small enough to compile in seconds, and prompts and images for it.

Every dimension that a mesh splits is divisible by eight (key-value heads by four). Weights are
large, and norms and biases random, so that a part left out or misplaced moves the logits.
"""

import dataclasses
from collections.abc import Sequence

import jax
import jax.numpy as jnp
import numpy as np

from dig_jax.hf import weights
from dig_jax.inputs.prompt import prompt_of_ids
from dig_jax.mesh.layout import Layout
from dig_jax.model.config import ModelConfig, TextConfig, VisionConfig
from dig_jax.model.inputs import PromptInputs
from dig_jax.model.params import Params, init_params
from dig_jax.model.specs import model_specs
from tests import ROOT

ASSETS = ROOT / "assets" / "tiny_qwen3vl"
PAD, IMAGE, VIDEO, START, END, EOS = range(6)
WORDS = range(6, 64)
SIZE = (16, 24)  # pixels, height and width; 2 x 3 merged cells

CONFIG = ModelConfig(
    text=TextConfig(
        vocab=64,
        width=32,
        mlp=32,
        layers=2,
        heads=8,
        kv_heads=4,
        head_dim=8,
        rope_theta=1e4,
        mrope_section=(2, 1, 1),
        tied=False,
    ),
    vision=VisionConfig(
        width=16, mlp=32, depth=2, heads=4, out=32, positions=16, deepstack=(0,), patch=4
    ),
    image_token=IMAGE,
    video_token=VIDEO,
    vision_start=START,
    vision_end=END,
    eos_tokens=(EOS, PAD),  # as Qwen: <|im_end|> and the pad token <|endoftext|>
    pad_token=PAD,
)


def small_base() -> ModelConfig:
    """The shipped model's vocabulary and special ids over a far smaller network."""
    shipped = weights.read_model_config(ASSETS)
    text = dataclasses.replace(
        shipped.text, width=16, mlp=16, layers=2, heads=2, kv_heads=1, head_dim=8,
        mrope_section=(2, 1, 1),
    )  # fmt: skip
    vision = dataclasses.replace(
        shipped.vision, width=16, mlp=16, depth=1, heads=2, out=16, positions=16
    )
    return dataclasses.replace(shipped, text=text, vision=vision)


def make_tiny(key: jax.Array, config: ModelConfig = CONFIG) -> Params:
    """Random float32 parameters, norms and biases included."""
    params = init_params(model_specs(config), key=key, scale=0.2)
    leaves, tree = jax.tree.flatten(params)
    keys = jax.random.split(jax.random.fold_in(key, 1), len(leaves))
    noise = [0.1 * jax.random.normal(k, a.shape) for k, a in zip(keys, leaves, strict=True)]
    return jax.tree.unflatten(tree, [a + n for a, n in zip(leaves, noise, strict=True)])


def leaning(params: Params, tokens: Sequence[int], strength: float) -> Params:
    """A policy whose logits of `tokens` are raised by about `strength`, whatever it has read.

    The head has no bias, so channel 0 is made a constant: set by the embeddings and the image
    tokens, written by nothing else, and read by the head for these tokens alone.
    """
    vision = params["vision"]
    unwritten = {name: params["blocks"][name].at[..., 0].set(0.0) for name in ("wo", "w_down")}

    def merger(tree, start):
        weight, bias = tree["w_down"], tree["w_down_bias"]
        return tree | {
            "w_down": weight.at[..., 0].set(0.0),
            "w_down_bias": bias.at[..., 0].set(start),
        }

    return params | {
        "embed": params["embed"].at[:, 0].set(3.0),
        "blocks": params["blocks"] | unwritten,
        "vision": vision
        | {
            "merger": merger(vision["merger"], 3.0),
            "deepstack": merger(vision["deepstack"], 0.0),
        },
        "norm": params["norm"].at[0].set(1.0),
        "head": params["head"].at[0].set(0.0).at[0, jnp.asarray(tokens)].set(strength),
    }


def fake_prompt(
    sizes: Sequence[Sequence[tuple[int, int]]],
    words: Sequence[int],
    *,
    seed: int = 0,
    canvas: tuple[int, int] | None = None,
    tokens: int | None = None,
) -> PromptInputs:
    """One row per entry: its images, then that many random words.

    sizes   (height, width) of each image of each row
    words   text tokens after the images, of each row
    """
    rng = np.random.default_rng(seed)
    ids = [
        [*[START, IMAGE, END] * len(row), *rng.choice(WORDS, count)]
        for row, count in zip(sizes, words, strict=True)
    ]
    return prompt_of_ids(CONFIG, ids, sizes, canvas=canvas, tokens=tokens)


def fake_images(
    sizes: Sequence[Sequence[tuple[int, int]]],
    *,
    seed: int = 0,
    canvas: tuple[int, int] | None = None,
) -> np.ndarray:
    """Noise images u8[B, I, Y, X, 3], zero outside their size; the canvas does not change them."""
    rng = np.random.default_rng(seed)
    flat = [size for row in sizes for size in row]
    canvas = tuple(max(s[axis] for s in flat) for axis in (0, 1)) if canvas is None else canvas
    out = np.zeros((len(sizes), max(map(len, sizes)), *canvas, 3), np.uint8)
    for r, row in enumerate(sizes):
        for k, (height, width) in enumerate(row):
            out[r, k, :height, :width] = rng.integers(0, 256, (height, width, 3), np.uint8)
    return out


def pairs_of(count: int, *, words: int = 3, seed: int = 0) -> tuple[PromptInputs, np.ndarray]:
    """`count` pairs of equal-sized noise images with prompts of one length, as in training."""
    sizes = [[SIZE, SIZE]] * count
    return fake_prompt(sizes, [words] * count, seed=seed), fake_images(sizes, seed=seed)


def quick_jit(function, **options):
    """`jax.jit` with LLVM's optimiser off: half the compile time, for models that run once."""
    return jax.jit(function, compiler_options={"xla_backend_optimization_level": 0}, **options)


class QuickLayout(Layout):
    """With LLVM's optimiser off."""

    def jit(self, function, **options):
        return quick_jit(self.traced(function), **options)
