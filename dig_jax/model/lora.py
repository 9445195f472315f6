"""Low-rank adapters (LoRA, arXiv 2106.09685) on the matrices of the text blocks.

A target W [L, in.., out..] gets A [L, in.., R] and B [L, R, out..]; the model computes with
W + (alpha / R) A B. B starts at 0, so a fresh adapter changes nothing, to the bit. The vision
tower has none. A tree with adapters holds them under "lora", beside the untouched weights.
"""

import difflib
import math

import jax
import jax.numpy as jnp

from dig_jax.model.config import LoraShape, ModelConfig
from dig_jax.model.params import Params
from dig_jax.model.specs import Spec, model_specs


def add_fresh(params: Params, config: ModelConfig, *, key: jax.Array) -> Params:
    """The parameters with adapters as `config.lora` says: A normal(0, 1 / sqrt(in)), B zero."""
    rows = model_specs(config)["lora"]

    def fresh(number: int, name: str, pair: dict[str, Spec]) -> dict:
        a, b = pair["a"], pair["b"]
        noise = jax.random.normal(jax.random.fold_in(key, number), a.shape)
        inputs = math.prod(a.shape[1:-1])
        return {"a": noise / math.sqrt(inputs), "b": jnp.zeros(b.shape, jnp.float32)}

    adapters = {name: fresh(i, name, pair) for i, (name, pair) in enumerate(sorted(rows.items()))}
    return params | {"lora": adapters}


def blocks_of(params: Params, config: ModelConfig) -> Params:
    """The text blocks f32[L, ...], each with its own layer of the adapters, if there are any."""
    if "lora" not in params:
        return params["blocks"]
    scale = config.lora.scale
    scaled = {name: {**pair, "b": pair["b"] * scale} for name, pair in params["lora"].items()}
    return params["blocks"] | {"lora": scaled}


def merged_block(p: Params) -> Params:
    """One block of `blocks_of` as the model reads it: its adapters are in its weights.

    Merging within the block keeps the gradient of a whole matrix to one layer at a time.
    """
    if "lora" not in p:
        return p
    plain = {name: value for name, value in p.items() if name != "lora"}
    return plain | {name: plain[name] + _product(**pair) for name, pair in p["lora"].items()}


def merge(params: Params, config: ModelConfig) -> Params:
    """The parameters without adapters that compute what these compute with them."""
    if "lora" not in params:
        return params
    blocks = jax.vmap(merged_block)(blocks_of(params, config))
    return {name: value for name, value in params.items() if name != "lora"} | {"blocks": blocks}


def adapters_of(like: Params, config: ModelConfig) -> Params:
    """{"lora": shapes} of the adapters on the blocks that are in `like`, placed as those are.

    like  tree of `jax.ShapeDtypeStruct`, or part of one; {} where it has no adapted matrix
    """
    if not config.lora:
        return {}
    rows = model_specs(config)["lora"]
    blocks = like.get("blocks", {})
    found = {
        name: {
            side: jax.ShapeDtypeStruct(spec.shape, jnp.float32, sharding=blocks[name].sharding)
            for side, spec in rows[name].items()
        }
        for name in rows
        if name in blocks
    }
    return {"lora": found} if found else {}


def check_targets(shape: LoraShape, blocks: dict[str, Spec]) -> None:
    """Raises ValueError for a target that is no matrix of a text block."""
    matrices = [name for name, spec in blocks.items() if " " in spec.layout.split("->")[1].strip()]
    for name in shape.targets:
        if name not in matrices:
            near = difflib.get_close_matches(name, matrices, n=3, cutoff=0.3) or matrices
            raise ValueError(
                f"lora.targets: {name!r} is no matrix of a text block; nearest: {', '.join(near)}"
            )


def _product(a: jax.Array, b: jax.Array) -> jax.Array:
    """A [in.., R] times B [R, out..]; in full float32, so that an exported merge is the same."""
    return jnp.tensordot(a, b, 1, precision=jax.lax.Precision.HIGHEST)
