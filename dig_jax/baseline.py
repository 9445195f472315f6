"""The pixel-difference baseline: what a pair gives away without any learning.

Two renders with one noise seed differ mostly where the scene differs, so thresholding their
difference is a strong shortcut. A trained model is reported beside it. Known failures: shape
changes (ring-shaped differences), shadows and mirror images of what changed.
"""

import numpy as np
from scipy import ndimage

THRESHOLD = 25  # grey levels of 0..255, largest channel difference
MIN_PX = 12  # smallest component of a 128 x 96 image, in proportion to the area at other sizes
REFERENCE_PX = 128 * 96


def pixel_difference(image_a: np.ndarray, image_b: np.ndarray) -> np.ndarray:
    """Boxes of the regions in which two images differ.

    image_a, image_b  u8[Y, X, 3]
    ->                f32[n, 4]   half-open pixels x0 y0 x1 y1, top to bottom

    A pixel differs where its largest channel difference exceeds THRESHOLD. Every 8-connected
    component of at least MIN_PX x (Y X / REFERENCE_PX) such pixels gives its tight box.
    """
    if image_a.shape != image_b.shape or image_a.dtype != np.uint8 or image_b.dtype != np.uint8:
        raise ValueError(
            f"image_a is {image_a.dtype}{image_a.shape}, image_b {image_b.dtype}{image_b.shape}; "
            f"give two uint8 [Y, X, 3] images of one size"
        )
    # uint8 would wrap around: 0 - 1 = 255
    change = np.abs(image_a.astype(np.int16) - image_b).max(axis=-1)
    labels, _ = ndimage.label(change > THRESHOLD, structure=np.ones((3, 3)))
    sizes = np.bincount(labels.ravel())[1:]
    least = MIN_PX * change.size / REFERENCE_PX
    spans = [
        s for s, size in zip(ndimage.find_objects(labels), sizes, strict=True) if size >= least
    ]
    boxes = [[x.start, y.start, x.stop, y.stop] for y, x in spans]
    return np.array(boxes, np.float32).reshape(-1, 4)
