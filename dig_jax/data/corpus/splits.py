"""Render a split: shards as independent units, resume, manifest.

A shard is addressed by its index and is whole when its sidecar tells the same settings and the
file still has the sidecar's sha256 and count. Whole shards are skipped when the same command
runs again; killing a run at any moment loses only the pairs of unfinished shards. Any number of
processes may make different shards of one split at once: each names all of them in the
manifest once they are there. A shard that another process is making is refused
(`shard-00000.lock`, see `common.locks`).
"""

from __future__ import annotations

import contextlib
import os
import shutil
import time
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path

from dig_jax.common import locks
from dig_jax.common.files import make_folder, remove_leftovers
from dig_jax.data import records
from dig_jax.data.corpus import manifest, plans
from dig_jax.data.render.produce import Request
from dig_jax.data.render.supervise import Made, RenderFailed, check_renderer, render_pairs
from dig_jax.data.scene.draws import SplitSpec
from dig_jax.data.scene.look import SceneConfig

# (pairs done, pairs in all, what just happened or "")
Report = Callable[[int, int, str], None]
_MANIFEST_EVERY_S = 30.0
_PNG_BYTES_PER_PX = 1.0  # of two images and two masks, per pixel and image; .8 measured at 128x96


def render_split(
    root: str | Path,
    spec: SplitSpec,
    config: SceneConfig,
    workers: int,
    report: Report,
    command: tuple[str, ...] | None = None,
    shards: Iterable[int] | None = None,
) -> dict:
    """Make what is missing of `<root>/<split>`; returns the manifest.

    command   the worker program, for tests; None = that of config.renderer
    shards    only these; None = all

    Raises before rendering where the request cannot be met (no bpy, K too large, a full disk,
    a folder with a different split in it) and RenderFailed afterwards where a shard is missing.
    """
    folder = Path(root) / spec.split
    wanted = list(range(spec.shard_count) if shards is None else shards)
    try:
        render_shards(root, spec, config, workers, report, command, wanted)
    except BaseException:  # what is whole is told, whatever stopped the rest
        with contextlib.suppress(OSError):  # which may be the very disk that it is written to
            if folder.is_dir():
                manifest.write_manifest(folder, spec, config)
        raise
    summary = manifest.write_manifest(folder, spec, config)
    check_complete(folder, spec, wanted)
    return summary


def render_shards(
    root: str | Path,
    spec: SplitSpec,
    config: SceneConfig,
    workers: int,
    report: Report,
    command: tuple[str, ...] | None,
    wanted: list[int],
) -> None:
    """`render_split` without the last look at the manifest."""
    config.check_draw(spec.draw)
    folder = Path(root) / spec.split
    remove_leftovers(folder)
    entries = finished_shards(folder, spec, config, wanted)
    missing = [shard for shard in wanted if shard not in entries]
    done = sum(entry["count"] for entry in entries.values())
    total = sum(len(spec.shard_range(shard)) for shard in wanted)
    report(done, total, "")
    if not missing:
        return
    if command is None:
        check_renderer(config)
    make_folder(folder)
    # by number alone: shards of another request would bear other names, and mix with these
    with locks.owned("--root", *(folder / f"shard-{shard:05d}.lock" for shard in missing)):
        _check_room(folder, config, total - done)
        made = render_pairs(config, _requests(folder, spec, config, missing), workers, command)
        for note in _into_shards(folder, spec, config, missing, made):
            done += 1
            report(done, total, note)


def finished_shards(
    folder: Path, spec: SplitSpec, config: SceneConfig, shards: Iterable[int]
) -> dict[int, dict]:
    """Sidecars of those of the shards that are whole, by shard number.

    Raises FileExistsError where the folder holds shards of another request, so that two kinds
    of pairs never mix in one split.
    """
    identity = manifest.request_identity(spec, config)
    names = {records.shard_name(shard, spec.shard_count) for shard in range(spec.shard_count)}
    for path in folder.glob("pairs-*.arrayrecord"):
        if path.name not in names:
            raise _other_request(path, records.read_sidecar(path), identity)
    entries = {}
    for shard in shards:
        path = folder / records.shard_name(shard, spec.shard_count)
        entry = records.read_sidecar(path)
        if entry is None:
            continue
        whole = records.is_whole(path, entry)
        if whole and entry.get("request") != identity:  # else it is no sidecar of this file
            raise _other_request(path, entry, identity)
        if whole:
            entries[shard] = entry
    return entries


def check_complete(folder: Path, spec: SplitSpec, wanted: list[int]) -> None:
    """Raises RenderFailed where one of these shards is not there."""
    entries = manifest.known_entries(folder, spec)
    lost = [records.shard_name(i, spec.shard_count) for i in wanted if i not in entries]
    if lost:
        raise RenderFailed(f"{folder}: {len(lost)} shards are missing: {', '.join(lost[:5])}")


def default_workers() -> int:
    """One worker per core this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()


def _requests(folder: Path, spec: SplitSpec, config: SceneConfig, shards) -> Iterator[Request]:
    """The pairs of these shards in order, with their plans where `plan` has written them."""
    identity = manifest.request_identity(spec, config)
    for shard in shards:
        planned = plans.read_plans(folder, shard, spec.shard_count, identity)
        for idx in spec.shard_range(shard):
            yield Request(spec.draw, idx, planned.get(idx))


def _into_shards(folder, spec, config, missing, made: Iterator[Made]) -> Iterator[str]:
    """Collect pairs and write each shard as soon as it is full; what happened, once per pair."""
    waiting: dict[int, dict[int, Made]] = {shard: {} for shard in missing}
    written_s = -_MANIFEST_EVERY_S
    for one in made:
        shard, note = one.idx // spec.shard_pairs, ""
        waiting[shard][one.idx] = one
        if len(waiting[shard]) == len(spec.shard_range(shard)):
            note = f"{_write(folder, spec, config, shard, waiting.pop(shard))} written"
            if time.monotonic() - written_s >= _MANIFEST_EVERY_S:
                manifest.write_manifest(folder, spec, config)
                written_s = time.monotonic()
        yield note


def _write(folder, spec, config, shard: int, made: dict[int, Made]) -> str:
    """Write one shard in index order; returns its name."""
    ordered = [made[idx] for idx in spec.shard_range(shard)]
    path = folder / records.shard_name(shard, spec.shard_count)
    facts = manifest.shard_facts(spec, config, ordered)
    records.write_shard(path, [one.record for one in ordered], facts)
    return path.name


def _check_room(folder: Path, config: SceneConfig, pairs: int) -> None:
    need = int(2 * pairs * config.width * config.height * _PNG_BYTES_PER_PX)
    free = shutil.disk_usage(folder).free
    if need > free:
        raise OSError(
            f"{folder}: {pairs} pairs of {config.width}x{config.height} need about "
            f"{need / 1e9:.1f} GB and the disk has {free / 1e9:.1f} GB left; free some, choose "
            "another --root or ask for fewer pairs"
        )


def _other_request(path: Path, entry: dict | None, identity: dict) -> FileExistsError:
    return FileExistsError(
        f"{path} was made by another request ({(entry or {}).get('request', 'unknown')}); this "
        f"one is {identity}; choose another --root or delete {path.parent}"
    )
