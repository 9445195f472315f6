"""What every reward function is given: one answer to one pair."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from dig_jax.boxes import px_from_unit
from dig_jax.reward.parse import Parsed, Verdict


@dataclass(frozen=True, eq=False)
class Sample:
    """One answer, read and beside its truth. Its arrays and its meta are read-only.

    text     the decoded answer, without the prompt and the end token
    ended    the model stopped by itself; False where the token limit cut it off
    parsed   what `parse` read: boxes, verdict, boxes named in all
    truth    f32[m, 4]   true boxes, unit frame
    tokens   answer tokens, the end token included; 0 where no model wrote the answer
    meta     pair_id (record number within the split), bucket (name of the split), width and
             height of the records' images in px
    """

    text: str
    ended: bool
    parsed: Parsed
    truth: np.ndarray
    tokens: int
    meta: Mapping[str, Any]

    @property
    def boxes(self) -> np.ndarray:
        """f32[n, 4] predicted boxes, unit frame, reading order; at most reward.max_boxes."""
        return self.parsed.boxes_unit

    @property
    def verdict(self) -> Verdict:
        """OK, or the first thing wrong with the answer's form."""
        return self.parsed.verdict

    @property
    def readable(self) -> bool:
        """A box was read, or an empty list in the form asked for. Pay nothing where it is False."""
        return self.parsed.readable

    @property
    def surplus(self) -> int:
        """Boxes the answer names beyond those in `boxes`."""
        return self.parsed.n_boxes - len(self.parsed.boxes_unit)

    @property
    def boxes_px(self) -> np.ndarray:
        """f64[n, 4] predicted boxes in pixels of the records' images."""
        return px_from_unit(self.boxes, self.meta["width"], self.meta["height"])

    @property
    def truth_px(self) -> np.ndarray:
        """f64[m, 4] true boxes in pixels of the records' images."""
        return px_from_unit(self.truth, self.meta["width"], self.meta["height"])
