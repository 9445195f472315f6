"""From the light that a renderer computes to the grey levels of a picture."""

import numpy as np


def to_srgb(linear: np.ndarray) -> np.ndarray:
    """Scene-linear f32[...] to u8 by the plain sRGB curve (no AgX, no dither)."""
    x = np.clip(linear.astype(np.float64), 0.0, 1.0)
    curve = np.where(x <= 0.0031308, 12.92 * x, 1.055 * x ** (1 / 2.4) - 0.055)
    return np.rint(255 * curve).astype(np.uint8)
