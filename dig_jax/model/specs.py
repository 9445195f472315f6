"""The one table that describes every parameter.

Each `Spec` row holds shape, logical axes, initialiser, Hugging Face key and reversible layout.
Initialisation, sharding, import and export are all derived from the same rows.
"""

import math
import re
from collections.abc import Iterator
from dataclasses import dataclass, field

import jax
import numpy as np

from dig_jax.model.config import LoraShape, ModelConfig, TextConfig, VisionConfig


@dataclass(frozen=True)
class Spec:
    """One parameter: our layout, HF's layout, and what lies between.

    layout   "HF dims -> our dims", brackets join dims: "(n h) d -> d n h"
    sizes    length of every letter in `layout`
    axes     logical axis of each of our dims, for sharding rules
    hf       checkpoint key; "{layer}" counts the stack
    init     "normal" | "zeros" | "ones"
    stack    0, or the number of layers stacked on a leading "layer" axis
    """

    hf: str
    layout: str
    sizes: dict[str, int] = field(hash=False)
    logical: tuple[str, ...]
    init: str = "normal"
    stack: int = 0

    @property
    def axes(self) -> tuple[str, ...]:
        return ("layer", *self.logical) if self.stack else self.logical

    @property
    def shape(self) -> tuple[int, ...]:
        ours = self._grouped_shape(1)
        return (self.stack, *ours) if self.stack else ours

    @property
    def hf_shape(self) -> tuple[int, ...]:
        return self._grouped_shape(0)

    @property
    def keys(self) -> list[str]:
        """HF keys of this row, in stack order."""
        return [self.hf.format(layer=i) for i in range(self.stack)] if self.stack else [self.hf]

    def from_hf(self, tensor: np.ndarray) -> np.ndarray:
        """One HF tensor in our layout (without the stack axis), as a view of the same memory."""
        return self._move(tensor, 0, 1)

    def to_hf(self, array: np.ndarray) -> np.ndarray:
        """The exact inverse of `from_hf`, contiguous as a file wants it."""
        return np.ascontiguousarray(self._move(array, 1, 0))

    def _groups(self, side: int) -> list[list[str]]:
        found = re.findall(r"\(([^)]*)\)|(\w+)", self.layout.split("->")[side])
        return [group.split() or [single] for group, single in found]

    def _grouped_shape(self, side: int) -> tuple[int, ...]:
        return tuple(math.prod(self.sizes[d] for d in group) for group in self._groups(side))

    def _move(self, array: np.ndarray, source: int, target: int) -> np.ndarray:
        letters = [d for group in self._groups(source) for d in group]
        goal = [d for group in self._groups(target) for d in group]
        split = array.reshape([self.sizes[d] for d in letters])
        order = [letters.index(d) for d in goal]
        return split.transpose(order).reshape(self._grouped_shape(target))


def _text_block(c: TextConfig) -> dict[str, Spec]:
    hf = "model.language_model.layers.{layer}."
    s = {"d": c.width, "n": c.heads, "k": c.kv_heads, "h": c.head_dim, "f": c.mlp}

    def row(key, layout, *axes, init="normal"):
        return Spec(hf + key + ".weight", layout, s, axes, init, stack=c.layers)

    return {
        "attn_norm": row("input_layernorm", "d -> d", "norm", init="ones"),
        "wq": row("self_attn.q_proj", "(n h) d -> d n h", "embed", "heads", "head_dim"),
        "wk": row("self_attn.k_proj", "(k h) d -> d k h", "embed", "kv_heads", "head_dim"),
        "wv": row("self_attn.v_proj", "(k h) d -> d k h", "embed", "kv_heads", "head_dim"),
        "wo": row("self_attn.o_proj", "d (n h) -> n h d", "heads", "head_dim", "embed"),
        "q_norm": row("self_attn.q_norm", "h -> h", "norm", init="ones"),
        "k_norm": row("self_attn.k_norm", "h -> h", "norm", init="ones"),
        "mlp_norm": row("post_attention_layernorm", "d -> d", "norm", init="ones"),
        "w_gate": row("mlp.gate_proj", "f d -> d f", "embed", "mlp"),
        "w_up": row("mlp.up_proj", "f d -> d f", "embed", "mlp"),
        "w_down": row("mlp.down_proj", "d f -> f d", "mlp", "embed"),
    }


def _vision_block(c: VisionConfig) -> dict[str, Spec]:
    hf = "model.visual.blocks.{layer}."
    s = {"d": c.width, "c": 3, "n": c.heads, "h": c.head_dim, "f": c.mlp}

    def row(key, layout, *axes, init="normal"):
        return Spec(hf + key, layout, s, axes, init, stack=c.depth)

    return {
        "norm1": row("norm1.weight", "d -> d", "norm", init="ones"),
        "norm1_bias": row("norm1.bias", "d -> d", "norm", init="zeros"),
        "wqkv": row("attn.qkv.weight", "(c n h) d -> d c n h", "embed", "qkv", "heads", "head_dim"),
        "wqkv_bias": row(
            "attn.qkv.bias", "(c n h) -> c n h", "qkv", "heads", "head_dim", init="zeros"
        ),
        "wo": row("attn.proj.weight", "d (n h) -> n h d", "heads", "head_dim", "embed"),
        "wo_bias": row("attn.proj.bias", "d -> d", "norm", init="zeros"),
        "norm2": row("norm2.weight", "d -> d", "norm", init="ones"),
        "norm2_bias": row("norm2.bias", "d -> d", "norm", init="zeros"),
        "w_up": row("mlp.linear_fc1.weight", "f d -> d f", "embed", "vision_mlp"),
        "w_up_bias": row("mlp.linear_fc1.bias", "f -> f", "vision_mlp", init="zeros"),
        "w_down": row("mlp.linear_fc2.weight", "d f -> f d", "vision_mlp", "embed"),
        "w_down_bias": row("mlp.linear_fc2.bias", "d -> d", "norm", init="zeros"),
    }


def _merger(c: VisionConfig, hf: str, *, norm_width: int, stack: int = 0) -> dict[str, Spec]:
    joined = c.width * c.merge**2
    s = {"n": norm_width, "i": joined, "f": joined, "o": c.out}

    def row(key, layout, *axes, init="normal"):
        return Spec(hf + key, layout, s, axes, init, stack)

    return {
        "norm": row("norm.weight", "n -> n", "norm", init="ones"),
        "norm_bias": row("norm.bias", "n -> n", "norm", init="zeros"),
        "w_up": row("linear_fc1.weight", "f i -> i f", "embed", "vision_mlp"),
        "w_up_bias": row("linear_fc1.bias", "f -> f", "vision_mlp", init="zeros"),
        "w_down": row("linear_fc2.weight", "o f -> f o", "vision_mlp", "embed"),
        "w_down_bias": row("linear_fc2.bias", "o -> o", "norm", init="zeros"),
    }


def _vision(c: VisionConfig) -> dict:
    hf = "model.visual."
    s = {"d": c.width, "c": c.channels, "t": c.temporal, "y": c.patch, "x": c.patch}
    tree = {
        "patch": Spec(
            hf + "patch_embed.proj.weight",
            "d c t y x -> (c t y x) d",
            s,
            ("pixels", "embed"),
        ),
        "patch_bias": Spec(hf + "patch_embed.proj.bias", "d -> d", s, ("norm",), "zeros"),
        "position": Spec(
            hf + "pos_embed.weight",
            "p d -> p d",
            {"p": c.positions, "d": c.width},
            ("positions", "embed"),
        ),
        "blocks": _vision_block(c),
        "merger": _merger(c, hf + "merger.", norm_width=c.width),
    }
    if c.deepstack:
        tree["deepstack"] = _merger(
            c,
            hf + "deepstack_merger_list.{layer}.",
            norm_width=c.width * c.merge**2,
            stack=len(c.deepstack),
        )
    return tree


def _adapters(shape: LoraShape, blocks: dict[str, Spec]) -> dict[str, dict[str, Spec]]:
    """Rows a [in.., R] and b [R, out..] of every target; in no Hugging Face file."""
    found = {}
    for name in shape.targets:
        spec = blocks[name]
        outputs, inputs = (" ".join(group) for group in spec._groups(0))
        sizes = {**spec.sizes, "r": shape.rank}
        split = len(inputs.split())

        def row(layout, *axes, sizes=sizes, stack=spec.stack):
            return Spec("", f"{layout} -> {layout}", sizes, axes, stack=stack)

        found[name] = {
            "a": row(f"{inputs} r", *spec.logical[:split], "rank"),
            "b": row(f"r {outputs}", "rank", *spec.logical[split:]),
        }
    return found


def model_specs(c: ModelConfig) -> dict:
    """The table: a nested dict of `Spec` with the structure of the parameters."""
    s = {"v": c.text.vocab, "d": c.text.width}
    hf = "model.language_model."
    # A table that is only read is split by features: split by rows, every device would sum up
    # whole embeddings. One that is the head too is split by rows, for the logits outweigh them.
    table = ("vocab", "embed") if c.text.tied else ("token", "feature")
    tree = {
        "embed": Spec(hf + "embed_tokens.weight", "v d -> v d", s, table),
        "blocks": _text_block(c.text),
        "norm": Spec(hf + "norm.weight", "d -> d", s, ("norm",), "ones"),
        "vision": _vision(c.vision),
    }
    if not c.text.tied:
        tree["head"] = Spec("lm_head.weight", "v d -> d v", s, ("embed", "vocab"))
    if c.lora:
        tree["lora"] = _adapters(c.lora, tree["blocks"])
    return tree


def is_spec(x) -> bool:
    return isinstance(x, Spec)


def named_specs(specs: dict) -> Iterator[tuple[str, Spec]]:
    """("blocks/wq", Spec) pairs in a fixed order."""
    for path, spec in jax.tree_util.tree_leaves_with_path(specs, is_leaf=is_spec):
        yield "/".join(str(k.key) for k in path), spec
