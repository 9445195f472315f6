"""Render a whole split: shards, resume, manifest.

Shards that are whole are skipped when the same command runs again; a shard is whole when its
sidecar tells the same settings and the file still has the sidecar's sha256 and count. Killing
the run at any moment loses only the pairs of unfinished shards.
"""

from __future__ import annotations

import dataclasses
import json
import os
import platform
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np

import dig_jax
from dig_jax.data import records
from dig_jax.data.produce import Request
from dig_jax.data.scene import SceneConfig, split_id
from dig_jax.data.supervise import WORKER, Made, check_renderer, render_pairs

# (pairs done, pairs in all, what just happened or "")
Report = Callable[[int, int, str], None]


@dataclass(frozen=True)
class SplitSpec:
    """What a split holds; equal specs give equal pairs."""

    split: str
    pairs: int
    seed: int
    k_low: int
    k_high: int
    shard_pairs: int = 64

    def __post_init__(self):
        split_id(self.split)
        for name in ("pairs", "shard_pairs"):
            if getattr(self, name) < 1:
                raise ValueError(f"{name}={getattr(self, name)} must be at least 1")
        if self.seed < 0:
            raise ValueError(f"seed={self.seed} must not be negative")

    @property
    def shard_count(self) -> int:
        return -(-self.pairs // self.shard_pairs)

    def shard_range(self, shard: int) -> range:
        """The indices in one shard."""
        first = shard * self.shard_pairs
        return range(first, min(first + self.shard_pairs, self.pairs))

    def request(self, idx: int) -> Request:
        return Request(self.seed, self.split, idx, self.k_low, self.k_high)


def render_split(
    root: str | Path,
    spec: SplitSpec,
    config: SceneConfig,
    workers: int,
    report: Report,
    command: tuple[str, ...] = WORKER,
) -> dict:
    """Make what is missing of `<root>/<split>`; returns the manifest.

    command   the worker program; anything but WORKER is for tests

    Raises before rendering where the request cannot be met (no bpy, K too large, a folder with
    a different split in it) and RenderFailed afterwards where a shard is missing.
    """
    config.check_k(spec.k_low, spec.k_high)
    folder = Path(root) / spec.split
    entries = finished_shards(folder, spec, config)
    missing = [shard for shard in range(spec.shard_count) if shard not in entries]
    done = sum(entry["count"] for entry in entries.values())
    report(done, spec.pairs, "")
    if missing:
        if command == WORKER:
            check_renderer()
        folder.mkdir(parents=True, exist_ok=True)
        requests = [spec.request(idx) for shard in missing for idx in spec.shard_range(shard)]
        waiting: dict[int, dict[int, Made]] = {shard: {} for shard in missing}
        for made in render_pairs(config, requests, workers, command):
            done += 1
            shard = made.idx // spec.shard_pairs
            waiting[shard][made.idx] = made
            note = ""
            if len(waiting[shard]) == len(spec.shard_range(shard)):
                entries[shard] = _write(folder, spec, config, shard, waiting.pop(shard))
                _write_manifest(folder, spec, config, entries)
                note = f"{entries[shard]['file']} written"
            report(done, spec.pairs, note)
    return _write_manifest(folder, spec, config, entries)


def finished_shards(folder: Path, spec: SplitSpec, config: SceneConfig) -> dict[int, dict]:
    """Sidecars of the shards that are whole, by shard number.

    Raises FileExistsError where the folder holds shards of another request, so that two kinds
    of pairs never mix in one split.
    """
    names = {records.shard_name(i, spec.shard_count): i for i in range(spec.shard_count)}
    entries = {}
    for path in sorted(folder.glob("pairs-*.arrayrecord")):
        known = records.sidecar(path)
        entry = json.loads(known.read_text()) if known.is_file() else None
        other = path.name not in names or (entry and entry["request"] != _identity(spec, config))
        if other:
            raise FileExistsError(
                f"{path} was made by another request "
                f"({(entry or {}).get('request', 'unknown')}); this one is "
                f"{_identity(spec, config)}; choose another --root or delete {folder}"
            )
        if (
            entry
            and entry["sha256"] == records.file_sha256(path)
            and (entry["count"] == records.count_records(path))
        ):
            entries[names[path.name]] = entry
    return entries


def _identity(spec: SplitSpec, config: SceneConfig) -> dict:
    """What must be equal for two shards to belong together."""
    return {**dataclasses.asdict(spec), "look": config.fingerprint()}


def _write(folder, spec, config, shard: int, made: dict[int, Made]) -> dict:
    """Write one shard in index order, with its counters."""
    ordered = [made[idx] for idx in spec.shard_range(shard)]
    metas = [records.decode(one.record).meta for one in ordered]
    differences = [difference for meta in metas for difference in meta["differences"]]
    facts = {
        "request": _identity(spec, config),
        "renderer": sorted({one.renderer for one in ordered}),
        "cpu_s": round(sum(one.cpu_s for one in ordered), 2),
        "dropped": dict(sum((one.dropped for one in ordered), Counter())),
        "k": _histogram(meta["k"] for meta in metas),
        "types": _histogram(difference["type"] for difference in differences),
        "things": _histogram(len(meta["a"]) for meta in metas),
        "label_width_px": _histogram(d["box"][2] - d["box"][0] for d in differences),
        "residual_mean": round(float(np.mean([m["residual"]["mean"] for m in metas])), 4),
    }
    path = folder / records.shard_name(shard, spec.shard_count)
    return records.write_shard(path, [one.record for one in ordered], facts)


def _write_manifest(folder: Path, spec: SplitSpec, config: SceneConfig, entries: dict) -> dict:
    """Versions, settings, totals, and every finished shard's name, count and sha256."""
    shards = [entries[shard] for shard in sorted(entries)]
    pairs = sum(entry["count"] for entry in shards)
    cpu_s = sum(entry["cpu_s"] for entry in shards)
    manifest = {
        "complete": len(shards) == spec.shard_count,
        "pairs": pairs,
        "shard_count": spec.shard_count,
        "request": dataclasses.asdict(spec),
        "settings": dataclasses.asdict(config),
        "versions": {
            "dig_jax": dig_jax.__version__,
            "bpy": sorted({version for entry in shards for version in entry["renderer"]}),
            "numpy": np.__version__,
            "python": platform.python_version(),
        },
        "cpu_s": round(cpu_s, 1),
        "cpu_s_per_pair": round(cpu_s / max(pairs, 1), 4),
        **{
            name: _total(entry[name] for entry in shards)
            for name in ("k", "types", "things", "label_width_px", "dropped")
        },
        "shards": [{name: e[name] for name in ("file", "count", "sha256")} for e in shards],
    }
    records.write_json(folder / records.MANIFEST, manifest)
    return manifest


def _histogram(values) -> dict[str, int]:
    return {str(value): count for value, count in sorted(Counter(values).items())}


def _total(histograms) -> dict[str, int]:
    total: Counter = Counter()
    for histogram in histograms:
        total.update(histogram)
    return dict(sorted(total.items(), key=lambda item: (len(item[0]), item[0])))


def default_workers() -> int:
    """One worker per core this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
