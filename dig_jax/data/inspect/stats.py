"""What a corpus is like: histograms against the draw, scene overlap, the baseline's score.

    python -m dig_jax.data stats --root data/tiny

Prints tables and writes <root>/stats.json. Exit status 1 where a scene or a pair of pictures
occurs twice, in one split or in two, or where a split of "seen" combinations shows a held-out
one.
"""

from __future__ import annotations

import argparse
import itertools
from collections import Counter, defaultdict
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path

import numpy as np
from scipy.special import chdtrc

from dig_jax.common import typed
from dig_jax.common.files import write_json
from dig_jax.common.parallel import map_in_order
from dig_jax.common.progress import progress
from dig_jax.data.corpus.on_disk import Split, open_splits
from dig_jax.data.corpus.splits import default_workers
from dig_jax.data.inspect import stats_text
from dig_jax.data.inspect.survey import IOUS, Survey, survey_shard

QUANTILES = (0.0, 0.05, 0.25, 0.5, 0.75, 0.95, 1.0)
_BINS = 12
_EXAMPLES = 5


def add_arguments(parser: argparse.ArgumentParser, verb: str) -> None:
    parser.description = "Histograms, scene overlap and the pixel-difference baseline per split."
    parser.add_argument("--root", type=Path, required=True, help="folder that holds the splits")
    parser.add_argument("--splits", help="only these, separated by commas; default: all")
    parser.add_argument(
        "--json", type=Path, help="where the figures go; default: stats.json in root, for all"
    )
    parser.add_argument("--workers", type=int, default=default_workers(), help="processes")


def run(args: argparse.Namespace, verb: str) -> int:
    """Print and write the figures; 1 where the corpus breaks a promise."""
    typed.require(args.workers >= 1, "--workers", args.workers, "is below 1", "use one per core")
    splits = open_splits(args.root, args.splits)
    with progress("stats", "shards") as report:
        stats = corpus_stats(splits, args.workers, report)
    path = args.json or (None if args.splits else args.root / "stats.json")
    print(stats_text.text(stats))
    if path:
        write_json(path, stats)
        print(f"\nall figures: {path}")
    else:
        print("\nnothing written: of some splits only, name the file with --json FILE")
    return 1 if stats["faults"] else 0


def corpus_stats(splits: list[Split], workers: int, report: Callable[[int, int, str], None]):
    """Everything about these splits, ready for JSON; equal shards give equal figures."""
    surveys = {split.name: Survey() for split in splits}
    total = sum(len(split.shards) for split in splits)
    report(0, total, "")
    for done, (name, survey) in enumerate(_surveys(splits, workers), 1):
        surveys[name].add(survey)
        report(done, total, "")
    highs = _highs(surveys.values())
    stats = {
        "splits": {split.name: split_stats(split, surveys[split.name], highs) for split in splits},
        "overlap": overlap({name: survey.keys for name, survey in surveys.items()}),
    }
    return {**stats, "faults": _faults(stats)}


def _surveys(splits: list[Split], workers: int) -> Iterator[tuple[str, Survey]]:
    """Every shard's survey, in order."""
    names, paths, firsts = [], [], []
    for split in splits:
        counts = [entry["count"] for entry in split.manifest["shards"]]
        names += [split.name] * len(split.shards)
        paths += split.shards
        firsts += [0, *itertools.accumulate(counts)][: len(counts)]
    workers = max(min(workers, len(paths)), 1)
    yield from zip(names, map_in_order(survey_shard, workers, paths, firsts), strict=True)


def split_stats(split: Split, survey: Survey, highs: dict[str, float]) -> dict:
    """The figures of one split; what nobody knows of its pairs is None or missing.

    highs   column -> where its histogram ends, so that splits can be compared
    """
    manifest, draw, counts = split.manifest, split.draw, survey.counts
    ks = range(draw["k_low"], draw["k_high"] + 1) if draw else ()
    types = split.look.get("types", ())
    return {
        "pairs": len(survey.keys),
        "complete": manifest.get("complete", True),
        "renderer": manifest.get("renderer"),
        "versions": manifest.get("versions", {}),
        "size": [split.look[name] for name in ("width", "height")] if split.look else None,
        "draw": draw or None,
        "k": _against_uniform(counts["k"], ks),
        "types": _against_uniform(counts["types"], types),
        "things": _named(counts["things"]),
        "combos_changed": _named(counts["changed"]),
        "combos_shown": _named(counts["shown"]),
        "held_out_shown": _held_out_shown(split, counts["shown"]),
        "columns": {n: _describe(survey.columns[n], highs[n]) for n in _plain(survey)},
        "dropped": _dropped(manifest.get("dropped"), len(survey.keys)),
        "core_s_per_pair": manifest.get("cpu_s_per_pair"),
        "baseline": _baseline(survey),
    }


def chi_square_p(counts: list[int]) -> float | None:
    """How often fair draws give counts at least this uneven; None where nothing can be uneven."""
    expected = sum(counts) / max(len(counts), 1)
    if len(counts) < 2 or not expected:
        return None
    statistic = sum((count - expected) ** 2 for count in counts) / expected
    return round(float(chdtrc(len(counts) - 1, statistic)), 4)


def overlap(keys: dict[str, list[tuple[int, tuple[str, ...]]]]) -> dict:
    """Pairs whose scene or pictures were there before, in order of the splits.

    between   "first & second" -> pairs of the second that the first has too
    within    split -> pairs that it has more than once
    """
    first: dict[str, tuple[str, int]] = {}
    between, within, examples = Counter(), Counter(), []
    for split, rows in keys.items():
        for idx, prints in rows:
            old = next((first[key] for key in prints if key in first), None)
            if old is None:
                first.update(dict.fromkeys(prints, (split, idx)))
                continue
            if old[0] == split:
                within[split] += 1
            else:
                between[f"{old[0]} & {split}"] += 1
            examples.append(f"{split} {idx} is {old[0]} {old[1]}")
    return {"between": dict(between), "within": dict(within), "examples": examples[:_EXAMPLES]}


def _faults(stats: dict) -> list[str]:
    """Broken promises, in words."""
    found = stats["overlap"]
    faults = [f"{n} pairs are in both of {splits}" for splits, n in found["between"].items()]
    faults += [f"{n} pairs of {split} are repeated" for split, n in found["within"].items()]
    if faults:
        faults.append(f"namely {'; '.join(found['examples'])} ...")
    for name, split in stats["splits"].items():
        if split["held_out_shown"] and split["draw"]["combos"] == "seen":
            faults.append(f"{name} shows {split['held_out_shown']} things that are held out")
    return faults


def _against_uniform(counter: Counter, values) -> dict:
    """Counts of every value that could be drawn, others too, and the p-value of the former."""
    rest = sorted(set(counter) - set(values))
    counts = {str(value): counter[value] for value in [*values, *rest]}
    p = None if rest else chi_square_p([counter[value] for value in values])
    return {"counts": counts, "p": p}


def _named(counter: Counter) -> dict[str, int]:
    return {str(value): counter[value] for value in sorted(counter)}


def _held_out_shown(split: Split, shown: Counter) -> int | None:
    """Things shown whose combination the look holds out; None where no look is known."""
    if "held_out" not in split.look:
        return None
    return sum(shown[combo] for combo in split.look["held_out"])


def _plain(survey: Survey) -> list[str]:
    """Names of the columns that describe pairs, without the baseline's scores."""
    return sorted(n for n in survey.columns if "@" not in n and not n.startswith("n_"))


def _highs(surveys: Iterable[Survey]) -> dict[str, float]:
    """The largest figure of every column; 1 for shares."""
    highs: dict[str, float] = defaultdict(lambda: 1.0)
    for survey in surveys:
        for name in _plain(survey):
            highs[name] = max([highs[name], *survey.columns[name]])
    return highs


def _describe(values: list[float], high: float) -> dict:
    """Count, mean, quantiles, and a histogram from 0 to `high` as edges and counts."""
    values = np.asarray(values, np.float64)
    counts, edges = np.histogram(values, _BINS, (0.0, high))
    quantiles = np.quantile(values, QUANTILES)
    return {
        "count": len(values),
        "mean": round(float(values.mean()), 4),
        "quantiles": {
            f"{q:g}": round(float(v), 4) for q, v in zip(QUANTILES, quantiles, strict=True)
        },
        "edges": [round(float(edge), 4) for edge in edges],
        "histogram": counts.tolist(),
    }


def _dropped(counter: dict | None, pairs: int) -> dict | None:
    """Scenes that were dropped, by reason: how many, and their share of all scenes tried."""
    if counter is None:
        return None
    tried = pairs + sum(counter.values())
    rows = sorted(counter.items(), key=lambda item: (-item[1], item[0]))
    return {reason: [count, round(count / max(tried, 1), 4)] for reason, count in rows}


def _baseline(survey: Survey) -> dict:
    """IoU -> scores of the pixel-difference detector; `f1` is the headline, as in evaluate.

    f1, precision, recall   means over pairs
    pooled_f1               of all boxes of the split together
    exact                   share of pairs with every difference found and nothing else
    recall_by_type          share of the differences of a type that were found
    """
    columns, types = survey.columns, survey.counts["types"]
    boxes = sum(columns["n_pred"]) + sum(columns["n_true"])
    scores = {}
    for iou in IOUS:
        found = survey.counts[f"found@{iou}"]
        scores[f"{iou:g}"] = {
            **{name: _mean(columns[f"{name}@{iou}"]) for name in ("f1", "precision", "recall")},
            "pooled_f1": round(2 * sum(columns[f"hits@{iou}"]) / boxes, 4) if boxes else 1.0,
            "exact": _mean(columns[f"is_exact@{iou}"]),
            "recall_by_type": {name: round(found[name] / types[name], 4) for name in sorted(types)},
        }
    return scores


def _mean(values: list[float]) -> float | None:
    return round(float(np.mean(values)), 4) if values else None
