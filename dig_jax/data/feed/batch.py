"""What a step is given: B pairs with their answers."""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from flax import struct

from dig_jax.boxes import BoxSet, pad_boxes
from dig_jax.data.scene.scene import TYPES

KINDS = (*TYPES, "other")  # of differences, as Batch.kind counts them; other: of foreign data


@struct.dataclass
class Batch:
    """B pairs with their answers.

    images   u8[B,2,Y,X,3]   image A, image B, at the records' own size or the model's
    truth    BoxSet[B,M]     unit frame
    kind     i32[B,M]        type of each true box, an index into KINDS; -1 at padding
    pair_id  i32[B]          record number within the split
    bucket   i32[B]          index into data.buckets; -1 for a split that is none of them
    real     bool[B]         false on rows that only fill up an evaluation's last batch
    """

    images: np.ndarray
    truth: BoxSet
    kind: np.ndarray
    pair_id: np.ndarray
    bucket: np.ndarray
    real: np.ndarray


class Row(NamedTuple):
    """One pair on its way into a batch."""

    images: np.ndarray  # u8[2,Y,X,3]
    boxes_unit: np.ndarray  # f32[n,4]
    kind: np.ndarray  # i32[n], into KINDS
    pair_id: int
    bucket: int


def collate(rows: Sequence[Row], *, max_boxes: int) -> Batch:
    return Batch(
        images=np.stack([row.images for row in rows]),
        truth=pad_boxes([row.boxes_unit for row in rows], max_boxes),
        kind=np.stack([_padded(row.kind, max_boxes) for row in rows]),
        pair_id=np.array([row.pair_id for row in rows], np.int32),
        bucket=np.array([row.bucket for row in rows], np.int32),
        real=np.ones(len(rows), bool),
    )


def kind_codes(kinds: Sequence[str]) -> np.ndarray:
    """i32[n]: the number of each type in KINDS."""
    other = KINDS.index("other")
    return np.array([KINDS.index(k) if k in KINDS else other for k in kinds], np.int32)


def _padded(kind: np.ndarray, max_boxes: int) -> np.ndarray:
    return np.pad(kind, (0, max_boxes - len(kind)), constant_values=-1)
