"""What a policy saw in a pair: both pictures with numbered boxes, and how they differ."""

import textwrap
from collections.abc import Sequence

import numpy as np
from PIL import Image, ImageDraw

from dig_jax.pictures.drawing import (
    FAINT,
    GAP,
    INK,
    LINE,
    PAPER,
    PRED,
    corners,
    draw_tag,
    font_of,
    framed,
)

SMALL, LARGE = 384, 720  # px: the longer side of all pictures is that of the largest, in between
_CASE = "#101014"  # around a box, so that it shows on any colour
_LINES = 6  # of the answer


def prediction_sheet(
    pictures: Sequence[tuple[str, np.ndarray]],
    boxes_unit: np.ndarray,
    *,
    heat: tuple[str, np.ndarray],
    title: str,
    text: str,
) -> Image.Image:
    """The pictures side by side with the same boxes, their difference, and what was answered.

    pictures    (name, u8[y, x, 3]) of each; sizes may differ
    boxes_unit  f32[n, 4]; each picture gets them in its own frame
    heat        the same for the difference, whose boxes are outlines without numbers
    title       a line above
    text        the answer as it was written, below
    """
    side = min(LARGE, max(SMALL, *(max(image.shape[:2]) for _, image in pictures)))
    numbered = [(*named, True) for named in pictures] + [(*heat, False)]
    tiles = [_tile(name, fitted(image, side), boxes_unit, on) for name, image, on in numbered]
    wide = sum(tile.width + GAP for tile in tiles) - GAP
    row = Image.new("RGB", (wide, max(tile.height for tile in tiles)), PAPER)
    left = 0
    for tile in tiles:
        row.paste(tile, (left, 0))
        left += tile.width + GAP
    return framed([_lines(title, row.width, 16, INK), row, _lines(text, row.width, 13, FAINT)])


def fitted(image: np.ndarray, side: int) -> Image.Image:
    """u8[y, x, 3] with a longer side of `side` px."""
    picture = Image.fromarray(image)
    scale = side / max(picture.size)
    sides = [max(1, round(scale * one)) for one in picture.size]
    return picture.resize(sides, Image.Resampling.BICUBIC)


def _tile(name: str, picture: Image.Image, boxes_unit: np.ndarray, numbers: bool) -> Image.Image:
    for box in boxes_unit:
        _outline(picture, box)
    for number, box in enumerate(boxes_unit, start=1):
        if numbers:
            draw_tag(picture, box, str(number))
    tile = Image.new("RGB", (picture.width, LINE + picture.height), PAPER)
    tile.paste(picture, (0, LINE))
    caption = _shortened(name, picture.width)
    ImageDraw.Draw(tile).text((0, 1), caption, fill=INK, font=font_of(14))
    return tile


def _outline(picture: Image.Image, box: Sequence[float]) -> None:
    draw, (left, top, right, bottom) = ImageDraw.Draw(picture), corners(picture, box)
    draw.rectangle([left - 1, top - 1, right + 1, bottom + 1], outline=_CASE, width=4)
    draw.rectangle([left, top, right, bottom], outline=PRED, width=2)


def _shortened(text: str, wide: int) -> str:
    """As much of the end of a text as fits into `wide` px."""
    letters = font_of(14)
    if letters.getlength(text) <= wide:
        return text
    while text and letters.getlength("..." + text) > wide:
        text = text[1:]
    return "..." + text


def _lines(text: str, wide: int, size: int, color: str) -> Image.Image:
    """A text in lines of at most `wide` px; a long one is cut, saying so."""
    shown = "".join(c if c.isprintable() else " " for c in text) or "(nothing)"
    letters = font_of(size)
    columns = max(12, int(wide / letters.getlength("n")))
    lines = textwrap.wrap(shown, columns, break_on_hyphens=False) or ["(nothing)"]
    if len(lines) > _LINES:
        left_out = sum(map(len, lines[_LINES:]))
        lines = [*lines[:_LINES], f"... {left_out} more characters"]
    high = size + 6
    strip = Image.new("RGB", (wide, high * len(lines) + 4), PAPER)
    for number, line in enumerate(lines):
        ImageDraw.Draw(strip).text((0, 2 + high * number), line, fill=color, font=letters)
    return strip
