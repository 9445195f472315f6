"""Splits in a bucket, copied to this machine before they are opened.

    gs://BUCKET/FOLDER/<split>  ->  .cache/data/BUCKET/FOLDER/<split>

A shard has its name here only when it is whole and has the sha256 that the manifest tells; the
manifest comes after the shards. A copy that was killed goes on with the shard that it was at.
The processes of one machine take turns, those of several machines that share a working directory
may copy a shard twice, never half. The whole folder may be deleted.
"""

from __future__ import annotations

import contextlib
import fcntl
import hashlib
import json
import os
import shutil
import sys
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path

from etils import epath

from dig_jax.common.addresses import folder_at, is_remote, reaching
from dig_jax.common.files import (
    file_sha256,
    read_sealed,
    remove_leftovers,
    temporary,
    write_text,
)
from dig_jax.data import records

CACHE = Path(".cache/data")  # below the working directory; git ignores it
_CHUNK = 1 << 23  # bytes read at a time
_STREAMS = 8  # shards copied at a time: one stream does not fill a machine's network


def copy_of(root: str, split: str) -> Path:
    """Where the files of a split are or will be: on this machine, whatever the root."""
    if not is_remote(root):
        return Path(root) / split
    return CACHE / root.partition("://")[2].strip("/") / split


def digest_of(root: str, split: str) -> str | None:
    """ "384 pairs 1f0c7a2b9d3e": what a split of this machine holds, wherever it lies.

    The twelve digits are of its manifest's counts and checksums. None where it is not there.
    """
    path = copy_of(root, split) / records.MANIFEST
    if not path.is_file():
        return None
    if is_remote(root):
        shards = read_sealed(path, f"delete {path}, and the split is copied again")["shards"]
    else:
        shards = records.read_manifest(path.parent)["shards"]
    counts = [shard["count"] for shard in shards]
    text = json.dumps([counts, [shard["sha256"] for shard in shards]])
    return f"{sum(counts)} pairs {hashlib.sha256(text.encode()).hexdigest()[:12]}"


def render_root(root: str) -> str:
    """What a command that renders more pairs calls the root: a bucket's are copied there."""
    return "FOLDER" if is_remote(root) else root


def local_split(root: str, split: str) -> Path:
    """The folder of a split on this machine; of a bucket's, after copying what is missing.

    root   as data.root: a folder, or gs://BUCKET/FOLDER, whose shards are all compared with the
           manifest's sha256 on return

    Raises FileNotFoundError where the bucket has no such split or it is incomplete, ValueError
    where the bucket cannot be reached or a shard is not what the manifest tells, and OSError
    where the disk has no room.
    """
    here = copy_of(root, split)
    if is_remote(root):
        there = folder_at(root) / split
        with reaching("data.root", root):
            text = _read_manifest(there)
        here.mkdir(parents=True, exist_ok=True)
        with _alone(here):
            _copy(there, here, json.loads(text)["shards"])
            if not _holds(here / records.MANIFEST, text):
                write_text(here / records.MANIFEST, text)
    return here


def _read_manifest(there: epath.Path) -> str:
    path = there / records.MANIFEST
    try:
        text = path.read_text()
    except FileNotFoundError as error:
        raise FileNotFoundError(
            f"{path} does not exist; copy a rendered split there by `gcloud storage rsync "
            f"--recursive FOLDER {there}`"
        ) from error
    try:
        manifest = records.parse_manifest(text)
    except ValueError as error:
        raise ValueError(f"{path} {error}; copy the split there again, whole") from error
    if not manifest["complete"]:
        raise FileNotFoundError(
            f"{there} has {len(manifest['shards'])} of {manifest['shard_count']} shards; finish "
            f"the split where it is rendered and copy it there again"
        )
    return text


def _copy(there: epath.Path, here: Path, entries: list[dict]) -> None:
    """Copies the shards that are not here, or are others."""
    with ThreadPoolExecutor(_STREAMS) as pool:
        held = pool.map(lambda entry: _is_here(here / entry["file"], entry["sha256"]), entries)
        missing = [entry for entry, is_here in zip(entries, held, strict=True) if not is_here]
        if not missing:
            return
        remove_leftovers(here)
        with reaching("data.root", there.parent):
            sizes = list(pool.map(lambda entry: (there / entry["file"]).stat().length, missing))
        free = shutil.disk_usage(here).free
        text = f"{len(missing)} shards of {there}, {sum(sizes) / 1e6:.1f} MB"
        if sum(sizes) > free:
            raise OSError(
                f"{here.absolute()}: {text}, are to be copied and the disk has {free / 1e6:.1f} "
                f"MB left; free some, or start in another working directory"
            )
        print(f"data: copying {text}, to {here}", file=sys.stderr, flush=True)
        list(pool.map(partial(_copy_shard, there, here), missing))


def _is_here(path: Path, sha256: str) -> bool:
    return path.is_file() and file_sha256(path) == sha256


def _copy_shard(there: epath.Path, here: Path, entry: dict) -> None:
    tmp, digest = temporary(here / entry["file"]), hashlib.sha256()
    try:
        with tmp.open("wb") as target:
            for chunk in _chunks(there, entry["file"]):
                digest.update(chunk)
                target.write(chunk)
            target.flush()
            os.fsync(target.fileno())
        if digest.hexdigest() != entry["sha256"]:
            raise ValueError(
                f"{there / entry['file']} is corrupt: sha256 differs from the manifest; copy the "
                f"split there again, whole"
            )
        os.replace(tmp, here / entry["file"])
    finally:
        tmp.unlink(missing_ok=True)


def _chunks(there: epath.Path, name: str) -> Iterator[bytes]:
    """The bytes of a file in the bucket; what fails here is the bucket's, not the disk's."""
    with reaching("data.root", there.parent), (there / name).open("rb") as file:
        while chunk := file.read(_CHUNK):
            yield chunk


def _holds(path: Path, text: str) -> bool:
    return path.is_file() and path.read_text(encoding="utf-8") == text


@contextlib.contextmanager
def _alone(folder: Path) -> Iterator[None]:
    """Waits until no other process of this machine copies to a folder; a kill lets go of it."""
    with (folder / ".lock").open("w") as file:
        with contextlib.suppress(OSError):  # a file system without locks: both copy all of it
            fcntl.flock(file, fcntl.LOCK_EX)
        yield
