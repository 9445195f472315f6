"""What a shard's sidecar and a split's manifest tell about their pairs."""

from __future__ import annotations

import dataclasses
import platform
import shlex
from collections import Counter
from collections.abc import Sequence
from pathlib import Path

import numpy as np

import dig_jax
from dig_jax.common import machine, sealed, typed
from dig_jax.common.files import write_json
from dig_jax.data import records
from dig_jax.data.render.supervise import Made
from dig_jax.data.scene.draws import Draw, SplitSpec
from dig_jax.data.scene.look import SceneConfig

# Under what name a manifest tells the version of the renderer.
RENDERERS = {"bpy": "bpy", "numpy": "raytrace"}


def request_identity(spec: SplitSpec, config: SceneConfig) -> dict:
    """What must be equal for two shards to belong together."""
    return {**typed.to_plain(spec), "look": config.fingerprint()}


def request_arguments(spec: SplitSpec, config: SceneConfig) -> str:
    """What `python -m dig_jax.data render --root R` needs to make the very same shards."""
    draw, plain = spec.draw, SplitSpec(Draw(spec.split), 1)
    parts = ["--split", spec.split, "--pairs", spec.pairs, "--k", draw.k_low]
    parts += ["--k-max", draw.k_high, "--seed", draw.seed]
    beside = [("splits.0", plain, spec, ("shard_pairs",))]
    beside.append(("splits.0.draw", plain.draw, draw, ("combos", "noise", "camera_jitter_b")))
    names = tuple(field.name for field in dataclasses.fields(config))
    beside.append(("look", SceneConfig(), config, names))
    for section, default, given, fields in beside:
        for name in fields:
            value = getattr(given, name)
            if value != getattr(default, name):
                is_list = isinstance(value, tuple) and value
                text = ",".join(map(str, value)) if is_list else str(value)
                parts += ["--set", f"{section}.{name}={text}"]
    return shlex.join(map(str, parts))


def write_manifest(folder: Path, spec: SplitSpec, config: SceneConfig) -> dict:
    """Versions, settings, totals, and every finished shard's name, count and sha256.

    Where several processes write it, the last to look wins: each looks again after writing.
    """
    while True:
        entries = known_entries(folder, spec)
        manifest = sealed.sealed(_manifest(spec, config, entries))
        write_json(folder / records.MANIFEST, manifest)
        if len(known_entries(folder, spec)) == len(entries):
            return manifest


def shard_facts(spec: SplitSpec, config: SceneConfig, made: Sequence[Made]) -> dict:
    """A shard's request, renderer, cost, counters and histograms, for its sidecar."""
    metas = [records.decode_meta(one.record) for one in made]
    differences = [difference for meta in metas for difference in meta["differences"]]
    return {
        "request": request_identity(spec, config),
        "arguments": request_arguments(spec, config),
        "renderer": sorted({one.renderer for one in made}),
        "cpu": machine.cpu_family(),
        "cpu_s": round(sum(one.cpu_s for one in made), 2),
        "dropped": dict(sum((one.dropped for one in made), Counter())),
        "k": _histogram(meta["k"] for meta in metas),
        "types": _histogram(difference["type"] for difference in differences),
        "things": _histogram(len(meta["a"]) for meta in metas),
        "label_width_px": _histogram(d["box"][2] - d["box"][0] for d in differences),
        "visible_percent": _histogram(_visible_percent(d) for d in differences),
        "residual_mean": round(float(np.mean([m["residual"]["mean"] for m in metas])), 4),
    }


def known_entries(folder: Path, spec: SplitSpec) -> dict[int, dict]:
    """Sidecars of the shards that are there, without reading the shards."""
    paths = {i: folder / records.shard_name(i, spec.shard_count) for i in range(spec.shard_count)}
    entries = {i: records.read_sidecar(path) for i, path in paths.items() if path.is_file()}
    known = {i: entry for i, entry in entries.items() if entry and "request" in entry}
    mine = typed.to_plain(spec)
    return {
        i: entry
        for i, entry in known.items()
        if {name: entry["request"].get(name) for name in mine} == mine
    }


def _manifest(spec: SplitSpec, config: SceneConfig, entries: dict[int, dict]) -> dict:
    shards = [entries[shard] for shard in sorted(entries)]
    pairs = sum(entry["count"] for entry in shards)
    cpu_s = sum(entry["cpu_s"] for entry in shards)
    return {
        "complete": len(shards) == spec.shard_count,
        "pairs": pairs,
        "shard_count": spec.shard_count,
        "request": typed.to_plain(spec),
        "arguments": request_arguments(spec, config),
        "look": config.fingerprint(),
        "settings": typed.to_plain(config),
        "renderer": config.renderer,
        "versions": {
            "dig_jax": dig_jax.__version__,
            RENDERERS[config.renderer]: sorted(
                {version for entry in shards for version in entry["renderer"]}
            ),
            "numpy": np.__version__,
            "python": platform.python_version(),
        },
        "cpu": sorted({entry["cpu"] for entry in shards}),
        "cpu_s": round(cpu_s, 1),
        "cpu_s_per_pair": round(cpu_s / max(pairs, 1), 4),
        **{
            name: _total(entry[name] for entry in shards)
            for name in ("k", "types", "things", "label_width_px", "visible_percent", "dropped")
        },
        "shards": [{name: e[name] for name in ("file", "count", "sha256")} for e in shards],
    }


def _visible_percent(difference: dict) -> int:
    """Visible share of a difference in the image that shows less of it, down to tens."""
    shares = [difference[f"visible_frac_{side}"] for side in "ab"]
    return int(10 * min(share for share in shares if share is not None)) * 10


def _histogram(values) -> dict[str, int]:
    return {str(value): count for value, count in sorted(Counter(values).items())}


def _total(histograms) -> dict[str, int]:
    total: Counter = Counter()
    for histogram in histograms:
        total.update(histogram)
    return dict(sorted(total.items(), key=lambda item: (len(item[0]), item[0])))
