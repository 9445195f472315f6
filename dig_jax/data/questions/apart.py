"""No scene that questions are asked about is one that anything was trained on.

A picture is known by two digests: of its scene (camera and things, every float of them), and of
its pixels, which imported pairs have too.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Iterator
from pathlib import Path

from dig_jax.common import typed
from dig_jax.data import records
from dig_jax.data.corpus.on_disk import split_folders
from dig_jax.data.scene.draws import SPLIT_IDS

_HELD_OUT_FROM = 1000  # of `SPLIT_IDS`: the range of splits that nothing is trained on


def is_held_out(split: str) -> bool:
    """Whether the split's seeds are those of evaluation; of an unknown name nobody can tell."""
    return SPLIT_IDS.get(split, 0) >= _HELD_OUT_FROM


def select(root: Path, names: str | None, allow_training: bool) -> list[str]:
    """The splits to ask about: those named (separated by commas), or all held-out ones of a root.

    Raises ValueError for a split that is trained on, unless `allow_training`.
    """
    found = [folder.name for folder in split_folders(root, names)]
    held_out = [name for name in found if is_held_out(name)]
    if names is None:
        ok, remedy = bool(held_out), f"name one with --splits and --allow-training: {found}"
        typed.require(ok, "--root", str(root), "holds no held-out split", remedy)
        return held_out
    trained = [name for name in found if name not in held_out]
    rule = "is trained on, so that answers about it measure nothing"
    remedy = "leave it out, or add --allow-training where the questions are to be trained on"
    typed.require(allow_training or not trained, "--splits", ",".join(trained), rule, remedy)
    return found


def digests(meta: dict, pair: records.Pair | None = None) -> list[str]:
    """Of both pictures of a record: 16 hex digits of its scene, where it tells one, and its pixels.

    pair   to hash its pixels where the meta does not tell their hashes

    Exchanging the pictures of a pair changes nothing.
    """
    pixels = meta.get("pixels") or records.pixel_hashes(pair)
    found = [pixels["image_a"], pixels["image_b"]]
    if "camera" in meta:
        cameras = meta["camera"], meta.get("camera_b") or meta["camera"]
        found += [_digest([camera, meta[side]]) for camera, side in zip(cameras, "ab", strict=True)]
    return found


def trained_on(roots: Iterable[Path]) -> list[Path]:
    """The folders of these roots' splits that are not held-out ones."""
    folders = [folder for root in roots for folder in split_folders(root)]
    return [folder for folder in folders if not is_held_out(folder.name)]


def shared(known: frozenset[str], roots: Iterable[Path], skip: Iterable[Path] = ()) -> list[str]:
    """Which splits of these roots that are trained on hold one of the known pictures, in words.

    skip   folders that are not looked at
    """
    found, skipped = [], {path.resolve() for path in skip}
    for folder in trained_on(roots):
        if folder.resolve() not in skipped:
            count = sum(not known.isdisjoint(one) for one in _split_digests(folder))
            found += [f"{folder} ({count} pairs)"] if count else []
    return found


def _split_digests(folder: Path) -> Iterator[list[str]]:
    for shard in records.open_split(folder, allow_partial=True, verify=False):
        for record in records.read_shard(shard):
            meta = records.decode_meta(record)
            pair = None if "pixels" in meta else records.decode_images(record)
            yield digests(meta, pair)


def _digest(value: object) -> str:
    text = json.dumps(value, sort_keys=True)
    return hashlib.sha256(text.encode()).hexdigest()[:16]
