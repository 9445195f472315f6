"""Numbers with their intervals as pictures: one line per side on a common scale."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

from dig_jax.pages.shell import Html, Side, joined, tag

_WIDE, _NARROW = 340, 220  # px: of a picture
_LEFT, _LINE, _AXIS = 12, 15, 16  # px: of its margins, a side, its labels
_MARKS = 5  # a side's shape, so that colour is not all that tells sides apart


def intervals(
    found: Sequence[tuple[Side, Sequence[float]]], ends: tuple[float, float], label: str
) -> Html:
    """Dots with whiskers, a line per side.

    found   (side, [value, low, high]) from the top down
    ends    of the scale; its quarters are marked
    """
    scale, bottom = _Scale(*ends, _WIDE), _LINE * len(found) + 4
    grid = []
    for quarter in range(5):
        at = ends[0] + (ends[1] - ends[0]) * quarter / 4
        grid.append(_line(scale.x(at), 0, scale.x(at), bottom, "grid"))
        grid.append(_text(scale, at, bottom + 12))
    marks = [
        _interval(side, each, scale, _LINE * row + _LINE / 2 + 2)
        for row, (side, each) in enumerate(found)
    ]
    return _picture(_WIDE, bottom + _AXIS, label, *grid, *marks)


def difference(side: Side, each: Sequence[float], shown: float, most: float, label: str) -> Html:
    """A difference about 0, and as a band what could not have been shown.

    each    [difference, low, high]
    shown   the smallest difference that could be shown; infinite: none
    most    the scale goes from -most to most
    """
    scale, high = _Scale(-most, most, _NARROW), _LINE + 4
    left, right = scale.x(-shown), scale.x(shown)
    band = tag("rect", css="band", x=_g(left), y="0", width=_g(right - left), height=_g(high))
    zero = _line(scale.x(0), 0, scale.x(0), high, "zero")
    texts = [_text(scale, at, high + 12, signed=True) for at in (-most, 0, most)]
    drawn = _interval(side, each, scale, high / 2)
    return _picture(_NARROW, high + _AXIS, label, band, zero, *texts, drawn)


class _Scale(NamedTuple):
    """Where values stand in a picture, in px."""

    low: float
    high: float
    width: float

    def x(self, value: float) -> float:
        """A value past an end stands at it."""
        share = (min(max(value, self.low), self.high) - self.low) / (self.high - self.low)
        return _LEFT + share * (self.width - 2 * _LEFT)


def _interval(side: Side, each: Sequence[float], scale: _Scale, y: float) -> Html:
    value, low, high = map(scale.x, each)
    return tag("g", _line(low, y, high, y, "whisker") + _mark(side, value, y), css=side.css)


def _mark(side: Side, x: float, y: float) -> Html:
    """Disc, square, diamond, or triangles, by the side's number."""
    shape = side.number % _MARKS
    if shape == 0:
        return tag("circle", css="dot", cx=_g(x), cy=_g(y), r="5")
    corners = {
        1: ((-4.5, -4.5), (4.5, -4.5), (4.5, 4.5), (-4.5, 4.5)),
        2: ((0, -6), (6, 0), (0, 6), (-6, 0)),
        3: ((0, -6), (5.5, 5), (-5.5, 5)),
        4: ((0, 6), (5.5, -5), (-5.5, -5)),
    }[shape]
    points = " ".join(f"{_g(x + dx)},{_g(y + dy)}" for dx, dy in corners)
    return tag("polygon", css="dot", points=points)


def _line(x0: float, y0: float, x1: float, y1: float, css: str) -> Html:
    return tag("line", css=css, x1=_g(x0), y1=_g(y0), x2=_g(x1), y2=_g(y1))


def _text(scale: _Scale, value: float, y: float, *, signed: bool = False) -> Html:
    x, words = scale.x(value), f"{value:+g}" if signed and value else f"{value:g}"
    anchor = {scale.low: "start", scale.high: "end"}.get(value, "middle")
    edge = {"start": -_LEFT, "end": _LEFT, "middle": 0}[anchor]
    words = words.replace("-", "\N{MINUS SIGN}")
    return tag("text", words, x=_g(x + edge), y=_g(y), text_anchor=anchor)


def _picture(width: float, height: float, label: str, *parts: Html) -> Html:
    box = f"0 0 {width} {_g(height)}"
    css = "bars" if width == _WIDE else "bars delta"
    return tag("svg", joined(*parts), css=css, viewBox=box, role="img", aria_label=label)


def _g(number: float) -> str:
    return f"{number:.5g}"
