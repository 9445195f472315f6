"""Batches of any pictures on a few static shapes, so that the model compiles once per shape.

A bucket is a canvas, a prompt length and a number of images. Where an image ends within its
canvas, and a prompt within its tokens, is data; what lies beyond is padding that nothing reads.
"""

from collections.abc import Callable, Sequence
from typing import NamedTuple

import numpy as np

from dig_jax.config import PromptConfig
from dig_jax.inputs.images import ImageRules, Picture, Size, prepare
from dig_jax.inputs.prompt import Processor, make_prompt
from dig_jax.model.config import ModelConfig
from dig_jax.model.inputs import PromptInputs

Pictures = Sequence[Sequence[Picture]]  # of each row, in order; a row may be empty


class Bucket(NamedTuple):
    """One static shape of (PromptInputs, images)."""

    canvas: Size  # (Y, X): holds each resized image; multiples of the model's cell
    tokens: int  # P: prompt tokens, image tokens included
    images: int  # I: images per row

    def holds(self, sizes: Sequence[Sequence[Size]], lengths: Sequence[int]) -> bool:
        """Whether rows with images of these sizes and prompts of these lengths fit."""
        flat = [size for row in sizes for size in row]
        inside = all(y <= self.canvas[0] and x <= self.canvas[1] for y, x in flat)
        return inside and max(lengths) <= self.tokens and max(map(len, sizes)) <= self.images

    def __str__(self) -> str:
        return f"{self.canvas[1]}x{self.canvas[0]} px, {self.tokens} tokens, {self.images} images"


def make_batcher(
    cfg: PromptConfig,
    processor: Processor,
    config: ModelConfig,
    rules: ImageRules,
    buckets: Sequence[Bucket],
    *,
    answer: int,
) -> Callable[..., tuple[PromptInputs, np.ndarray]]:
    """Bind the statics; returns batch(pictures, questions, names) -> (prompt, images).

    rules      of the checkpoint: how pictures are resized
    buckets    none: every batch has the exact shape it needs, and compiles anew
    answer     tokens that the model's context must still hold after a prompt

    batch takes the pictures of each row, in any sizes and modes, one question and one name per
    row (for messages), and gives the prompts with images u8[B, I, Y, X, 3] on the smallest
    bucket that holds them all. Raises ValueError naming row and size where none does.
    """
    for bucket in buckets:
        config.check_image(*bucket.canvas)

    def batch(pictures: Pictures, questions: Sequence[str], names: Sequence[str]):
        resized = [
            [prepare(picture, rules, f"{name}, image {n}") for n, picture in enumerate(row, 1)]
            for row, name in zip(pictures, names, strict=True)
        ]
        sizes = [[image.shape[:2] for image in row] for row in resized]
        asked = {"questions": questions, "names": names, "answer": answer}
        # the first time only to learn the lengths
        lengths = make_prompt(cfg, processor, config, sizes, **asked).length
        fitting = buckets or [exact_bucket(config, sizes, lengths)]
        bucket = choose_bucket(fitting, sizes, lengths, names)
        prompt = make_prompt(cfg, processor, config, sizes, **asked, **bucket._asdict())
        return prompt, on_canvas(resized, bucket)

    return batch


def exact_bucket(
    config: ModelConfig, sizes: Sequence[Sequence[Size]], lengths: Sequence[int]
) -> Bucket:
    """The smallest shape that holds a batch."""
    flat = [size for row in sizes for size in row]
    cell = config.vision.cell
    rows, cols = (max((size[axis] for size in flat), default=cell) for axis in (0, 1))
    return Bucket((rows, cols), int(max(lengths)), max(map(len, sizes)))


def choose_bucket(
    buckets: Sequence[Bucket],
    sizes: Sequence[Sequence[Size]],
    lengths: Sequence[int],
    names: Sequence[str],
) -> Bucket:
    """The bucket of the smallest canvas, then of fewest images and tokens, that holds a batch.

    sizes     (height, width) of each image of each row
    lengths   prompt tokens of each row

    Raises ValueError naming the row that fits none, or the rows that fit none together.
    """
    remedy = "add a larger bucket, lower max_pixels or shorten the question"
    listed = "; ".join(map(str, sorted(buckets)))
    for row, length, name in zip(sizes, lengths, names, strict=True):
        if not any(bucket.holds([row], [length]) for bucket in buckets):
            shown = ", ".join(f"{width}x{height} px" for height, width in row) or "no images"
            raise ValueError(
                f"{name}: a prompt of {length} tokens with {shown} fits no bucket ({listed}); "
                f"{remedy}"
            )
    fitting = [bucket for bucket in buckets if bucket.holds(sizes, lengths)]
    if not fitting:
        raise ValueError(
            f"no bucket ({listed}) holds {', '.join(names)} together, though each one alone; "
            f"batch like sizes together or add a larger bucket"
        )
    return min(fitting, key=lambda b: (b.canvas[0] * b.canvas[1], b.images, b.tokens))


def on_canvas(rows: Sequence[Sequence[np.ndarray]], bucket: Bucket) -> np.ndarray:
    """u8[B, I, Y, X, 3]: each image in the top left corner of its canvas, zeros elsewhere."""
    out = np.zeros((len(rows), bucket.images, *bucket.canvas, 3), np.uint8)
    for row, images in zip(out, rows, strict=True):
        for canvas, image in zip(row, images, strict=False):
            canvas[: image.shape[0], : image.shape[1]] = image
    return out
