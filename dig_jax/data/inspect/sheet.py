"""The HTML of a contact sheet: pairs side by side, what differs drawn over them.

`page` fills `sheet.html`, which holds the style and the script. The file it gives refers to
nothing outside itself: pictures are data URIs, and its content policy forbids every request.
"""

from __future__ import annotations

import base64
import json
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from html import escape
from pathlib import Path

import numpy as np

from dig_jax.data.corpus.on_disk import Split
from dig_jax.data.inspect import baseline, heat, tags
from dig_jax.data.inspect.stats_text import draw_text, in_order, renderer
from dig_jax.data.records import Pair
from dig_jax.data.scene.labels import pixel_difference
from dig_jax.data.scene.scene import TYPES

TEMPLATE = Path(__file__).with_name("sheet.html")
_SHOWN_PX = 384  # width at which a picture is readable and three stand side by side


@dataclass(frozen=True)
class Card:
    """One pair to show."""

    split: str
    idx: int
    pair: Pair
    png_a: bytes  # as the record has them
    png_b: bytes

    @property
    def differences(self) -> list[dict]:
        return self.pair.meta["differences"]

    @property
    def size(self) -> tuple[int, int]:
        """Width and height in pixels."""
        return self.pair.image_a.shape[1], self.pair.image_a.shape[0]


def page(title: str, splits: Sequence[Split], order: str, cards: Iterable[str]) -> str:
    """The whole file.

    order   which pairs of a split these are, in words
    cards   of `card_html`, by split
    """
    parts = {
        "TITLE": escape(title),
        "ORDER": escape(order),
        "SPLITS": _split_table(splits),
        "LOOKS": _looks(splits),
        "TYPES": "".join(f"<li>{_chip(kind)}</li>" for kind in TYPES),
        "SCALE": _scale(),
        "CARDS": "\n".join(cards),
    }
    text = TEMPLATE.read_text()
    for name, value in parts.items():
        text = text.replace(f"<!--{name}-->", value)
    return text


def card_html(card: Card) -> str:
    """One pair: three pictures, its differences in words, its figures."""
    meta, kinds = card.pair.meta, sorted({_kind(d) for d in card.differences})
    delta = pixel_difference(card.pair.image_a, card.pair.image_b)
    found = baseline.pixel_difference(card.pair.image_a, card.pair.image_b)
    name = f"{card.split} {card.idx}"
    alts = [f"Image {side.upper()} of {name}{_things(meta, side)}" for side in "ab"]
    alts.append(f"Where the images of {name} differ; the largest difference is {delta.max()}")
    pictures = zip("abd", (card.png_a, card.png_b, heat.heat_png(delta)), alts, strict=True)
    anchor = escape(name.replace(" ", "-"))
    chips = "".join(_chip(kind) for kind in kinds) or '<span class="none">identical pair</span>'
    width, height = card.size
    scaled = "pixels" if _shown_px(width) % width == 0 else "smooth"
    return (
        f'<article id="{anchor}" class="{scaled}" tabindex="-1" data-split="{escape(card.split)}" '
        f'data-k="{len(card.differences)}" data-types="{escape(json.dumps(kinds))}" '
        f'style="--w:{_shown_px(width)}px;--ratio:{width}/{height}">'
        f'<header><h3><a href="#{anchor}">{escape(card.split)} <b>{card.idx}</b></a></h3>'
        f'<span class="k">K = {len(card.differences)}</span>{chips}'
        '<button type="button" class="blink" aria-pressed="false">Blink A / B</button></header>'
        f'<div class="pics">{"".join(_figure(card, *picture, found) for picture in pictures)}</div>'
        f'<ol class="diffs">{"".join(map(_difference, card.differences))}</ol>'
        f'<p class="facts">{" · ".join(_facts(card, found))}</p></article>'
    )


def _figure(card: Card, side: str, png: bytes, alt: str, found: np.ndarray) -> str:
    """A picture with its boxes and their names; side a, b, or d for the difference."""
    width, height = card.size
    shapes = [_shapes(difference, side) for difference in card.differences]
    if side == "d":
        shapes += [_rect(box.tolist(), "found") for box in found]
    texts = [_tag_text(i, d, side) for i, d in enumerate(card.differences, 1)]
    boxes = [difference["box"] for difference in card.differences]
    names = zip(card.differences, texts, tags.place(boxes, texts, card.size), strict=True)
    spans = [
        f'<span class="tag {_type_class(d)}" style="{style}">{escape(text)}</span>'
        for d, text, style in names
    ]
    caption = {"a": '<b class="which">A</b>', "b": "<b>B</b>", "d": "<b>|A &minus; B|</b>"}[side]
    return (
        f'<figure class="{side}"><div class="frame"><img class="pic" width="{width}" '
        f'height="{height}" alt="{escape(alt)}" src="{_data_uri(png)}">'
        f'<svg viewBox="0 0 {width} {height}" aria-hidden="true">{"".join(shapes)}</svg>'
        f"{''.join(spans)}</div><figcaption>{caption}</figcaption></figure>"
    )


def _shapes(difference: dict, side: str) -> str:
    """Label box; in A and B also what is visible there, and all of it were nothing in front."""
    rects = _rect(difference["box"], f"label {_type_class(difference)}")
    for name in ("box", "amodal"):
        box = difference.get(f"{name}_{side}")
        if box is not None and _apart_px(box, difference["box"]) > 1:
            kind = {"box": "visible", "amodal": "amodal"}[name]
            rects += _rect(box, f"{kind} {_type_class(difference)}")
    return rects


def _apart_px(box: list, other: list) -> float:
    return max(abs(one - two) for one, two in zip(box, other, strict=True))


def _rect(box: list, css: str) -> str:
    x0, y0, x1, y1 = (float(value) for value in box)
    at = f'x="{x0:g}" y="{y0:g}" width="{x1 - x0:g}" height="{y1 - y0:g}"'
    kind = css.split()[0]
    return f'<rect class="case {kind}" {at}/><rect class="{css}" {at}/>'


def _tag_text(number: int, difference: dict, side: str) -> str:
    """ "1 color: red" over A, "1 color: cyan" over B, "1 color" over the heat map."""
    kind = _kind(difference)
    value = {"a": difference.get("from"), "b": difference.get("to")}.get(side)
    short = value is not None and kind not in ("add", "remove")
    return f"{number} {kind}: {value}" if short else f"{number} {kind}"


def _difference(difference: dict) -> str:
    """A difference in words, with its figures where they are known."""
    x0, y0, x1, y1 = difference["box"]
    figures = [f"{x1 - x0:g} &times; {y1 - y0:g} px"]
    seen = [difference.get(f"visible_frac_{side}") for side in "ab"]
    shown = [
        f"{share:.0%} in {side}"
        for side, share in zip("AB", seen, strict=True)
        if share is not None
    ]
    figures += [f"visible {' and '.join(shown)}"] if shown else []
    if "changed_frac" in difference:
        changed, mean = difference["changed_frac"], difference["mean_absdiff"]
        figures.append(f"{changed:.0%} of its pixels changed, by {mean:.0f} levels on average")
    words = [escape(str(difference[end])) for end in ("from", "to") if difference.get(end)]
    return (
        f"<li>{_chip(_kind(difference))} <b>{' → '.join(words)}</b> "
        f'<span class="figures">{" · ".join(figures)}</span></li>'
    )


def _facts(card: Card, found: np.ndarray) -> list[str]:
    """What else is known of a pair, in words."""
    meta, facts = card.pair.meta, []
    if "a" in meta and "b" in meta:
        facts.append(f"{len(meta['a'])} things in A, {len(meta['b'])} in B")
    if "residual" in meta:
        rest = meta["residual"]
        facts.append(
            f"outside the labels: {rest['mean']:.2f} levels on average, {rest['max']} at most, "
            f"largest bright blob {rest['largest_blob']} px"
        )
    if meta.get("render_seed_b") is not None:
        facts.append("B has its own noise")
    if meta.get("camera_b"):
        facts.append("B has its own camera")
    if meta.get("attempt"):
        facts.append(f"attempt {meta['attempt'] + 1}")
    score = baseline.score(found, card.pair.boxes_px, 0.5)
    facts.append(
        f"pixel difference finds {score.hits} of {len(card.differences)} with "
        f"{len(found)} boxes (IoU .5)"
    )
    return [escape(fact) for fact in facts]


def _things(meta: dict, side: str) -> str:
    """The things of an image in words, for who cannot see it."""
    if side not in meta:
        return ""
    names = [f"{t['size']} {t['color']} {t['material']} {t['shape']}" for t in meta[side]]
    return f": {', '.join(names)}"


def _kind(difference: dict) -> str:
    return str(difference.get("type") or "unknown")


def _type_class(difference: dict) -> str:
    kind = _kind(difference)
    return f"t-{kind}" if kind in TYPES else "t-other"


def _chip(kind: str) -> str:
    return f'<span class="chip {_type_class({"type": kind})}">{escape(kind)}</span>'


def _data_uri(png: bytes) -> str:
    return f"data:image/png;base64,{base64.b64encode(png).decode()}"


def _shown_px(width: int) -> int:
    """A whole multiple of an image's width where one comes close to the readable width."""
    whole = width * max(1, (_SHOWN_PX + 16) // width)
    return whole if whole > 0.9 * _SHOWN_PX else _SHOWN_PX


def _split_table(splits: Sequence[Split]) -> str:
    rows = []
    for split in splits:
        facts = {"renderer": split.manifest.get("renderer")}
        facts["versions"] = split.manifest.get("versions", {})
        cells = [split.name, split.manifest["pairs"], draw_text(split.draw), renderer(facts)]
        ks, kinds = (split.manifest.get(what) or {} for what in ("k", "types"))
        cells.append(", ".join(f"K = {k}: {count}" for k, count in ks.items()))
        cells.append(", ".join(f"{kind} {kinds[kind]}" for kind in in_order(kinds)))
        rows.append("".join(f"<td>{escape(str(cell))}</td>" for cell in cells))
    return "".join(f"<tr>{row}</tr>" for row in rows)


def _looks(splits: Sequence[Split]) -> str:
    """Every distinct look with the splits that have it."""
    looks: dict[str, list[Split]] = {}
    for split in splits:
        looks.setdefault(json.dumps(split.look), []).append(split)
    blocks = []
    for same in looks.values():
        names = ", ".join(split.name for split in same)
        rows = "".join(
            f"<dt>{escape(name)}</dt><dd>{escape(_value_text(value))}</dd>"
            for name, value in same[0].look.items()
        )
        text = f"<dl>{rows}</dl>" if rows else "<p>nobody knows: these pairs were imported</p>"
        blocks.append(f"<details><summary>Look of {escape(names)}</summary>{text}</details>")
    return "".join(blocks)


def _value_text(value: object) -> str:
    if isinstance(value, list):
        return ", ".join(map(str, value))
    if isinstance(value, dict):
        return ", ".join(f"{name} {inner}" for name, inner in value.items())
    return str(value)


def _scale() -> str:
    """The colours of the heat map with the grey levels they stand for."""
    levels, colors = range(0, 256), heat.palette()
    stops = ",".join(
        f"rgb({r} {g} {b}) {100 * heat.heights(level):.2f}%"
        for level, (r, g, b) in zip(levels, colors, strict=True)
    )
    marks = "".join(
        f'<span style="left:{100 * heat.heights(level):.2f}%">{level}</span>'
        for level in heat.MARKS
    )
    return (
        f'<div class="ramp" style="background:linear-gradient(90deg,{stops})"></div>'
        f'<div class="marks">{marks}</div>'
    )
