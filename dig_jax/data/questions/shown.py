"""What every picture that is asked about shows: a line of JSON each, for labels of training."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator
from pathlib import Path

import numpy as np

from dig_jax.data import records
from dig_jax.data.questions.gather import Place, read
from dig_jax.data.questions.sight import COLORED_AREA, COLORED_PX, box_of
from dig_jax.data.questions.words import ADJECTIVES


def write_things(path: Path, places: tuple[Place, ...]) -> None:
    """Both pictures of the pairs at these places, in order."""
    with path.open("w", encoding="utf-8") as file:
        for place, record in read(places):
            for line in _lines(place, record):
                file.write(json.dumps(line) + "\n")


def _lines(place: Place, record: bytes) -> Iterator[dict]:
    pair, files = records.decode(record), records.unpack(record)
    for side, mask in (("a", pair.mask_a), ("b", pair.mask_b)):
        height, width = mask.shape
        yield {
            "picture": f"{place.name}-{side}.png",
            "sha256": hashlib.sha256(files[f"image_{side}"]).hexdigest(),
            "size": [width, height],
            "things": list(_things(pair.meta[side], mask)),
        }


def _things(planned: list[dict], mask: np.ndarray) -> Iterator[dict]:
    """Looks and box (px, half-open, x0 y0 x1 y1) of each thing of which a colour can be told."""
    for thing in planned:
        rows, columns = np.nonzero(mask == thing["id"])
        if len(rows) >= max(COLORED_PX, COLORED_AREA * mask.size):
            looks = {name: thing[name] for name in (*ADJECTIVES, "shape")}
            yield looks | {"box": list(box_of(rows, columns))}
