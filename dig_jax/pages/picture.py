"""Pictures inside the page: small copies as data URIs, boxes drawn over them."""

from __future__ import annotations

import base64
import io
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from PIL import Image

from dig_jax.pages.shell import Html, Side, joined, tag

WIDTH_PX = 460  # as wide as a picture is shown; larger ones are reduced to it
_TALLEST = 3  # times its width: nothing longer is embedded whole
_JPEG_FROM = 48_000  # px: of more, a JPEG is the smaller file
Box = Sequence[float]  # x0 y0 x1 y1


class Shown(NamedTuple):
    """A small copy of a picture."""

    uri: str
    width: int
    height: int


def small_copy(data: bytes) -> Shown:
    """A picture's file as a data URI, at most WIDTH_PX wide.

    Raises ValueError where the bytes are no picture.
    """
    try:
        with Image.open(io.BytesIO(data)) as image:
            image.draft("RGB", (2 * WIDTH_PX, 2 * WIDTH_PX * _TALLEST))  # JPEG: decodes less
            return _encoded(image.convert("RGB"))
    except (OSError, ValueError, SyntaxError, Image.DecompressionBombError) as error:
        raise ValueError(f"no picture that can be read ({error})") from error


def small_copy_of(pixels: np.ndarray) -> Shown:
    """`small_copy` of an image u8[Y,X,3]."""
    return _encoded(Image.fromarray(pixels))


def _encoded(image: Image.Image) -> Shown:
    image.thumbnail((WIDTH_PX, WIDTH_PX * _TALLEST))
    file = io.BytesIO()
    kind = "jpeg" if image.width * image.height > _JPEG_FROM else "png"
    image.save(file, kind, **({"quality": 82} if kind == "jpeg" else {"optimize": True}))
    text = base64.b64encode(file.getvalue()).decode()
    return Shown(f"data:image/{kind};base64,{text}", image.width, image.height)


def framed(shown: Shown, alt: str, boxes: Sequence[tuple[str, Box]] = ()) -> Html:
    """A picture with boxes over it.

    boxes   (css, box in 0..1 of width and height): "true", or "said" and the class of a side
    """
    rects = joined(*(rectangle(css, box) for css, box in boxes))
    over = tag("svg", rects, viewBox="0 0 1 1", preserveAspectRatio="none", aria_hidden="true")
    size = {"width": shown.width, "height": shown.height}
    picture = Html(tag("img", alt=alt, src=shown.uri, **size).removesuffix("</img>"))
    css = "frame pixels" if shown.width < WIDTH_PX / 2 else "frame"
    return tag("div", joined(picture, over if boxes else ""), css=css)


def rectangle(css: str, box: Box) -> Html:
    """A box with a dark line beneath, so that it is seen on any ground."""
    x0, y0, x1, y1 = (min(max(float(value), 0.0), 1.0) for value in box)
    (x0, x1), (y0, y1) = sorted((x0, x1)), sorted((y0, y1))
    at = {"x": f"{x0:.4f}", "y": f"{y0:.4f}", "width": f"{x1 - x0:.4f}", "height": f"{y1 - y0:.4f}"}
    return joined(tag("rect", css="case", **at), tag("rect", css=css, **at))


def box_key(sides: Sequence[Side]) -> Html:
    """What the colours of boxes stand for."""
    keys = [("true", "true box"), *((f"said {s.css}", f"answer of {s.letter}") for s in sides)]
    items = []
    for css, words in keys:
        sample = rectangle(css, (0.15, 0.2, 0.85, 0.8))
        icon = tag("svg", sample, viewBox="0 0 1 1", preserveAspectRatio="none", aria_hidden="true")
        items.append(tag("li", joined(icon, words)))
    return tag("ul", joined(*items), css="boxkey")
