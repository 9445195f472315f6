"""Metrics over steps as pictures: faint lines are single steps, bold ones a running mean."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence

from dig_jax.pages.shell import Html, joined, tag

_WIDTH, _HEIGHT, _LEFT, _TOP, _RIGHT, _BOTTOM = 400, 200, 46, 8, 8, 20  # px
_MOST = 300  # points of a line: more would not be seen
_COLORS = 6  # in shell.html
Points = Sequence[tuple[float, float]]


def chart(title: str, lines: Mapping[str, Points], marks: Mapping[str, Points]) -> Html:
    """A figure of several lines over the steps; "" where there is nothing finite to draw.

    lines   name -> (step, value) of every step
    marks   the same names -> (step, value) of single measurements, drawn as discs
    """
    lines = {name: _finite(points) for name, points in lines.items()}
    marks = {name: _finite(points) for name, points in marks.items()}
    every = [point for points in [*lines.values(), *marks.values()] for point in points]
    if not every:
        return Html("")
    xs, ys = zip(*every, strict=True)
    ticks = rounded(min(ys), max(ys))
    frame = _Frame(min(xs), max(max(xs), min(xs) + 1), ticks[0], ticks[-1])
    parts = [_grid(frame, ticks), _steps(frame)]
    for number, name in enumerate(lines):
        drawn = _thinned(lines[name])
        shapes = [_path(frame, drawn, "raw"), _path(frame, running_mean(drawn), "mean")]
        shapes += [_disc(frame, point) for point in marks.get(name, ())]
        parts.append(tag("g", joined(*shapes), css=f"s{number % _COLORS}"))
    box = f"0 0 {_WIDTH} {_HEIGHT}"
    label = f"{title}: {', '.join(lines)} from step {min(xs):g} to {max(xs):g}"
    picture = tag("svg", joined(*parts), css="chart", viewBox=box, role="img", aria_label=label)
    items = (tag("li", name, css=f"s{n % _COLORS}") for n, name in enumerate(lines))
    key = tag("ul", joined(*items), css="key") if len(lines) > 1 else ""
    return tag("figure", joined(tag("figcaption", title, css="small"), picture, key))


class _Frame:
    """Where values are drawn, in px."""

    def __init__(self, left: float, right: float, low: float, high: float):
        self.left, self.right, self.low, self.high = left, right, low, high

    def x(self, step: float) -> float:
        return _LEFT + (step - self.left) / (self.right - self.left) * (_WIDTH - _LEFT - _RIGHT)

    def y(self, value: float) -> float:
        share = (value - self.low) / (self.high - self.low)
        return _HEIGHT - _BOTTOM - share * (_HEIGHT - _TOP - _BOTTOM)


def rounded(low: float, high: float) -> list[float]:
    """About five round numbers that enclose both, rising."""
    if high - low < 1e-12 * max(1.0, abs(low), abs(high)):
        low, high = low - 0.5 * max(abs(low), 1e-6), high + 0.5 * max(abs(high), 1e-6)
    size = 10.0 ** math.floor(math.log10((high - low) / 4))
    step = next(size * m for m in (1, 2, 2.5, 5, 10) if size * m >= (high - low) / 4)
    first, last = math.floor(low / step), math.ceil(high / step)
    return [round(step * n, 12) for n in range(first, last + 1)]


def running_mean(points: Points) -> list[tuple[float, float]]:
    """Mean over the last twentieth of the line, over fewer at its start."""
    span, total, found = max(1, len(points) // 20), 0.0, []
    for at, (step, value) in enumerate(points):
        total += value - (points[at - span][1] if at >= span else 0.0)
        found.append((step, total / min(at + 1, span)))
    return found


def _finite(points: Points) -> list[tuple[float, float]]:
    return [(step, value) for step, value in points if math.isfinite(value)]


def _thinned(points: Points) -> list[tuple[float, float]]:
    """At most _MOST points: means of as many neighbours as it takes."""
    by = -(-len(points) // _MOST) or 1
    groups = [points[at : at + by] for at in range(0, len(points), by)]
    return [tuple(sum(each) / len(group) for each in zip(*group, strict=True)) for group in groups]


def _grid(frame: _Frame, ticks: Sequence[float]) -> Html:
    parts = []
    for tick in ticks:
        y = f"{frame.y(tick):.1f}"
        parts.append(tag("line", css="grid", x1=_LEFT, x2=_WIDTH - _RIGHT, y1=y, y2=y))
        height = f"{frame.y(tick) + 4:.1f}"
        parts.append(tag("text", f"{tick:g}", x=_LEFT - 6, y=height, text_anchor="end"))
    return joined(*parts)


def _steps(frame: _Frame) -> Html:
    y = _HEIGHT - 5
    ends = (
        tag("text", f"{frame.left:g}", x=_LEFT, y=y),
        tag("text", "step", x=(_LEFT + _WIDTH) / 2, y=y, text_anchor="middle"),
        tag("text", f"{frame.right:g}", x=_WIDTH - _RIGHT, y=y, text_anchor="end"),
    )
    return joined(*ends)


def _path(frame: _Frame, points: Points, css: str) -> Html:
    text = " ".join(f"{frame.x(step):.1f},{frame.y(value):.1f}" for step, value in points)
    return tag("polyline", css=css, points=text)


def _disc(frame: _Frame, point: tuple[float, float]) -> Html:
    return tag(
        "circle", css="mark", cx=f"{frame.x(point[0]):.1f}", cy=f"{frame.y(point[1]):.1f}", r=4
    )
