"""Boxes, labels and blocks of text on pictures: what `pictures` and `sample_sheet` draw with."""

from collections.abc import Sequence

import numpy as np
from PIL import Image, ImageDraw, ImageFont

TRUE, PRED, INK, PAPER, FAINT = "#18c964", "#ff2d55", "#1b1b1f", "#ffffff", "#6b7280"
WIDTH_PX = 336  # an image is enlarged by a whole factor to about this width
GAP, MARGIN, LINE = 6, 18, 20  # px


def enlarged(image: np.ndarray) -> Image.Image:
    """An image u8[Y,X,3] at a whole multiple of its size, about WIDTH_PX wide."""
    picture = Image.fromarray(np.asarray(image, np.uint8))
    scale = max(1, round(WIDTH_PX / picture.width))
    return picture.resize((scale * picture.width, scale * picture.height), Image.Resampling.BICUBIC)


def draw_box(picture: Image.Image, box_unit: Sequence[float], color: str, width: int) -> None:
    """The outline of a unit box, `width` px thick."""
    ImageDraw.Draw(picture).rectangle(corners(picture, box_unit), outline=color, width=width)


def corners(picture: Image.Image, box_unit: Sequence[float]) -> list[int]:
    """Unit box as pixel corners inside the picture; `rectangle` wants them ordered."""
    x0, y0, x1, y1 = box_unit
    xs = np.clip(np.round(np.array([x0, x1]) * picture.width), 0, picture.width - 1)
    ys = np.clip(np.round(np.array([y0, y1]) * picture.height), 0, picture.height - 1)
    return [int(min(xs)), int(min(ys)), int(max(xs)), int(max(ys))]


def draw_tag(picture: Image.Image, box_unit: Sequence[float], text: str, color: str = PRED) -> None:
    """A filled label on the box's top edge, inside where there is no room above."""
    draw, letters = ImageDraw.Draw(picture), font_of(13)
    left, top, _, _ = corners(picture, box_unit)
    wide, high = draw.textlength(text, font=letters) + 6, 16
    left = min(left, picture.width - wide)
    top = top - high if top >= high else top
    draw.rectangle([left, top, left + wide, top + high], fill=color)
    draw.text((left + 3, top + 1), text, fill=PAPER, font=letters)


def heading(text: str, size: int = 16) -> Image.Image:
    """A line of text, `size` px high, as a block."""
    letters = font_of(size)
    strip = Image.new("RGB", (int(letters.getlength(text)) + 4, size + 12), PAPER)
    ImageDraw.Draw(strip).text((0, 6), text, fill=INK, font=letters)
    return strip


def legend(keys: dict[str, str], note: str) -> Image.Image:
    """Coloured frames with what they stand for, then a note, as a block."""
    letters, parts = font_of(14), [26 + int(font_of(14).getlength(text)) + 20 for text in keys]
    wide = sum(parts) + int(letters.getlength(note)) + 4
    strip = Image.new("RGB", (wide, 24), PAPER)
    draw, x = ImageDraw.Draw(strip), 0
    for (text, color), part in zip(keys.items(), parts, strict=True):
        draw.rectangle([x, 5, x + 18, 17], outline=color, width=3)
        draw.text((x + 26, 2), text, fill=FAINT, font=letters)
        x += part
    draw.text((x - 14, 2), note, fill=FAINT, font=letters)
    return strip


def framed(blocks: Sequence[Image.Image]) -> Image.Image:
    """Blocks below one another on paper with a margin."""
    wide = max(block.width for block in blocks)
    high = sum(block.height + GAP for block in blocks) - GAP
    sheet, top = Image.new("RGB", (wide + 2 * MARGIN, high + 2 * MARGIN), PAPER), MARGIN
    for block in blocks:
        sheet.paste(block, (MARGIN, top))
        top += block.height + GAP
    return sheet


def font_of(size: int) -> ImageFont.FreeTypeFont:
    """The font that comes with Pillow."""
    return ImageFont.load_default(size=size)
