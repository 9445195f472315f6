"""What a run folder holds, for its page and its report."""

from __future__ import annotations

import json
import statistics
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import NamedTuple

import numpy as np

from dig_jax.config import Config, from_json
from dig_jax.data.feed.pipeline import eval_pairs
from dig_jax.run import checkpoint, manifest
from dig_jax.run.runlog import METRICS, read_rows, told_gap
from dig_jax.scoring.table import NAMES, Evaluation, read_evaluation

_SHARE = ("step", "compile")  # whole steps, and XLA's part of them, which lies in other phases


class Run(NamedTuple):
    """A run folder.

    evaluations   name -> eval_<name>.json, "before" first, then "after"
    rows          of metrics.jsonl
    starts        of manifest.json, one per start
    notes         what is not as it should be, in words
    """

    folder: Path
    config: Config
    evaluations: dict[str, Evaluation]
    rows: list[dict]
    starts: list[dict]
    notes: tuple[str, ...]


def is_run(folder: Path) -> bool:
    """Whether a folder is one that `dig_jax.train` wrote; a checkpoint has a config.json, too."""
    others = (METRICS, manifest.NAME, "eval_before.json", "eval_after.json")
    return (folder / manifest.SETTINGS).is_file() and any((folder / n).is_file() for n in others)


def read_run(folder: Path) -> Run:
    """Raises ValueError naming a file that is damaged or another run's, as its readers do."""
    config = from_json(json.dumps(manifest.read_settings(folder)))
    number = manifest.number_of(folder)
    found = {path.stem.removeprefix("eval_"): path for path in folder.glob("eval_*.json")}
    known = [name for name in NAMES if name in found]
    evaluations = {}
    for name in [*known, *sorted(set(found) - set(known))]:
        evaluations[name] = read_evaluation(found[name])
        manifest.check_number(
            found[name], evaluations[name], number, "delete it, and evaluate again"
        )
    rows = read_rows(folder)
    gap = told_gap(rows, checkpoint.latest_step(folder) or 0)
    starts = manifest.read_manifest(folder).get("starts", [])
    return Run(folder, config, evaluations, rows, starts, (gap,) if gap else ())


def held_out_images(config: Config, protocol: Mapping) -> np.ndarray:
    """u8[P,2,Y,X,3]: the pairs of an evaluation, in its order.

    Raises FileNotFoundError or ValueError where the data are not there: a run folder may travel
    without them.
    """
    scored = replace(config, eval=replace(config.eval, pairs=protocol["pairs"]))
    batches = eval_pairs(scored, protocol["split"])
    return np.concatenate([batch.images[batch.real] for batch in batches])


def costs(rows: list[dict]) -> list[list[str]]:
    """Seconds of a training step by phase, the first one's apart, and answer tokens per second.

    The first step holds the compilation, and so does the first one after a resume.
    """
    train = [row for row in rows if row["kind"] == "train"]
    lines = [["phase", "first step, s", "median step, s", "all steps, s"]]
    for name in sorted({name for row in train for name in row if name.startswith("time/")}):
        spent = [row[name] for row in train if name in row]
        cells = [f"{spent[0]:.1f}", f"{statistics.median(spent):.2f}", f"{sum(spent):.0f}"]
        lines.append([name.removeprefix("time/"), *cells])
    rates = [row["tokens"] / row["time/rollout"] for row in train if row.get("time/rollout")]
    rate = f"{statistics.median(rates):.0f}" if rates else "-"
    compiling = [_compiling(train[:1]), "", _compiling(train)]
    return [
        *lines,
        ["answer tokens per second of rollout", "", rate, ""],
        ["share of time that was compiling", *compiling],
    ]


def _compiling(train: list[dict]) -> str:
    """XLA's part of the time of some steps."""
    step, compile_ = (sum(row.get(f"time/{name}", 0.0) for row in train) for name in _SHARE)
    return f"{compile_ / step:.1%}" if step else "-"
