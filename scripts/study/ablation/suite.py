"""What training on differences did to everything else: the suite of single pictures, per arm."""

import statistics
from collections.abc import Sequence
from pathlib import Path

from dig_jax.benchmark.folders import find_results
from dig_jax.benchmark.pairing import Comparison, compare_all, in_units
from dig_jax.benchmarks.questions import wanted
from scripts.study.ablation.plan import Plan
from scripts.study.ablation.runs import Stage
from scripts.study.ablation.tables import BASE

FOLDER = "suite"  # of a run's results, in its folder
_ROWS, _TOKENS = "64", "64"
RESAMPLES = 2000


def suite_stage(folder: Path, root: Path, *, source: str | None = None) -> Stage:
    """`dig_jax.benchmark run` on all benchmarks of a root.

    source  the untrained base's folder; None: the newest checkpoint of the run in `folder`
    """
    out = folder / FOLDER
    who = ("--source", source) if source else ("--run", str(folder))
    words = ("dig_jax.benchmark", "run", "--root", str(root), "--suite", "here", *who)
    words += ("--out", str(out), "--rows", _ROWS, "--max-tokens", _TOKENS, "--fsdp", "1")
    names = wanted(root, "here")
    return Stage(FOLDER, words, lambda: all((out / n / "result.json").is_file() for n in names))


def compared(plan: Plan) -> dict[str, list[list[Comparison]]]:
    """arm -> a list of benchmarks for each seed that has answered them, against the base."""
    base = plan.root / BASE / FOLDER
    if not base.is_dir():
        return {}
    first, found = find_results(base), {}
    for run in plan.runs:
        if (run.folder / FOLDER).is_dir():
            second = find_results(run.folder / FOLDER)
            rows = compare_all(first, second, resamples=RESAMPLES, seed=0)
            found.setdefault(run.arm, []).append(rows)
    return found


def suite_table(found: dict[str, list[list[Comparison]]], arms: Sequence[str]) -> list[list[str]]:
    """Cells: the base's score of every benchmark; each arm's, with its difference over seeds."""
    arms = [arm for arm in arms if arm in found]
    rows = [["", "untrained", *arms]]
    for number, first in enumerate(found[arms[0]][0]):
        cells = [_cell([seed[number] for seed in found[arm]]) for arm in arms]
        rows.append([first.benchmark, in_units(first.first, first.scale), *cells])
    return rows


def _cell(seeds: Sequence[Comparison]) -> str:
    """ "61.2 (+3.1 [+1.9, +4.0], 3 of 3 better)": means over seeds, the lowest and highest end."""
    scale = seeds[0].scale
    score = statistics.mean(one.second for one in seeds)
    mean = statistics.mean(one.difference[0] for one in seeds)
    low, high = min(one.difference[1] for one in seeds), max(one.difference[2] for one in seeds)
    shown = (in_units(value, scale, signed=True) for value in (mean, low, high))
    told = [f"{word} {sum(one.verdict == word for one in seeds)}" for word in ("better", "worse")]
    told = [text for text in told if not text.endswith(" 0")]
    ends = "{} [{}, {}]".format(*shown)
    return f"{in_units(score, scale)} ({ends}{'; ' if told else ''}{', '.join(told)})"
