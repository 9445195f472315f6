"""Whether two checkpoints are the same: settings, companions, every parameter, and logits.

Parameters are read one at a time from both sides; models are held one after the other.
"""

import dataclasses
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial

import jax
import numpy as np

from dig_jax.common.json_files import read_json, shown
from dig_jax.config import PromptConfig
from dig_jax.hf import weights
from dig_jax.hf.export import DTYPES
from dig_jax.hf.files import companions, local_companions, open_folder
from dig_jax.hf.portable import portable_bytes
from dig_jax.inputs.prompt import load_processor, make_prompt
from dig_jax.model.config import ModelConfig
from dig_jax.model.params import Params
from dig_jax.model.qwen3vl import full_logits
from dig_jax.model.specs import Spec, is_spec, model_specs, named_specs
from dig_jax.run import arrays

GAP = 1e-4  # of logits between equal float32 weights; correct implementations differ by 2.4e-5
# Image sizes in merged cells, rows and columns: two pairs of unequal images, and text alone.
PROMPTS = (((2, 3), (3, 2)), ((2, 2), (3, 4)), ())
_TEXT_AND_PIXELS = (
    *("tokenizer", "vocab", "merges", "special_tokens", "added_tokens", "chat_template"),
    *("preprocessor", "video_preprocessor", "generation_config"),
)


@dataclass(frozen=True)
class Side:
    """One checkpoint.

    label      for messages
    folder     with config.json and companions, local or gs://
    each       () -> ("blocks/wq", array f32) in the table's order
    """

    label: str
    folder: str
    model: ModelConfig
    each: Callable[[], Iterator[tuple[str, jax.Array]]]


def folder_side(folder: str) -> Side:
    """A Hugging Face folder, or one made by `convert import`."""
    model = weights.read_model_config(folder)
    if arrays.has_params(folder):
        return Side(folder, folder, model, restored(partial(arrays.load_params, folder), model))
    return Side(folder, folder, model, partial(weights.each_param, folder, model))


def restored(read: Callable[[Params], Params], model: ModelConfig) -> Callable[[], Iterator]:
    """A side's `each` over Orbax: `read` restores the part of the tree that its argument names."""
    rows = list(named_specs(model_specs(model)))
    return lambda: ((name, read_one(read, name, spec)) for name, spec in rows)


def read_one(read: Callable[[Params], Params], name: str, spec: Spec) -> jax.Array:
    """One parameter f32 on one device."""
    where = jax.sharding.SingleDeviceSharding(jax.local_devices()[0])
    like = jax.ShapeDtypeStruct(spec.shape, np.float32, sharding=where)
    for part in reversed(name.split("/")):
        like = {part: like}
    return jax.tree.leaves(read(like))[0]


def compare(one: Side, other: Side) -> str:
    """What was compared and how far apart the logits are.

    Parameters are compared rounded to the dtype that config.json of `one` names. Raises
    ValueError naming the first setting, file or parameter that differs, or the logits.
    """
    _same_settings(one, other)
    _same_companions(one, other)
    top = read_json(open_folder(one.folder) / "config.json")
    dtype = top.get("dtype") or top.get("torch_dtype") or "float32"
    if dtype not in DTYPES:
        raise ValueError(
            f"{one.label}: config.json says dtype={shown(dtype)}; use one of {', '.join(DTYPES)}"
        )
    count = _same_params(one, other, dtype)
    ours, theirs = _logits(one), _logits(other)
    gap = float(np.abs(ours - theirs).max())
    if dtype == "float32" and not gap <= GAP:
        raise ValueError(f"{one.label}: logits differ from {other.label}'s by {gap:.2g} > {GAP:g}")
    agree = float((ours.argmax(-1) == theirs.argmax(-1)).mean())
    return (
        f"{count} parameters equal {other.label} in {dtype}; logits on {len(PROMPTS)} prompts "
        f"differ by at most {gap:.2g} and agree on {agree:.0%} of next tokens"
    )


def _same_settings(one: Side, other: Side) -> None:
    for field in dataclasses.fields(one.model):
        ours, theirs = getattr(one.model, field.name), getattr(other.model, field.name)
        if ours != theirs:
            raise ValueError(f"{one.label}: {field.name} is {ours}, {other.label} has {theirs}")


def _same_companions(one: Side, other: Side) -> None:
    """Every file that tokenizes, formats or preprocesses is the other's, byte for byte.

    But for a tokenizer_config.json in the newest spelling: exports have it in an older one.
    """
    ours, theirs = ({f.name: f for f in _travelling(side.folder)} for side in (one, other))
    for name in sorted(ours.keys() | theirs.keys()):
        sides = ((one, ours), (other, theirs))
        lacking = [side.label for side, files in sides if name not in files]
        # an export writes this one itself where its source had none
        if lacking and name != "generation_config.json":
            raise ValueError(f"{lacking[0]} has no {name}; copy it, the other side reads it")
        if not lacking and portable_bytes(ours[name]) != portable_bytes(theirs[name]):
            raise ValueError(f"{one.label}: {name} differs from {other.label}'s")


def _travelling(folder: str) -> list:
    return [f for f in companions(open_folder(folder)) if f.name.startswith(_TEXT_AND_PIXELS)]


def _same_params(one: Side, other: Side, dtype: str) -> int:
    count = 0
    for (name, ours), (_, theirs) in zip(one.each(), other.each(), strict=True):
        ours, theirs = np.atleast_1d(ours), np.atleast_1d(theirs)
        layers = zip(ours, theirs, strict=True)  # one at a time: a cast of the stack is as large
        wrong = sum(int((a.astype(dtype) != b.astype(dtype)).sum()) for a, b in layers)
        if wrong:
            raise ValueError(
                f"{one.label}: {name} differs from {other.label} in {wrong} of {ours.size} "
                f"numbers; is the folder of another step? export it again with --overwrite"
            )
        count += 1
    return count


def _logits(side: Side) -> np.ndarray:
    """f32[tokens, V] of PROMPTS, made by the tokenizer and template of the side's folder."""
    sizes = [[(h * side.model.vision.cell, w * side.model.vision.cell) for h, w in row]
             for row in PROMPTS]  # fmt: skip
    processor = load_processor(local_companions(side.folder))
    prompt = make_prompt(PromptConfig(), processor, side.model, sizes)
    canvas = [max(size[axis] for row in sizes for size in row) for axis in (0, 1)]
    images = np.zeros((len(sizes), max(map(len, sizes)), *canvas, 3), np.uint8)
    rng = np.random.default_rng(0)
    for r, row in enumerate(sizes):
        for k, (height, width) in enumerate(row):
            images[r, k, :height, :width] = rng.integers(0, 256, (height, width, 3), np.uint8)
    tree = jax.tree.structure(model_specs(side.model), is_leaf=is_spec)
    params = jax.tree.unflatten(tree, [array for _, array in side.each()])
    logits = jax.jit(lambda params: full_logits(params, side.model, prompt, images))(params)
    valid = np.arange(prompt.tokens.shape[1]) < prompt.length[:, None]
    return np.asarray(logits)[valid]
