"""The static shapes of prompts that a server compiles: every request takes the smallest it fits."""

import math
from collections.abc import Sequence

from dig_jax.inputs.images import ImageRules, Size
from dig_jax.inputs.shapes import ROUND, Shape, rounded
from dig_jax.model.config import ModelConfig
from dig_jax.serve.refusal import Refused

TEXT, SHORT = 2048, 512  # tokens of text that the largest and the other shapes of a ladder hold
_RATIO = 2.4  # longer to shorter side of the largest picture: a phone's screen is 2.2
_LEVELS = 3  # of pictures' areas, each a quarter of the one before


def make_shapes(
    config: ModelConfig,
    rules: ImageRules,
    buckets: Sequence[tuple[Size, int]],
    pictures: int,
) -> list[Shape]:
    """All shapes, the cheapest first.

    buckets   canvas (Y, X) and tokens of prompts; none: a ladder up to rules.max_pixels
    pictures  most of a request

    Raises ValueError for a canvas that is not of whole cells.
    """
    counts = sorted({1, 2, pictures} & set(range(1, pictures + 1)))
    if buckets:
        for canvas, _ in buckets:
            config.check_image(*canvas)
        found = {
            Shape(canvas, n, rounded(tokens), ROUND) for canvas, tokens in buckets for n in counts
        }
    else:
        found = {shape for n in counts for shape in _ladder(config, rules, n)}
    longest = max((tokens for _, tokens in buckets), default=TEXT)
    cell = config.vision.cell
    found |= {Shape((cell, cell), 0, rounded(n), ROUND) for n in (min(SHORT, longest), longest)}
    return sorted(found, key=lambda shape: (shape.cost, shape))


def _ladder(config: ModelConfig, rules: ImageRules, pictures: int):
    """Canvases for wide and for tall pictures of a few areas; the largest mixes them too."""
    cell = config.vision.cell
    for level in range(_LEVELS):
        area = rules.max_pixels / 4**level
        if area < max(rules.min_pixels, cell**2):
            return
        short, long = (rounded(math.ceil(side), cell) for side in _sides(area))
        canvases = [(short, long), (long, short)]
        if not level and pictures > 1:
            canvases.append((long, long))
        for canvas in canvases:
            cells = min(canvas[0] * canvas[1], rules.max_pixels) // cell**2
            text = SHORT if level else TEXT
            yield Shape(canvas, pictures, rounded(pictures * cells + text), ROUND)


def _sides(area: float) -> tuple[float, float]:
    """Of the canvas that holds pictures of an area up to _RATIO."""
    return math.sqrt(area), math.sqrt(area * _RATIO)


def choose(shapes: Sequence[Shape], sizes: Sequence[Size], tokens: int) -> Shape:
    """The cheapest shape for pictures of these sizes and a prefix of so many tokens; or Refused."""
    many = [shape for shape in shapes if shape.images >= len(sizes)]
    many = [shape for shape in many if shape.images == 0] if not sizes else many
    room = [shape for shape in many if all(_inside(size, shape.canvas) for size in sizes)]
    if not room:
        shown = ", ".join(f"{width}x{height}" for height, width in sizes)
        canvases = sorted({f"{shape.canvas[1]}x{shape.canvas[0]}" for shape in many})
        raise Refused(
            413,
            f"messages: pictures of {shown} px fit no canvas of this server "
            f"({', '.join(canvases)}); scale or crop the longer side, or start it with a larger "
            f"--bucket",
            param="messages",
            code="image_too_large",
        )
    long = [shape for shape in room if shape.prefix >= tokens]
    if not long:
        most = max(shape.prefix for shape in room)
        raise Refused(
            400,
            f"messages: a prompt of {tokens + ROUND} tokens is longer than the {most + ROUND} "
            f"that this server holds with {len(sizes)} pictures; shorten the texts, send smaller "
            f"pictures, or start it with --bucket of more tokens",
            param="messages",
            code="context_length_exceeded",
        )
    return min(long, key=lambda shape: (shape.cost, shape))


def _inside(size: Size, canvas: Size) -> bool:
    return size[0] <= canvas[0] and size[1] <= canvas[1]
