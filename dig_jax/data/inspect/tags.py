"""Where the names of boxes stand on a small picture, so that they hide little and not each other.

Sizes are those at a shown width of 384 px; places are given as shares of the picture, so that
the text keeps its size when the picture is shown larger or smaller.
"""

from __future__ import annotations

from collections.abc import Sequence

_SHOWN_PX, _CHARACTER_PX, _PADDING_PX, _LINE_PX = 384, 6.9, 8, 18
Span = tuple[float, float, float, float]  # x0 y0 x1 y1 as shares of width and height


def place(
    boxes: Sequence[Sequence[float]], texts: Sequence[str], size: tuple[int, int]
) -> list[str]:
    """A CSS position for the name of every box.

    boxes   half-open pixels of a picture of `size` (width, height)
    """
    width, height = size
    taken: list[Span] = []
    styles = []
    for box, text in zip(boxes, texts, strict=True):
        unit = (box[0] / width, box[1] / height, box[2] / width, box[3] / height)
        tag = (
            (_CHARACTER_PX * len(text) + _PADDING_PX) / _SHOWN_PX,
            _LINE_PX / (_SHOWN_PX * height / width),
        )
        spans = _candidates(unit, tag)
        span = min(spans, key=lambda span: _outside(span) + sum(_shared(span, t) for t in taken))
        taken.append(span)
        styles.append(_style(span, spans.index(span)))
    return styles


def _candidates(box: Span, tag: tuple[float, float]) -> list[Span]:
    """Above and below the box, flush with its left and then its right side; then inside."""
    (x0, y0, x1, y1), (w, h) = box, tag
    spots = [(x0, y0 - h), (x0, y1), (x1 - w, y0 - h), (x1 - w, y1), (x0, y0), (x1 - w, y0)]
    return [(x, y, x + w, y + h) for x, y in spots]


def _style(span: Span, number: int) -> str:
    """Anchored at the corner next to the box, so that longer or shorter text grows away."""
    x0, y0, x1, y1 = (100 * value for value in span)
    across = f"right:{100 - x1:.1f}%" if number in (2, 3, 5) else f"left:{x0:.1f}%"
    along = f"bottom:{100 - y1:.1f}%" if number in (0, 2) else f"top:{y0:.1f}%"
    return f"{across};{along}"


def _outside(span: Span) -> float:
    """Area of a span beyond the picture."""
    x0, y0, x1, y1 = span
    inside = max(min(x1, 1) - max(x0, 0), 0) * max(min(y1, 1) - max(y0, 0), 0)
    return (x1 - x0) * (y1 - y0) - inside


def _shared(one: Span, other: Span) -> float:
    """Area two spans share."""
    across = min(one[2], other[2]) - max(one[0], other[0])
    along = min(one[3], other[3]) - max(one[1], other[1])
    return max(across, 0) * max(along, 0)
