"""A few static shapes that hold many prompts, so that a program is compiled for each of a few."""

from collections.abc import Mapping
from itertools import islice
from typing import NamedTuple

from dig_jax.inputs.images import Size

ROUND = 32  # tokens: lengths of prompts and answers are multiples of it, unless told otherwise


class Shape(NamedTuple):
    """Static shape of a batch: canvas (Y, X), pictures, tokens of two parts.

    An engine's parts are a prefix and the questions behind it, a lesson's a prompt and its answer.
    """

    canvas: Size
    images: int
    prefix: int
    suffix: int

    def holds(self, other: "Shape") -> bool:
        inside = all(a >= b for a, b in zip(self.canvas, other.canvas, strict=True))
        return inside and all(a >= b for a, b in zip(self[1:], other[1:], strict=True))

    def joined(self, other: "Shape") -> "Shape":
        """The smallest that holds both."""
        canvas = tuple(map(max, self.canvas, other.canvas))
        return Shape(canvas, *map(max, self[1:], other[1:]))

    @property
    def cost(self) -> int:
        """About what a row of it costs: patches and tokens."""
        return self.canvas[0] * self.canvas[1] * self.images // 256 + self.prefix + self.suffix


def fewest(counts: Mapping[Shape, int], most: int, cell: int) -> list[Shape]:
    """At most `most` shapes that hold all of these, with little padding, the cheapest first.

    counts  shape -> how many have it
    cell    px, of the model

    Canvases are rounded up to eighths of a power of two; then, again and again, those two shapes
    become one whose union costs least.
    """
    left: dict[Shape, int] = {}
    for shape, count in counts.items():
        shape = shape._replace(canvas=tuple(_eighths(side, cell) for side in shape.canvas))
        left[shape] = left.get(shape, 0) + count
    while len(left) > most:
        pairs = ((a, b) for n, a in enumerate(left) for b in islice(left, n + 1, None))
        one, other = min(pairs, key=lambda pair: _waste(left, *pair))
        both = left.pop(one) + left.pop(other)
        joined = one.joined(other)
        left[joined] = left.get(joined, 0) + both
    return sorted(left, key=lambda shape: shape.cost)


def rounded(tokens: int, step: int = ROUND) -> int:
    """Up to a multiple of `step`."""
    return -(-tokens // step) * step


def _eighths(side: int, cell: int) -> int:
    """A side in pixels, rounded up to an eighth of the power of two below it, in whole cells."""
    step = max(1 << max(side.bit_length() - 4, 0), cell)
    return rounded(side, rounded(step, cell))


def _waste(counts: Mapping[Shape, int], one: Shape, other: Shape) -> int:
    """What joining two shapes costs more than leaving them apart."""
    cost = one.joined(other).cost
    return sum(counts[shape] * (cost - shape.cost) for shape in (one, other))
