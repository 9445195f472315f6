"""What the runs of a plan scored: one nested dict, as JSON and as Markdown tables."""

from dig_jax.common import typed
from dig_jax.run.manifest import read_manifest
from dig_jax.run.runlog import read_rows
from scripts.study.ablation.plan import BASE, PIXELS, Plan
from scripts.study.ablation.runs import read_exam
from scripts.study.ablation.statistics import (
    Interval,
    difference_interval,
    mean_interval,
    scores_of,
)

METRICS = {
    "f1": "F1",
    "iou": "mean IoU",
    "format": "format rate",
    "count_ok": "count accuracy",
}
BY_COUNT = {"f1": "F1", "count_ok": "count accuracy"}
NAMES = {PIXELS: "pixel difference", BASE: "untrained"}
Exams = dict[str, dict[int, list[dict]]]  # arm -> seed -> rows


def read_exams(plan: Plan, mode: str) -> Exams:
    """The evaluations of a mode that exist, those of NAMES under seed 0."""
    folders = [(name, 0, plan.root / name) for name in NAMES]
    folders += [(run.arm, run.seed, run.folder) for run in plan.runs]
    exams: Exams = {}
    for arm, seed, folder in folders:
        rows = read_exam(folder, mode)
        if rows is not None:
            exams.setdefault(arm, {})[seed] = rows
    return exams


def summarize(plan: Plan, modes: list[str]) -> dict:
    """mode -> arm -> {seeds, per_seed, metrics, by_count, difference}; what ablation.json holds.

    metrics      metric -> (mean, low, high)
    by_count     metric -> n -> (mean, low, high), n true differences
    difference   metric -> (mean, low, high) of arm minus reference; absent for the reference
    per_seed     metric -> one mean per seed

    An arm of which no seed is evaluated is absent.
    """
    return {mode: _of_mode(plan, read_exams(plan, mode)) for mode in modes}


def _of_mode(plan: Plan, exams: Exams) -> dict:
    resamples = plan.base.eval.bootstrap
    reference = list(exams.get(plan.reference, {}).values())
    found = {}
    for arm, by_seed in exams.items():
        rows = list(by_seed.values())
        counts = sorted({row["n_true"] for row in rows[0]})
        tables = {metric: scores_of(rows, metric) for metric in METRICS}
        found[arm] = {
            "seeds": list(by_seed),
            "per_seed": {name: table.mean(-1).tolist() for name, table in tables.items()},
            "metrics": {
                name: mean_interval(table, resamples=resamples) for name, table in tables.items()
            },
            "by_count": {
                name: {
                    n: mean_interval(scores_of(rows, name, n), resamples=resamples) for n in counts
                }
                for name in BY_COUNT
            },
        }
        if reference and arm != plan.reference:
            found[arm]["difference"] = {
                name: difference_interval(table, scores_of(reference, name), resamples=resamples)
                for name, table in tables.items()
            }
    return found


def study_table(plan: Plan, study: str, scores: dict) -> list[list[str]]:
    """Cells: a heading, a line for each of NAMES and per arm; missing seeds are told."""
    head = ["", "seeds", "s of steps", *METRICS.values(), f"F1 minus {plan.reference}"]
    lines = [head]
    for arm in (*NAMES, *plan.studies[study]):
        label = NAMES[arm] if arm in NAMES else f"{arm}: {plan.titles[arm]}"
        mine = scores.get(arm)
        if mine is None:
            lines.append([label, "none finished", *["-"] * (len(METRICS) + 2)])
            continue
        lines.append([label, *arm_cells(plan, arm, mine)])
    return lines


def arm_cells(plan: Plan, arm: str, mine: dict) -> list[str]:
    """Cells of an arm, or of one of NAMES: seeds, seconds, METRICS, F1 minus the reference's."""
    cells = [str(Interval(*mine["metrics"][name])) for name in METRICS]
    difference = mine.get("difference")
    against = "{:+.3f} [{:+.3f}, {:+.3f}]".format(*difference["f1"]) if difference else "-"
    seeds = "-" if arm in NAMES else str(len(mine["seeds"]))
    spent = None if arm in NAMES else seconds(plan, arm)
    return [seeds, "-" if spent is None else f"{spent:.0f}", *cells, against]


def count_table(plan: Plan, study: str, scores: dict) -> list[list[str]]:
    """Cells: F1 and count accuracy by the true number of differences n."""
    arms = [arm for arm in (*NAMES, *plan.studies[study]) if arm in scores]
    counts = sorted({n for arm in arms for n in scores[arm]["by_count"]["f1"]})
    lines = [["", *(f"{word}, n = {n}" for word in BY_COUNT.values() for n in counts)]]
    for arm in arms:
        by_count = scores[arm]["by_count"]
        cells = [str(Interval(*by_count[name][n])) for name in BY_COUNT for n in counts]
        lines.append([NAMES.get(arm, arm), *cells])
    return lines


def starts(plan: Plan) -> list[dict]:
    """The first start of every run that has one: commit, versions, machine, time."""
    files = [run.folder / "manifest.json" for run in plan.runs]
    return [read_manifest(path.parent)["starts"][0] for path in files if path.is_file()]


def curves(plan: Plan, arm: str, metric: str) -> list[list[float]]:
    """A training metric by step, one list per seed that has been trained."""
    rows = [read_rows(run.folder, kind="train") for run in plan.of_arm(arm)]
    told = [[float(row[metric]) for row in some if metric in row] for some in rows]
    return [some for some in told if some]


def seconds(plan: Plan, arm: str) -> float | None:
    """Wall seconds of the steps of a run without their compilations, mean over seeds."""
    rows = [read_rows(run.folder, kind="train") for run in plan.of_arm(arm)]
    spent = [sum(r["time/step"] - r["time/compile"] for r in some) for some in rows if some]
    return sum(spent) / len(spent) if spent else None


def plain(plan: Plan, scores: dict) -> dict:
    """ablation.json: what was run, and every figure of it."""
    return {
        "studies": plan.studies,
        "titles": plan.titles,
        "reference": plan.reference,
        "seeds": plan.seeds,
        "base": typed.to_plain(plan.base),
        "starts": starts(plan),
        "scores": scores,
    }
