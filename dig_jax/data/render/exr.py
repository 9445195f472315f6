"""Read the one kind of OpenEXR file the render worker writes.

Single part, scan lines, no compression, 32-bit channels: Blender's multilayer EXR with codec
NONE. Everything else is refused by name rather than misread.
"""

from __future__ import annotations

import struct
from pathlib import Path

import numpy as np

_MAGIC = 20000630
_REFUSED_FLAGS = {0x200: "tiled", 0x800: "deep data", 0x1000: "multi-part"}
_DTYPES = {0: "<u4", 2: "<f4"}


def read_exr(path: str | Path) -> dict[str, np.ndarray]:
    """Channels by full name, e.g. `L.Combined.R`: f32[Y,X] or u32[Y,X], rows top-down."""
    data = Path(path).read_bytes()
    if len(data) < 8 or struct.unpack_from("<i", data)[0] != _MAGIC:
        raise ValueError(f"{path} is not an OpenEXR file")
    flags = struct.unpack_from("<i", data, 4)[0]
    for bit, word in _REFUSED_FLAGS.items():
        if flags & bit:
            raise ValueError(f"{path}: {word} EXR is not read here; write a single-part scan-line")
    header, start = _header(data)
    compression = header["compression"][0]
    if compression:
        raise ValueError(f"{path}: EXR compression {compression} is not read here; use codec NONE")
    x0, y0, x1, y1 = struct.unpack("<4i", header["dataWindow"])
    width, height = x1 - x0 + 1, y1 - y0 + 1
    channels = _channels(path, header["channels"])
    row_bytes = 4 * width * len(channels)
    if len(data) < start + height * (16 + row_bytes):
        raise ValueError(f"{path}: EXR is cut short at {len(data)} bytes")
    offsets = np.frombuffer(data, "<u8", height, start).astype(np.int64)
    raw = np.frombuffer(data, np.uint8)
    order = np.argsort([struct.unpack_from("<i", data, o)[0] for o in offsets])
    rows = np.stack([raw[o + 8 : o + 8 + row_bytes] for o in offsets[order]])
    parts = rows.reshape(height, len(channels), 4 * width)
    return {
        name: np.ascontiguousarray(parts[:, i]).view(dtype)
        for i, (name, dtype) in enumerate(channels)
    }


def _header(data: bytes) -> tuple[dict[str, bytes], int]:
    """Attribute values by name, and where the line offset table starts."""
    at, header = 8, {}
    while data[at] != 0:
        name, at = _text(data, at)
        _, at = _text(data, at)
        size = struct.unpack_from("<i", data, at)[0]
        header[name] = data[at + 4 : at + 4 + size]
        at += 4 + size
    return header, at + 1


def _channels(path: str | Path, table: bytes) -> list[tuple[str, str]]:
    """Names and dtypes in file order."""
    at, out = 0, []
    while table[at] != 0:
        name, at = _text(table, at)
        kind, _, sample_x, sample_y = struct.unpack_from("<4i", table, at)
        if kind not in _DTYPES or (sample_x, sample_y) != (1, 1):
            raise ValueError(f"{path}: channel {name} is not full-size 32-bit; use color_depth 32")
        out.append((name, _DTYPES[kind]))
        at += 16
    return out


def _text(data: bytes, at: int) -> tuple[str, int]:
    end = data.index(0, at)
    return data[at:end].decode(), end + 1
