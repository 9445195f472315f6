"""A split's pictures decoded once: raw bytes on disk, mapped into memory pair by pair.

    <root>/<split>/decoded/480x320/pairs-00000-of-00004-<16 hex>.u8     u8[N,2,Y,X,3]
    <root>/<split>/decoded/480x320/pairs-00000-of-00004-<16 hex>.json   boxes, types, origin

The folder tells the size that the pictures have here, the 16 digits begin the shard's sha256: a
copy of other records has another name. A copy counts only when its `.json` agrees with the
manifest and its length is right; any other is made again. The whole folder may be deleted.
"""

from __future__ import annotations

import bisect
import importlib.metadata
import itertools
import os
import shutil
import sys
import zlib
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from dig_jax.common import sealed
from dig_jax.common.files import remove_leftovers, telling_room, temporary, write_json
from dig_jax.data import records
from dig_jax.inputs.images import Size, resize

FOLDER = "decoded"
_OR_NONE = "or read the shards themselves with --set data.cache=none"
_FORMAT = 3  # of the two files; another number makes every copy anew


@dataclass(frozen=True)
class _Copy:
    """One shard's copy: where it is and what it must be."""

    path: Path  # of the pixels
    first: int  # number of its first pair within the split
    count: int  # pairs
    size: Size  # (height, width) of the pictures in it
    origin: dict  # what its .json must tell besides boxes and checksums

    @property
    def facts(self) -> Path:
        return self.path.with_suffix(".json")

    @property
    def pair_bytes(self) -> int:
        return 2 * self.size[0] * self.size[1] * 3


class DecodedPairs:
    """The pairs of a split by their number, read from whole copies.

    Nothing stays open between two reads, so that it pickles as names and a few numbers and the
    limit on open files does not limit the number of shards.
    """

    def __init__(self, copies: Sequence[_Copy], facts: Sequence[dict]):
        self._copies = list(copies)
        self._firsts = [copy.first for copy in copies]
        boxes = [pair for told in facts for pair in told["boxes_px"]]
        flat = list(itertools.chain.from_iterable(boxes))
        self._boxes_px = np.array(flat, np.float32).reshape(-1, 4)
        self._box_ends = np.cumsum([0, *map(len, boxes)])
        self._kinds = [kinds for told in facts for kinds in told["kinds"]]
        self._crc32 = np.array([crc for told in facts for crc in told["crc32"]], np.uint32)
        self._seen = np.zeros(len(self._crc32), bool)

    def __len__(self) -> int:
        return len(self._crc32)

    def __getitem__(self, index: int) -> tuple[np.ndarray, np.ndarray]:
        """Pictures u8[2,Y,X,3], a read-only view of the file, and boxes f32[n,4] in pixels.

        A process compares a pair with its checksum when it first reads it. Where they differ it
        raises ValueError, and the copy no longer counts as whole.
        """
        copy = self._copies[bisect.bisect_right(self._firsts, index) - 1]
        offset = (index - copy.first) * copy.pair_bytes
        shape = (2, *copy.size, 3)
        images = np.memmap(copy.path, np.uint8, "r", offset, shape).view(np.ndarray)
        if not self._seen[index]:
            if zlib.crc32(images) != self._crc32[index]:
                copy.facts.unlink(missing_ok=True)  # not the pixels: others are reading them
                raise ValueError(
                    f"its decoded copy in {copy.path} is damaged (another checksum); "
                    "run the same command again to decode that shard anew"
                )
            self._seen[index] = True
        return images, self._boxes_px[slice(*self._box_ends[index : index + 2])]

    def kinds(self, index: int) -> list[str]:
        """Types of a pair's differences, in the order of its boxes."""
        return self._kinds[index]

    def box_counts(self) -> np.ndarray:
        """i64[N]: boxes per pair."""
        return np.diff(self._box_ends)


def open_decoded(
    shards: Sequence[Path],
    record_size: Size,
    size: Size,
    pair_at: Callable[[int], records.Pair],
) -> DecodedPairs:
    """The decoded copies of a split's shards; what is missing is made first.

    shards        from `records.open_split`, which has compared them with the manifest
    record_size   (height, width) of the records' own pictures
    size          (height, width) of the copies; pictures are resized where it is another
    pair_at       decodes and checks the pair of a number within the split; safe in threads

    Several processes may do this at once: each makes whatever it lacks, equal to the byte.
    Raises OSError with both figures where the disk lacks room, and whatever pair_at raises.
    """
    copies = list(_copies(shards, record_size, size))
    missing = [copy for copy in copies if _read_facts(copy) is None]
    if missing:
        folder = missing[0].path.parent
        folder.mkdir(parents=True, exist_ok=True)
        remove_leftovers(folder)
        _remove_strangers(folder, copies)
        _check_room(folder, missing)
        for copy in missing:
            _make(copy, pair_at)
    facts = [_read_facts(copy) for copy in copies]
    lost = [str(copy.path) for copy, told in zip(copies, facts, strict=True) if told is None]
    if lost:
        raise OSError(
            f"{lost[0]} was removed while it was being opened; is another process deleting or "
            "rendering that split? Run the same command again when it is done"
        )
    return DecodedPairs(copies, facts)


def _copies(shards: Sequence[Path], record_size: Size, size: Size) -> Iterator[_Copy]:
    """One per shard that holds pairs, in order."""
    if not shards:
        return
    entries = records.read_manifest(shards[0].parent)["shards"]
    folder = shards[0].parent / FOLDER / f"{size[1]}x{size[0]}"
    first = 0
    for shard, entry in zip(shards, entries, strict=True):
        origin = {
            "format": _FORMAT,
            "shard": shard.name,
            "sha256": entry["sha256"],
            "count": entry["count"],
            "record_size": list(record_size),
            "size": list(size),
            # another release may round a resized pixel otherwise; PNG has one meaning
            "resized_by": None if size == record_size else importlib.metadata.version("pillow"),
        }
        path = folder / f"{shard.stem}-{entry['sha256'][:16]}.u8"
        if entry["count"]:
            yield _Copy(path, first, entry["count"], size, origin)
        first += entry["count"]


def _read_facts(copy: _Copy) -> dict | None:
    """What a copy's .json tells; None where copy and .json are not whole or not of this shard."""
    try:
        facts = sealed.parse(copy.facts.read_text(encoding="utf-8"))
        length = copy.path.stat().st_size
        whole = all(facts[name] == value for name, value in copy.origin.items())
        lists = ("boxes_px", "kinds", "crc32")
        whole &= all(len(facts[name]) == copy.count for name in lists)
    except (FileNotFoundError, ValueError, KeyError, TypeError):
        return None
    return facts if whole and length == copy.count * copy.pair_bytes else None


def _remove_strangers(folder: Path, copies: Sequence[_Copy]) -> None:
    """Delete copies of records that the split no longer holds."""
    known = {path.name for copy in copies for path in (copy.path, copy.facts)}
    for path in folder.glob("pairs-*"):
        if path.name not in known and path.suffix in (".u8", ".json"):
            path.unlink(missing_ok=True)


def _check_room(folder: Path, missing: Sequence[_Copy]) -> None:
    pairs = sum(copy.count for copy in missing)
    need = sum(copy.count * copy.pair_bytes for copy in missing)
    free = shutil.disk_usage(folder).free
    figures = f"{pairs} decoded pairs of {folder.name} px need {need / 1e6:.1f} MB"
    if need > free:
        raise OSError(
            f"{folder}: {figures} and the disk has {free / 1e6:.1f} MB left; free some {_OR_NONE}"
        )
    print(f"data: {figures}; decoding them into {folder}", file=sys.stderr, flush=True)


def _make(copy: _Copy, pair_at: Callable[[int], records.Pair]) -> None:
    """Write one shard's copy; it has its name only when it is whole, its .json after that."""
    tmp = temporary(copy.path)
    boxes_px, types, crc32 = [], [], []
    try:
        with telling_room(copy.path, f"free some {_OR_NONE}"):
            with tmp.open("wb") as file:
                for images, boxes, kinds in _decoded(copy, pair_at):
                    file.write(images)
                    boxes_px.append(boxes.tolist())
                    types.append(kinds)
                    crc32.append(zlib.crc32(images))
                file.flush()
                os.fsync(file.fileno())
            os.replace(tmp, copy.path)
        facts = {**copy.origin, "boxes_px": boxes_px, "kinds": types, "crc32": crc32}
        write_json(copy.facts, sealed.sealed(facts))
    finally:
        tmp.unlink(missing_ok=True)


def _decoded(copy: _Copy, pair_at: Callable[[int], records.Pair]) -> Iterator[tuple]:
    """Pictures u8[2,Y,X,3] at the copy's size, boxes f32[n,4] and types of each pair, in order."""

    def one(index: int) -> tuple[np.ndarray, np.ndarray, list[str]]:
        pair = pair_at(index)
        images = [resize(image, copy.size) for image in (pair.image_a, pair.image_b)]
        return np.stack(images), pair.boxes_px, pair.kinds

    # threads: Pillow lets go of the interpreter while it inflates. A few at a time, so that
    # memory holds no whole shard.
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    numbers = range(copy.first, copy.first + copy.count)
    with ThreadPoolExecutor(cores) as pool:
        for start in range(0, copy.count, 4 * cores):
            yield from pool.map(one, numbers[start : start + 4 * cores])
