"""The pixel-difference baseline: what a pair gives away without any learning.

Two renders with one noise seed differ mostly where the scene differs, so thresholding their
difference is a strong shortcut. A trained model is reported beside it. Known failures: shape
changes (ring-shaped differences), shadows and mirror images of what changed.
"""

from dataclasses import dataclass

import numpy as np
from scipy import ndimage
from scipy.sparse import csr_array
from scipy.sparse.csgraph import maximum_bipartite_matching

from dig_jax.data.scene.labels import box_iou

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


@dataclass(frozen=True)
class Score:
    """How the boxes found in one pair compare with its true ones.

    Ratios follow the reward: nothing found where nothing differs is 1, only one of the two
    empty is 0.
    """

    n_pred: int
    found: tuple[bool, ...]  # per true box: whether a box of its own hits it

    @property
    def hits(self) -> int:
        return sum(self.found)

    @property
    def precision(self) -> float:
        return self._ratio(self.hits, self.n_pred)

    @property
    def recall(self) -> float:
        return self._ratio(self.hits, len(self.found))

    @property
    def f1(self) -> float:
        return self._ratio(2 * self.hits, self.n_pred + len(self.found))

    @property
    def is_exact(self) -> bool:
        """Whether every true box is hit and nothing else was found."""
        return self.hits == self.n_pred == len(self.found)

    def _ratio(self, part: int, whole: int) -> float:
        return part / max(whole, 1) if self.n_pred or self.found else 1.0


def score(pred: np.ndarray, true: np.ndarray, threshold: float) -> Score:
    """Match as many boxes one to one as reach an IoU of `threshold`.

    pred  [n, 4]   half-open pixels
    true  [m, 4]

    The reward matches by its cost instead and then counts, which can give fewer hits where
    several boxes crowd around one, never more.
    """
    pred, true = (np.asarray(boxes, np.float64).reshape(-1, 4) for boxes in (pred, true))
    if not len(pred) or not len(true):
        return Score(len(pred), (False,) * len(true))
    hits = csr_array(box_iou(true, pred) >= threshold)
    match = maximum_bipartite_matching(hits, perm_type="column")  # per true box
    return Score(len(pred), tuple(bool(index >= 0) for index in match))
