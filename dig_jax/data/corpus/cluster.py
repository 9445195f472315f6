"""Shards on a Ray cluster; the only file that imports ray (extra `[cluster]`).

Every shard is one task of one core: Ray places it, and starts it again where its machine or
process is lost. The bytes are those of a local run. `root` must be storage that every machine
sees under this path, and every machine needs this package with its renderer.
"""

from __future__ import annotations

import importlib.util
import os
from collections.abc import Iterable
from pathlib import Path

from dig_jax.data.corpus import manifest
from dig_jax.data.corpus.splits import Report, check_complete, finished_shards, render_shards
from dig_jax.data.render.supervise import RenderFailed
from dig_jax.data.scene.draws import SplitSpec
from dig_jax.data.scene.look import SceneConfig

_RETRIES = 2  # of a shard, after its machine was lost or its run failed


def check_ray() -> None:
    """Fail early, with the remedy, where ray is not installed."""
    if importlib.util.find_spec("ray") is None:
        raise RuntimeError(
            "--backend ray needs the [cluster] extra: pip install -e '.[cluster]'; array "
            "schedulers need nothing: --shards I/N"
        )


def render_split_on_ray(
    root: str | Path,
    spec: SplitSpec,
    config: SceneConfig,
    report: Report,
    command: tuple[str, ...] | None = None,
    shards: Iterable[int] | None = None,
) -> dict:
    """`splits.render_split` by the tasks of a Ray cluster that `connected` has joined.

    Raises RenderFailed naming the shards that failed _RETRIES times more; all others are made.
    """
    import ray

    root = Path(root).absolute()
    folder = root / spec.split
    wanted = list(range(spec.shard_count) if shards is None else shards)
    whole = finished_shards(folder, spec, config, wanted)
    done, failed = len(whole), {}
    report(done, len(wanted), "")
    task = ray.remote(num_cpus=1, max_retries=_RETRIES, retry_exceptions=True)(_render_shard)
    waiting = {
        task.remote(str(root), spec, config, shard, command): shard
        for shard in wanted
        if shard not in whole
    }
    while waiting:
        (ref,), _ = ray.wait(list(waiting), num_returns=1)
        shard = waiting.pop(ref)
        try:
            report(done := done + 1, len(wanted), f"{ray.get(ref)} written")
        except ray.exceptions.RayError as error:
            failed[shard] = str(error).strip().splitlines()[-1]
    summary = manifest.write_manifest(folder, spec, config) if folder.is_dir() else {}
    if failed:
        lines = "\n  ".join(f"shard {shard}: {text}" for shard, text in sorted(failed.items()))
        raise RenderFailed(f"{folder}: {len(failed)} shards failed:\n  {lines}")
    check_complete(folder, spec, wanted)
    return summary


class connected:
    """Within it, this process belongs to a Ray cluster.

    address   of a running cluster ("auto" finds the one this machine is part of); None starts
              one on this machine with `workers` cores, and stops it afterwards
    """

    def __init__(self, address: str | None, workers: int):
        self.address, self.workers = address, workers

    def __enter__(self) -> None:
        check_ray()
        os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")  # tell nobody
        import ray

        home = str(Path(__file__).parents[3])
        path = os.pathsep.join(filter(None, [home, os.environ.get("PYTHONPATH")]))
        if self.address:
            ray.init(address=self.address, log_to_driver=False)
        else:
            environment = {"env_vars": {"PYTHONPATH": path}}
            ray.init(
                num_cpus=self.workers,
                include_dashboard=False,
                log_to_driver=False,
                runtime_env=environment,
            )

    def __exit__(self, *_: object) -> None:
        import ray

        ray.shutdown()


def _render_shard(root: str, spec: SplitSpec, config: SceneConfig, shard: int, command) -> str:
    """One task: a supervisor of one render worker."""
    render_shards(root, spec, config, 1, lambda *_: None, command, [shard])
    return f"shard {shard}"
