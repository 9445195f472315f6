"""Plans of a split on disk: what will be rendered, decided before anything is.

    <root>/<split>/plan-00000-of-00025.jsonl

The first line tells the request and the sha256 of what follows, each following one a pair:
{"idx", "plan", "dropped", "cpu_s"}.
Rendering starts from these scenes and draws the next attempt of an index where the rendered
pair does not certify, so a split has the same bytes with and without them.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Iterable
from pathlib import Path

from dig_jax.common import sealed
from dig_jax.common.files import make_folder, write_text
from dig_jax.common.parallel import map_in_order
from dig_jax.data.corpus import manifest
from dig_jax.data.render.produce import Planned, plan_pair, planned_from_json, planned_to_json
from dig_jax.data.scene.draws import SplitSpec
from dig_jax.data.scene.look import SceneConfig


def plan_name(shard: int, count: int) -> str:
    return f"plan-{shard:05d}-of-{count:05d}.jsonl"


def plan_split(
    root: str | Path,
    spec: SplitSpec,
    config: SceneConfig,
    workers: int,
    report: Callable[[int, int, str], None],
    shards: Iterable[int] | None = None,
) -> list[Path]:
    """Write the plans of a split that are missing; returns the files of these shards.

    Raises ValueError where the request cannot be met, `produce.Exhausted` where some index has
    no acceptable scene.
    """
    config.check_draw(spec.draw)
    folder = Path(root) / spec.split
    make_folder(folder)
    identity = manifest.request_identity(spec, config)
    wanted = list(range(spec.shard_count) if shards is None else shards)
    paths = {shard: folder / plan_name(shard, spec.shard_count) for shard in wanted}
    missing = [shard for shard, path in paths.items() if not _is_current(path, identity)]
    done, total = len(wanted) - len(missing), len(wanted)
    report(done, total, "")
    workers, count = min(workers, max(len(missing), 1)), len(missing)
    jobs = [paths[shard] for shard in missing]
    ranges = [spec.shard_range(shard) for shard in missing]
    for path in map_in_order(_write, workers, jobs, ranges, [spec] * count, [config] * count):
        done += 1
        report(done, total, f"{path.name} written")
    return list(paths.values())


def read_plans(folder: Path, shard: int, count: int, identity: dict) -> dict[int, Planned]:
    """Plans of one shard by index; empty where none were written.

    Raises ValueError where they are damaged or were made by another request.
    """
    path = folder / plan_name(shard, count)
    if not path.is_file():
        return {}
    try:
        request, lines = _read(path)
    except ValueError as error:
        raise ValueError(
            f"{path} {error}; delete it, and rendering decides its scenes anew, or run `plan` again"
        ) from error
    if request != identity:
        raise ValueError(
            f"{path} was planned by another request ({request}); this one is {identity}; "
            f"plan again, or delete {path}"
        )
    return {line["idx"]: planned_from_json(line) for line in lines}


def _read(path: Path) -> tuple[dict, list[dict]]:
    """The request and the lines of a file of plans; raises ValueError where it is damaged."""
    first, _, rest = path.read_text(encoding="utf-8", errors="replace").partition("\n")
    head = sealed.parse(first)
    if "sha256" in head and head["sha256"] != _sha256(rest):
        raise ValueError("was changed: its plans do not have the sha256 of its first line")
    if "request" not in head:
        raise ValueError("lacks its request in the first line")
    return head["request"], [sealed.parse(line) for line in rest.splitlines()]


def _sha256(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()


def _is_current(path: Path, identity: dict) -> bool:
    try:
        return path.is_file() and _read(path)[0] == identity
    except ValueError:
        return False  # damaged: planned again


def _write(path: Path, indices: range, spec: SplitSpec, config: SceneConfig) -> Path:
    """Plan one shard and write it whole."""
    lines = []
    for idx in indices:
        planned = planned_to_json(plan_pair(config, spec.draw, idx))
        lines.append(json.dumps({"idx": idx, **planned}) + "\n")
    rest = "".join(lines)
    head = {"request": manifest.request_identity(spec, config), "sha256": _sha256(rest)}
    write_text(path, json.dumps(sealed.sealed(head)) + "\n" + rest)
    return path
