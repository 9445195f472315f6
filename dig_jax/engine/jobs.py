"""Questions on their way to an engine: shared pictures, texts, and a few static shapes."""

import hashlib
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from dig_jax.inputs.buckets import Bucket, on_canvas
from dig_jax.inputs.decoding import Decoding
from dig_jax.inputs.images import Size
from dig_jax.inputs.prompt import prompt_of_ids
from dig_jax.inputs.shapes import Shape, fewest, rounded
from dig_jax.model.config import ModelConfig
from dig_jax.model.inputs import PromptInputs


@dataclass(frozen=True)
class Asked:
    """One answer that is wanted.

    tag      whatever the asker knows it by
    suffix   token ids behind the last picture, the opened assistant turn included
    seed     two words, from `seed_words`
    most     tokens that the answer may have
    """

    tag: Any
    suffix: Sequence[int]
    how: Decoding
    seed: tuple[int, int]
    most: int


@dataclass(frozen=True)
class Group:
    """Answers that are wanted about the same pictures.

    prefix  token ids up to the last picture, one image token for each
    sizes   (height, width) of the pictures as the model sees them
    load    () -> those pictures, u8[y, x, 3] each; called when their turn has come
    """

    name: str
    prefix: Sequence[int]
    sizes: Sequence[Size]
    load: Callable[[], Sequence[np.ndarray]]
    asked: list[Asked] = field(default_factory=list)


@dataclass(frozen=True)
class Batch:
    """Groups of one shape, ready for the device; repeats of the first make up the number."""

    shape: Shape
    groups: Sequence[Group]
    prompt: PromptInputs
    images: np.ndarray


def seed_words(seed: int, name: str, sample: int) -> tuple[int, int]:
    """A seed for one answer: of the run's seed, the question's name and the sample's number."""
    digest = hashlib.sha256(f"{seed}\0{name}\0{sample}".encode()).digest()
    return int.from_bytes(digest[:4], "little"), int.from_bytes(digest[4:8], "little")


def cut_prompt(config: ModelConfig, ids: Sequence[int]) -> tuple[tuple[int, ...], tuple[int, ...]]:
    """(prefix, suffix) of a prompt: up to the end of its last picture, and from there on.

    ids  one image token per picture

    Without a picture the first token alone is the prefix. Neither is empty.
    """
    at = max((n for n, token in enumerate(ids) if token == config.image_token), default=0) + 1
    if at < len(ids) - 1 and ids[at] == config.vision_end:
        at += 1
    if not 0 < at < len(ids):
        raise ValueError(f"a prompt of {len(ids)} tokens has nothing behind its last picture")
    return tuple(ids[:at]), tuple(ids[at:])


def shape_of(config: ModelConfig, group: Group) -> Shape:
    """The smallest shape of one group, lengths rounded up."""
    cell = config.vision.cell
    tokens = sum((y // cell) * (x // cell) - 1 for y, x in group.sizes) + len(group.prefix)
    longest = max(len(one.suffix) for one in group.asked)
    canvas = tuple(max((s[axis] for s in group.sizes), default=cell) for axis in (0, 1))
    return Shape(canvas, len(group.sizes), rounded(tokens), rounded(longest))


def plan_shapes(config: ModelConfig, groups: Sequence[Group], most: int) -> list[Shape]:
    """At most `most` shapes that hold all groups, with little padding (`shapes.fewest`)."""
    counts = Counter(shape_of(config, group) for group in groups)
    return fewest(counts, most, config.vision.cell)


def batches(
    config: ModelConfig, groups: Sequence[Group], shapes: Sequence[Shape], rows: int
) -> Iterator[Batch]:
    """Groups in batches of `rows` of one shape, the smallest that holds each."""
    waiting: dict[Shape, list[Group]] = {}
    for group in groups:
        waiting.setdefault(fitting(config, group, shapes), []).append(group)
    for shape, some in waiting.items():
        for first in range(0, len(some), rows):
            yield make_batch(config, shape, some[first : first + rows], rows)


def fitting(config: ModelConfig, group: Group, shapes: Sequence[Shape]) -> Shape:
    """The cheapest shape that holds a group; ValueError where none does."""
    needed = shape_of(config, group)
    found = [shape for shape in shapes if shape.holds(needed)]
    if not found:
        listed = "; ".join(describe(shape) for shape in shapes)
        raise ValueError(
            f"{group.name} needs {describe(needed)}, which fits no shape ({listed}); lower "
            f"max_pixels, shorten the question or allow a larger shape"
        )
    return min(found, key=lambda shape: shape.cost)


def describe(shape: Shape) -> str:
    canvas = f"{shape.canvas[1]}x{shape.canvas[0]}"
    return f"{shape.images} pictures on {canvas} px, {shape.prefix} + {shape.suffix} tokens"


def make_batch(config: ModelConfig, shape: Shape, groups: Sequence[Group], rows: int) -> Batch:
    """Loads the pictures of up to `rows` groups."""
    padded = [*groups, *[groups[0]] * (rows - len(groups))]
    loaded = [group.load() for group in groups]
    loaded += [loaded[0]] * (rows - len(groups))
    how = {"canvas": shape.canvas, "tokens": shape.prefix, "images": shape.images}
    ids, sizes = [group.prefix for group in padded], [group.sizes for group in padded]
    prompt = prompt_of_ids(config, ids, sizes, names=[group.name for group in padded], **how)
    bucket = Bucket(shape.canvas, shape.prefix, shape.images)
    return Batch(shape, groups, prompt, on_canvas(loaded, bucket))
