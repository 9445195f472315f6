"""Rows on a disk: parquet whose pictures `datasets` decodes, JSON lines beside their pictures."""

from __future__ import annotations

import io
import itertools
import json
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from PIL import Image

from dig_jax.common.arrow import pyarrow

_GROUP_ROWS = 32  # rows read to reach one of them
IMAGES = "images"  # the folder beside JSON lines


def write_parquet(path: Path, columns: dict, rows: Iterable[dict]) -> None:
    """A file of these rows, a few of them in memory at a time.

    columns   name -> "image", a scalar type such as "int64", or [type]
    """
    pa = pyarrow()
    features = {"info": {"features": {name: _feature(kind) for name, kind in columns.items()}}}
    fields = [(name, _type(pa, kind)) for name, kind in columns.items()]
    schema = pa.schema(fields, metadata={b"huggingface": json.dumps(features)})
    path.parent.mkdir(parents=True, exist_ok=True)
    options = {"compression": "snappy", "use_dictionary": False, "write_page_checksum": True}
    with pa.parquet.ParquetWriter(path, schema, **options) as writer:
        rows = iter(rows)
        while few := list(itertools.islice(rows, _GROUP_ROWS)):
            writer.write_table(pa.Table.from_pylist(few, schema=schema))


def write_lines(path: Path, rows: Iterable[tuple[dict, list[dict]]]) -> None:
    """JSON lines, and in `images/` beside them the pictures' cells that come with each row."""
    folder = path.parent / IMAGES
    folder.mkdir(parents=True, exist_ok=True)
    with path.open("w", encoding="utf-8") as file:
        for row, images in rows:
            file.write(json.dumps(row) + "\n")
            for image in images:
                (folder / image["path"]).write_bytes(image["bytes"])


def side_by_side(left: bytes, right: bytes) -> bytes:
    """A PNG of two pictures of one size with a white gap of 1/32 of their width between them."""
    one, other = (Image.open(io.BytesIO(png)) for png in (left, right))
    width, height = one.size
    gap = max(width // 32, 2)
    both = Image.new("RGB", (2 * width + gap, height), "white")
    both.paste(one, (0, 0))
    both.paste(other, (width + gap, 0))
    out = io.BytesIO()
    both.save(out, "PNG", compress_level=3)
    return out.getvalue()


def _type(pa: Any, kind: Any) -> Any:
    if kind == "image":
        return pa.struct([("bytes", pa.binary()), ("path", pa.string())])
    return pa.list_(_type(pa, kind[0])) if isinstance(kind, list) else getattr(pa, kind)()


def _feature(kind: Any) -> Any:
    """A column as `datasets` writes its features down."""
    if kind == "image":
        return {"_type": "Image"}
    if isinstance(kind, list):
        return [_feature(kind[0])]
    return {"dtype": kind, "_type": "Value"}
