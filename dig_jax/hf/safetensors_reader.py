"""Safetensors files read by byte ranges: one tensor, one buffer, from a disk or a bucket.

    u64 little-endian n | n bytes of JSON | the tensors' bytes, without gaps

The safetensors package maps whole files, which a bucket cannot and which hides what is in memory.
"""

import json
import math
from collections.abc import Iterable
from dataclasses import dataclass
from typing import BinaryIO

import ml_dtypes
import numpy as np
from etils import epath

from dig_jax.common.json_files import refuse_pointer, shown

DTYPES = {
    "F32": np.dtype(np.float32),
    "F16": np.dtype(np.float16),
    "BF16": np.dtype(ml_dtypes.bfloat16),
}
MAX_HEADER = 100_000_000  # bytes; the format's own limit
CHUNK = 2**25  # bytes per read: many tensors of a bucket's file would not fit one request
_ENTRY = {"dtype", "shape", "data_offsets"}


@dataclass(frozen=True)
class Entry:
    """Where one tensor lies: bytes [start, stop) of the file."""

    dtype: np.dtype
    shape: tuple[int, ...]
    start: int
    stop: int


def read_header(path: epath.Path) -> dict[str, Entry]:
    """Name -> entry of every tensor of a file, in the order of the bytes.

    Raises ValueError naming the file, and the tensor where one is to blame, when the file is cut
    short, when tensors overlap or leave gaps, and when a dtype is not one of DTYPES.
    """
    with path.open("rb") as file:
        size = file.seek(0, 2) or file.tell()  # not every backend's seek says where it is
        file.seek(0)
        head = file.read(8)
        if head == b"version ":  # no real header is that long
            refuse_pointer(path, (head + file.read(64)).decode("latin-1"))
        length = int.from_bytes(head, "little")
        if len(head) < 8 or length > size - 8:
            raise ValueError(f"{path} has {size} bytes, fewer than its header; fetch it again")
        if length > MAX_HEADER:
            raise ValueError(f"{path} claims a header of {length} bytes; is it safetensors?")
        text = file.read(length)
    found = {name: _entry(path, name, fields, 8 + length) for name, fields in _fields(path, text)}
    return _without_gaps(path, found, 8 + length, size)


def read_tensor(file: BinaryIO, entry: Entry) -> np.ndarray:
    """One tensor in a fresh buffer of its size; `file` is the opened file of `entry`."""
    buffer = np.empty(entry.stop - entry.start, np.uint8)
    file.seek(entry.start)
    at = 0
    while at < len(buffer):
        part = file.read(min(CHUNK, len(buffer) - at))
        if not part:
            raise ValueError(f"{file} ended {len(buffer) - at} bytes early; was it replaced?")
        buffer[at : at + len(part)] = np.frombuffer(part, np.uint8)
        at += len(part)
    return buffer.view(entry.dtype).reshape(entry.shape)


def _fields(path: epath.Path, text: bytes) -> Iterable[tuple[str, dict]]:
    def unique(pairs):
        names = [name for name, _ in pairs]
        if len(set(names)) < len(names):
            raise ValueError("a name occurs twice")
        return dict(pairs)

    try:
        header = json.loads(text.decode("utf-8"), object_pairs_hook=unique)
    except (ValueError, RecursionError) as error:
        raise ValueError(f"{path} has no safetensors header: {error}") from error
    if not isinstance(header, dict):
        raise ValueError(f"{path} has no safetensors header: it is a {type(header).__name__}")
    return [(name, value) for name, value in header.items() if name != "__metadata__"]


def _entry(path: epath.Path, name: str, fields: dict, base: int) -> Entry:
    where = f"{path}: tensor {name}"
    if not isinstance(fields, dict) or set(fields) != _ENTRY:
        raise ValueError(
            f"{where} is described by {shown(fields)}; want {', '.join(sorted(_ENTRY))}"
        )
    dtype, shape, offsets = fields["dtype"], fields["shape"], fields["data_offsets"]
    if not isinstance(dtype, str) or dtype not in DTYPES:
        raise ValueError(
            f"{where} has dtype {shown(dtype)}; only {', '.join(DTYPES)} are read, so convert a "
            f"quantised checkpoint first"
        )
    if not (_counts(shape) and _counts(offsets) and len(offsets) == 2):
        raise ValueError(
            f"{where} has shape {shown(shape)} and data_offsets {shown(offsets)}; want counts"
        )
    kind = DTYPES[dtype]
    want = math.prod(shape) * kind.itemsize
    if offsets[1] - offsets[0] != want:
        raise ValueError(f"{where} spans {offsets[1] - offsets[0]} bytes; its shape takes {want}")
    return Entry(kind, tuple(shape), base + offsets[0], base + offsets[1])


def _counts(values: object) -> bool:
    return isinstance(values, list) and all(type(n) is int and n >= 0 for n in values)


def _without_gaps(
    path: epath.Path, found: dict[str, Entry], at: int, size: int
) -> dict[str, Entry]:
    """The entries by name: each begins where the one before ends, the last ends the file."""
    ordered: dict[str, Entry] = {}
    for name, entry in sorted(found.items(), key=lambda pair: (pair[1].start, pair[1].stop)):
        if entry.start != at:
            what = "overlaps the tensor before it" if entry.start < at else "leaves a gap before it"
            raise ValueError(f"{path}: tensor {name} {what} at byte {at}; write the file again")
        ordered[name], at = entry, entry.stop
    if at != size:
        what = "cut short" if at > size else "followed by other bytes"
        raise ValueError(
            f"{path} has {size} bytes, its tensors end at {at}: {what}; fetch it again"
        )
    return ordered
