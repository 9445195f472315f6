"""Folders that a report is about: results, a run, or both, each as a side of the page."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

from dig_jax.benchmark.cost import read_cost
from dig_jax.benchmark.folders import RESULT, Result, find_results, short_names
from dig_jax.benchmark.pairing import headline_of
from dig_jax.benchmarks import result as results
from dig_jax.pages import results as pages
from dig_jax.pages.run_folder import Run, is_run, read_run
from dig_jax.pages.shell import Side
from dig_jax.scoring.ratios import Score


class Place(NamedTuple):
    """A folder that was named, as a side of the page.

    results   benchmark -> its result, whose headline is a score that counts something
    scales    benchmark -> score -> how it is written
    """

    side: Side
    results: dict[str, Result]
    scales: dict[str, dict[str, pages.Scale]]
    run: Run | None


def read_places(paths: Sequence[Path]) -> list[Place]:
    """Every folder with what it holds.

    Raises ValueError naming one that holds neither results nor a run, and as their readers.
    """
    places = []
    for number, (path, name) in enumerate(zip(paths, short_names(paths), strict=True)):
        run_here = read_run(path) if is_run(path) else None
        has_results = path.is_file() or (path / RESULT).is_file() or any(path.glob(f"*/{RESULT}"))
        if not has_results and run_here is None:
            what = "holds neither results nor a run" if path.is_dir() else "does not exist"
            raise ValueError(
                f"{path} {what}; name what `benchmark run --out`, `benchmark score --out` or "
                f"`train --run-dir` wrote"
            )
        found = find_results(path) if has_results else {}
        side, scales = Side(number, name, _about(found, run_here)), {}
        for benchmark, each in found.items():
            scores = results.scores_of_rows(benchmark, each.body["rows"])
            told = {"headline": headline_of(each.body["headline"], scores)}
            told["cost"] = read_cost(each.path.parent)
            found[benchmark] = each._replace(body=each.body | told)
            scales[benchmark] = _scales(each.body["scores"], scores)
        places.append(Place(side, found, scales, run_here))
    return places


def _about(found: Mapping[str, Result], run_here: Run | None) -> str:
    told = []
    if run_here is not None:
        steps = sum(row["kind"] == "train" for row in run_here.rows)
        told.append(f"run {run_here.config.name}, {steps} steps")
    if found:
        sources = {str(each.body["protocol"].get("source") or "") for each in found.values()}
        of = f" of {', '.join(sorted(sources))}" if any(sources) else ""
        told.append(f"{len(found)} benchmark{'s' * (len(found) > 1)}{of}")
    return "; ".join(told)


def _scales(told: Mapping[str, Sequence[float]], scores: Mapping[str, Score]) -> dict:
    """The scale of every score that is told: the sum of its weights is the most it can be."""
    largest = {metric: sum(abs(w) for w, _ in score) for metric, score in scores.items()}
    return {
        metric: pages.scale_of(largest.get(metric, max(1.0, high)))
        for metric, (_, _, high) in told.items()
    }
