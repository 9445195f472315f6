"""Pairs as bytes, shards of pairs as ArrayRecord files, splits as checked folders.

    <root>/<split>/pairs-00000-of-00004.arrayrecord   shard
    <root>/<split>/pairs-00000-of-00004.json          its count, sha256, settings, counters
    <root>/<split>/manifest.json                      all of them, versions and totals

A shard has its final name only when it is whole: it is written as `.tmp-N-HOST-PID`, closed, and
counted (an ArrayRecord file that was never closed opens without an error and has 0 records).
"""

from __future__ import annotations

import contextlib
import hashlib
import io
import json
import os
import shlex
import shutil
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import msgpack
import numpy as np
from array_record.python.array_record_module import ArrayRecordReader, ArrayRecordWriter
from PIL import Image

from dig_jax.common import sealed
from dig_jax.common.files import file_sha256, temporary, write_json

MANIFEST = "manifest.json"
_IMAGES = ("image_a", "image_b", "mask_a", "mask_b")


@dataclass(frozen=True)
class Pair:
    """One decoded record."""

    image_a: np.ndarray  # u8[Y,X,3]
    image_b: np.ndarray
    mask_a: np.ndarray | None  # u8[Y,X] thing ids, 0 the ground; None where nobody knows them
    mask_b: np.ndarray | None
    meta: dict  # differences, width, height, and for rendered pairs the plan and certificates

    @property
    def boxes_px(self) -> np.ndarray:
        """Labels: f32[N,4], half-open pixels."""
        boxes = [difference["box"] for difference in self.meta["differences"]]
        return np.array(boxes, np.float32).reshape(-1, 4)

    @property
    def kinds(self) -> list[str]:
        """Type of each difference, "unknown" where its record names none."""
        return [str(d.get("type") or "unknown") for d in self.meta["differences"]]


def encode(pair: Pair) -> bytes:
    """Bytes of a record; equal pairs give equal bytes."""
    arrays = {name: getattr(pair, name) for name in _IMAGES}
    fields = {name: _png(array) for name, array in arrays.items() if array is not None}
    fields["meta"] = json.dumps(pair.meta, separators=(",", ":"))
    return pack(fields)


def pack(fields: dict) -> bytes:
    """A record of named fields: PNG bytes of the pictures, the meta's JSON text."""
    return msgpack.packb(fields)


def unpack(record: bytes) -> dict:
    """Inverse of `pack`; raises one of msgpack's exceptions, or ValueError."""
    return msgpack.unpackb(record)


def decode(record: bytes) -> Pair:
    """Inverse of `encode`; raises ValueError where the bytes are not a record."""
    with _only_a_record():
        fields = unpack(record)
        masks = [_pixels(fields[name]) if name in fields else None for name in _IMAGES[2:]]
        return Pair(*_pictures(fields), *masks, json.loads(fields["meta"]))


def decode_images(record: bytes) -> Pair:
    """`decode` but for the masks, which are None: training does not read them."""
    with _only_a_record():
        fields = unpack(record)
        return Pair(*_pictures(fields), None, None, json.loads(fields["meta"]))


def decode_meta(record: bytes) -> dict:
    """A record's meta alone, without decoding a picture."""
    with _only_a_record():
        return json.loads(unpack(record)["meta"])


@contextlib.contextmanager
def _only_a_record() -> Iterator[None]:
    try:
        yield
    except MemoryError:
        raise  # says nothing about the record
    except Exception as error:  # every codec has its own exception type
        raise ValueError(f"not a pair record ({type(error).__name__}: {error})") from error


def _pictures(fields: dict) -> list[np.ndarray]:
    return [_pixels(fields[name]) for name in _IMAGES[:2]]


def pixel_hashes(pair: Pair) -> dict[str, str]:
    """Name -> 16 hex digits of the sha256 of the pixels of every picture that a pair has."""
    arrays = {name: getattr(pair, name) for name in _IMAGES}
    return {
        name: hashlib.sha256(array.tobytes()).hexdigest()[:16]
        for name, array in arrays.items()
        if array is not None
    }


def shard_name(index: int, count: int) -> str:
    return f"pairs-{index:05d}-of-{count:05d}.arrayrecord"


def sidecar(shard: Path) -> Path:
    return shard.with_suffix(".json")


def read_sidecar(shard: Path) -> dict | None:
    """What the sidecar of a shard tells; None where there is none, or one that is damaged."""
    try:
        told = sealed.parse(sidecar(shard).read_text(encoding="utf-8"))
    except (FileNotFoundError, ValueError):
        return None
    return told if told.get("file") == shard.name else None  # another shard's


def sidecar_fault(path: Path) -> str:
    """What to say about a sidecar that `read_sidecar` did not take."""
    manifest = read_manifest(path.parent)
    remedy = _remake(path, manifest, _command_for(path.parent, manifest))
    return f"{path} is {'damaged' if path.is_file() else 'gone'}; {remedy}"


def is_whole(shard: Path, entry: dict) -> bool:
    """Whether a shard still is what its sidecar tells."""
    return (
        shard.is_file()
        and file_sha256(shard) == entry.get("sha256")
        and count_records(shard) == entry.get("count")
    )


def write_shard(path: Path, records: list[bytes], facts: dict) -> dict:
    """Write, close, re-open, count, rename; then the sidecar with `facts`. Returns the sidecar.

    Raises OSError, and leaves nothing, where the disk cannot take it.
    """
    tmp = temporary(path)
    try:
        _write_records(tmp, records)
        entry = {"file": path.name, "count": len(records), "sha256": file_sha256(tmp), **facts}
        entry = sealed.sealed(entry)
        sidecar(path).unlink(missing_ok=True)  # never beside a file it does not describe
        os.replace(tmp, path)
        write_json(sidecar(path), entry)
    except Exception as error:  # array_record has no exception type of its own
        tmp.unlink(missing_ok=True)
        free = shutil.disk_usage(path.parent).free
        size = sum(map(len, records))
        raise OSError(
            f"{path} of {size / 1e6:.1f} MB could not be written ({error}); the disk has "
            f"{free / 1e6:.1f} MB left; free some space and run the same command again (of "
            "a render, whole shards are kept)"
        ) from error
    return entry


def _write_records(path: Path, records: list[bytes]) -> None:
    writer = ArrayRecordWriter(str(path), "group_size:1")
    for record in records:
        writer.write(record)
    writer.close()
    if count_records(path) != len(records):
        raise OSError(f"{count_records(path)} of {len(records)} records arrived")
    with path.open("rb+") as file:
        os.fsync(file.fileno())


def count_records(path: Path) -> int:
    """Records in an ArrayRecord file; 0 for one that was never closed."""
    try:
        reader = ArrayRecordReader(str(path))
        count = reader.num_records()
        reader.close()
    except Exception as error:  # the extension has no exception type of its own
        raise ValueError(f"{path} is not a whole ArrayRecord file ({error})") from error
    return count


def read_shard(path: Path) -> list[bytes]:
    """All records of a shard, in order."""
    with contextlib.closing(ArrayRecordReader(str(path))) as reader:
        return reader.read_all() if reader.num_records() else []


def read_record(path: Path, index: int) -> bytes:
    """One record of a shard."""
    with contextlib.closing(ArrayRecordReader(str(path))) as reader:
        return reader.read([index])[0]


def open_split(folder: str | Path, allow_partial: bool = False, verify: bool = True) -> list[Path]:
    """The shards of a rendered split, in order, each one checked against the manifest.

    allow_partial   accept a split that is still being rendered: its finished shards
    verify          compare sha256 too (about a second per GB), not only record counts

    Raises FileNotFoundError with the command that makes the data, ValueError naming the shard
    and, where one record is to blame, the record.
    """
    folder = Path(folder)
    manifest = read_manifest(folder)
    if not manifest["complete"] and not allow_partial:
        raise FileNotFoundError(
            f"{folder} has {len(manifest['shards'])} of {manifest['shard_count']} shards; "
            f"run the same command again to finish it: {_command_for(folder, manifest)}"
        )
    for entry in manifest["shards"]:
        _check_shard(folder / entry["file"], entry, verify, manifest)
    return [folder / entry["file"] for entry in manifest["shards"]]


def read_manifest(folder: Path) -> dict:
    """What a split's manifest tells; raises FileNotFoundError or ValueError with the remedy."""
    path, fault = folder / MANIFEST, None
    if path.is_file():
        try:
            return parse_manifest(path.read_text(encoding="utf-8", errors="replace"))
        except ValueError as error:
            fault = error
    told = next(filter(None, map(read_sidecar, sorted(folder.glob("pairs-*.arrayrecord")))), {})
    if told and "request" not in told:  # sidecars of rendered shards tell it
        told = {"renderer": "import"}
    command = _command_for(folder, told)
    if fault:
        raise ValueError(f"{path} {fault}; {_remake(path, told, command)}") from fault
    if told.get("renderer") == "import":
        raise FileNotFoundError(f"{path} is gone; {_remake(path, told, command)}")
    kept = "; it keeps the shards that are there" if told else ""
    raise FileNotFoundError(f"{folder} holds no rendered pairs; make them with {command}{kept}")


def parse_manifest(text: str) -> dict:
    """A manifest from its file's text; raises ValueError saying what is wrong with it."""
    manifest = sealed.parse(text)
    lost = [name for name in ("complete", "shard_count", "shards") if name not in manifest]
    if lost:
        raise ValueError(f"lacks {', '.join(lost)}, so it is not that of a split")
    return manifest


def _command_for(folder: Path, told: dict) -> str:
    """The command that makes a split; `told` is its manifest or a sidecar, {} where there is none.

    Only the older ones do not tell their `arguments`.
    """
    if told.get("renderer") == "import":
        place = f"--root {shlex.quote(str(folder.parent))} --split {folder.name}"
        return f"`python -m dig_jax.data import FILES {place}`"
    program = f"python -m dig_jax.data render --root {shlex.quote(str(folder.parent))}"
    if "arguments" in told:
        return f"`{program} {told['arguments']}`"
    presets = {"base": "base", "dev": "base"}
    presets |= dict.fromkeys(("single", "dual", "mixed", "heldout"), "quickstart")
    command = f"`{program} --split {folder.name} --pairs N --k K`"
    preset = presets.get(folder.name)
    return f"{command} or `{program} --preset {preset}`" if preset else command


def _remake(path: Path, told: dict, command: str) -> str:
    """What to do about a damaged file of a split."""
    if told.get("renderer") == "import" or "request" not in told:
        return f"delete {path.parent} and make it again with {command}"
    return f"delete {path} and make it again with {command}"


def _check_shard(path: Path, entry: dict, verify: bool, manifest: dict) -> None:
    remedy = _remake(path, manifest, _command_for(path.parent, manifest))
    if not path.is_file():
        raise FileNotFoundError(f"{path} is in the manifest but not on disk; {remedy}")
    if verify and (found := file_sha256(path)) != entry["sha256"]:
        _check_manifest_is_of(path, found, manifest)
        raise ValueError(
            f"{path} is corrupt: sha256 differs from the manifest, {_first_bad(path)}; {remedy}"
        )
    if count_records(path) != entry["count"]:
        raise ValueError(
            f"{path} holds {count_records(path)} records, the manifest says {entry['count']} "
            f"(a file that was never closed holds 0); {remedy}"
        )


def _check_manifest_is_of(path: Path, sha256: str, manifest: dict) -> None:
    """Raises ValueError where a shard is what its own sidecar tells, as no other is the manifest's.

    path   of a shard that is not what the manifest tells; sha256 is its own
    """
    folder, told = path.parent, read_sidecar(path) or {}
    others = {e["file"]: e["sha256"] for e in manifest["shards"]}
    agree = any((read_sidecar(folder / n) or {}).get("sha256") == h for n, h in others.items())
    split = told.get("request", {}).get("draw", {}).get("split")
    if told.get("sha256") == sha256 and split == folder.name and not agree:
        wrong, command = folder / MANIFEST, _command_for(folder, told)
        raise ValueError(
            f"{wrong} is not of the shards beside it: they are what their own sidecars tell; "
            f"{_remake(wrong, told, command)}"
        )


def _first_bad(path: Path) -> str:
    """Which record of a shard cannot be read, in words."""
    try:
        total = count_records(path)
    except ValueError:
        return "the file cannot be opened"
    if total == 0:
        return "0 records, it was never closed"
    reader = ArrayRecordReader(str(path))
    for index in range(total):
        try:
            decode(reader.read([index])[0])
        except Exception as error:  # neither has a checksum error
            return f"record {index} of {total} cannot be read ({error})"
    return f"all {total} records can still be read"


def _pixels(png: bytes) -> np.ndarray:
    return np.array(Image.open(io.BytesIO(png)))


def _png(array: np.ndarray) -> bytes:
    out = io.BytesIO()
    Image.fromarray(array).save(out, "PNG", compress_level=6)
    return out.getvalue()
