"""The verb `verify`: every certificate again, and a sample rendered again.

Exit status 1, with the ids of the pairs, where anything does not hold.
"""

from __future__ import annotations

import argparse
import random
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from dig_jax.common import machine, typed
from dig_jax.common.commandline import path_of, seed_of, within
from dig_jax.common.files import file_sha256
from dig_jax.common.parallel import map_in_order
from dig_jax.data import records
from dig_jax.data.corpus.manifest import RENDERERS
from dig_jax.data.corpus.on_disk import split_folders
from dig_jax.data.corpus.splits import default_workers
from dig_jax.data.render.certificates import problems
from dig_jax.data.render.produce import Planned, Request
from dig_jax.data.render.supervise import RenderFailed, check_renderer, render_pairs
from dig_jax.data.scene.draws import SplitSpec
from dig_jax.data.scene.look import SceneConfig, config_from_json
from dig_jax.data.scene.scene import plan_from_json

_SHOWN = 20  # problems printed per split
_PIXEL_TOLERANCE = 2.0  # mean |difference| of 255 between processors or Blender versions


@dataclass
class Outcome:
    """What `verify_split` found."""

    pairs: int = 0
    rendered: int = 0
    comparison: str = "bytes"  # of the rendered sample: bytes, or "masks and boxes" elsewhere
    found: list[str] = field(default_factory=list)  # "idx 17: ...", or a shard's or split's fault


def add_arguments(parser: argparse.ArgumentParser, verb: str) -> None:
    """Which splits, and how large a sample is rendered again."""
    parser.description = __doc__.splitlines()[0]
    parser.add_argument("--root", type=path_of, required=True, help="folder that holds the splits")
    parser.add_argument("--splits", help="only these, separated by commas")
    parser.add_argument(
        "--sample", type=within(int, 0, 10**7), default=4, help="pairs per split to render again"
    )
    parser.add_argument("--seed", type=seed_of, default=0, help="which pairs those are")
    parser.add_argument(
        "--release",
        action="store_true",
        help="also refuse what must not be published: another renderer than Blender, "
        "unfinished splits, no sample",
    )
    parser.add_argument("--workers", type=within(int, 1, 1000), default=default_workers())


def run(args: argparse.Namespace, verb: str) -> int:
    """Verify every split of a root; 1 where anything was found."""
    folders = split_folders(args.root, args.splits)
    sound = True
    for folder in folders:
        outcome = verify_split(folder, args.sample, args.seed, args.workers, args.release)
        sound &= not outcome.found
        again = f"{outcome.rendered} rendered again"
        again += f" ({outcome.comparison} compared)" if outcome.rendered else ""
        problems_found = f"{len(outcome.found) or 'no'} problems"
        print(f"{folder}: {outcome.pairs} pairs checked, {again}: {problems_found}")
        for line in outcome.found[:_SHOWN]:
            print(f"  {folder.name} {line}")
        if len(outcome.found) > _SHOWN:
            print(f"  ... and {len(outcome.found) - _SHOWN} more")
    return 0 if sound else 1


def verify_split(
    folder: Path, sample: int, seed: int, workers: int, release: bool = False
) -> Outcome:
    """Check every record of a rendered split, and `sample` of them by rendering them again."""
    manifest = records.read_manifest(folder)
    if manifest["renderer"] == "import":
        fault = "is imported: its labels are not ours to certify"
        return Outcome(comparison="nothing", found=[fault] if release else [])
    config = config_from_json(manifest["settings"])
    spec = typed.from_plain(SplitSpec, manifest["request"])
    outcome = Outcome(found=list(_split_faults(manifest, config, spec, sample, release)))
    shards = [_shard_number(entry["file"]) for entry in manifest["shards"]]
    count = len(shards)
    paths = [folder / entry["file"] for entry in manifest["shards"]]
    shas = [entry["sha256"] for entry in manifest["shards"]]
    columns = paths, shards, shas, [spec] * count, [config] * count
    for pairs, found in map_in_order(_check_shard, min(workers, max(count, 1)), *columns):
        outcome.pairs += pairs
        outcome.found += found
    if sample and not outcome.found:
        _check_sample(folder, manifest, spec, config, sample, seed, workers, outcome)
    return outcome


def _split_faults(
    manifest, config: SceneConfig, spec: SplitSpec, sample: int, release
) -> Iterator[str]:
    """What is wrong with a split as a whole."""
    if config.fingerprint() != manifest["look"]:
        yield "settings do not have the fingerprint that the manifest tells"
    if not manifest["complete"]:
        yield f"has {len(manifest['shards'])} of {spec.shard_count} shards; render the rest"
    if release and config.renderer != "bpy":
        yield f"was rendered by {config.renderer!r}; a release needs Blender (look.renderer=bpy)"
    if release and sample < 1:
        yield f"--sample {sample} renders nothing again; a release needs 1 or more"


def _shard_number(name: str) -> int:
    return int(name.split("-")[1])


def _check_shard(
    path: Path, shard: int, sha256: str, spec: SplitSpec, config: SceneConfig
) -> tuple[int, list[str]]:
    """Records checked in one shard, and what was found."""
    try:
        if file_sha256(path) != sha256:
            return 0, [f"{path.name} does not have the sha256 of the manifest"]
        read = records.read_shard(path)
    except Exception as error:  # array_record has no exception type of its own
        return 0, [f"{path.name} cannot be read ({error})"]
    indices = spec.shard_range(shard)
    if len(read) != len(indices):
        return 0, [f"{path.name} holds {len(read)} records, {len(indices)} belong there"]
    pairs = zip(indices, read, strict=True)
    return len(read), [
        f"idx {idx}: {text}"
        for idx, record in pairs
        for text in problems(config, spec, idx, record)
    ]


def _check_sample(folder, manifest, spec, config, sample, seed, workers, outcome: Outcome) -> None:
    """Render some pairs of a sound split again and compare."""
    check_renderer(config)
    chosen = sorted(random.Random(seed).sample(range(spec.pairs), min(sample, spec.pairs)))
    stored = {}
    for idx in chosen:
        path = folder / records.shard_name(idx // spec.shard_pairs, spec.shard_count)
        stored[idx] = records.read_record(path, idx % spec.shard_pairs)
    requests = [
        Request(spec.draw, idx, Planned(plan_from_json(records.decode_meta(record))))
        for idx, record in stored.items()
    ]
    same_cpu = manifest["cpu"] == [machine.cpu_family()]
    try:
        for made in render_pairs(config, requests, min(workers, len(requests))):
            same_version = manifest["versions"][RENDERERS[config.renderer]] == [made.renderer]
            outcome.rendered += 1
            if same_cpu and same_version:
                if made.record != stored[made.idx]:
                    outcome.found.append(f"idx {made.idx}: rendering it again gives other bytes")
                continue
            outcome.comparison = "masks and boxes"
            outcome.found += [
                f"idx {made.idx}: rendering it again {text}"
                for text in _unlike(stored[made.idx], made.record)
            ]
    except RenderFailed as error:
        outcome.found.append(f"the sample could not be rendered again: {error}")


def _unlike(stored: bytes, again: bytes) -> Iterator[str]:
    """How two renders of a plan differ beyond what another processor explains."""
    old, new = records.decode(stored), records.decode(again)
    for name in ("mask_a", "mask_b"):
        if not np.array_equal(getattr(old, name), getattr(new, name)):
            yield f"gives another {name}"
    if not np.array_equal(old.boxes_px, new.boxes_px):
        yield "gives other boxes"
    for name in ("image_a", "image_b"):
        gap = np.abs(getattr(old, name).astype(np.int16) - getattr(new, name)).mean()
        if gap > _PIXEL_TOLERANCE:
            yield f"moves {name} by {gap:.1f} grey levels on average"
