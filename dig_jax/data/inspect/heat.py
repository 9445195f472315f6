"""|A - B| as a picture: dark where the images are equal, brighter the more they differ.

The scale is logarithmic, so that a shadow of a few grey levels can be seen beside a change of a
hundred. Lightness alone tells the order; the hue only helps to tell levels apart.
"""

from __future__ import annotations

import functools
import io

import numpy as np
from PIL import Image

MARKS = (0, 2, 5, 12, 25, 50, 100, 255)  # grey levels named in the legend
_KNEE = 5.0  # grey levels: linear far below, logarithmic far above
# Oklab's lightness, chroma and hue in degrees, from equal to opposite
_STOPS = (
    (0.10, 0.02, 275),
    (0.36, 0.17, 290),
    (0.58, 0.19, 360),
    (0.76, 0.14, 415),
    (0.97, 0.08, 465),
)


def heights(levels: np.ndarray) -> np.ndarray:
    """Grey levels 0..255 -> where they stand on the colour scale: f64 in 0..1."""
    return np.log1p(np.asarray(levels) / _KNEE) / np.log1p(255 / _KNEE)


@functools.cache
def palette() -> np.ndarray:
    """The colour of every grey level: u8[256,3], of strictly rising lightness."""
    stops = np.array(_STOPS)
    at = np.linspace(0, 1, len(stops))
    light, chroma, hue = (np.interp(heights(np.arange(256)), at, column) for column in stops.T)
    return _srgb(light, chroma, np.radians(hue))


def heat_png(difference: np.ndarray) -> bytes:
    """A picture of [Y,X] grey levels as PNG bytes with a palette."""
    image = Image.fromarray(difference.astype(np.uint8))
    image.putpalette(palette().tobytes())
    out = io.BytesIO()
    image.save(out, "PNG", optimize=True)
    return out.getvalue()


def _srgb(light: np.ndarray, chroma: np.ndarray, hue: np.ndarray) -> np.ndarray:
    """Oklch -> u8[...,3], clipped to what a screen can show."""
    a, b = chroma * np.cos(hue), chroma * np.sin(hue)
    long = (light + 0.3963377774 * a + 0.2158037573 * b) ** 3
    middle = (light - 0.1055613458 * a - 0.0638541728 * b) ** 3
    short = (light - 0.0894841775 * a - 1.2914855480 * b) ** 3
    linear = np.stack(
        [
            4.0767416621 * long - 3.3077115913 * middle + 0.2309699292 * short,
            -1.2684380046 * long + 2.6097574011 * middle - 0.3413193965 * short,
            -0.0041960863 * long - 0.7034186147 * middle + 1.7076147010 * short,
        ],
        -1,
    ).clip(0, 1)
    encoded = np.where(linear <= 0.0031308, 12.92 * linear, 1.055 * linear ** (1 / 2.4) - 0.055)
    return np.round(255 * encoded).astype(np.uint8)
