"""The ablation as one picture: scores with intervals by arm, and what training looked like."""

from pathlib import Path

import numpy as np

from dig_jax.pictures.drawing import FAINT, INK
from scripts.study.ablation.plan import Plan
from scripts.study.ablation.tables import BASE, curves

COLORS = ("#1f6feb", "#d1495b", "#2a9d8f", "#e9a23b", "#7b4fb5", "#5b6470")
SCORES = {"f1": "F1", "iou": "mean IoU", "count_ok": "count accuracy"}
CURVE, CURVE_NAME = "f1", "F1 of the step's own answers"


def draw(path: Path, plan: Plan, scores: dict, *, title: str) -> None:
    """A row of panels per study: a dot with its interval per arm and score, and training curves.

    scores   of one mode, as `tables.summarize` gives them

    The dashed line and its band are the untrained policy; small dots are single seeds. Curves are
    running means over a twentieth of the run, averaged over seeds, between their extremes.
    """
    from matplotlib.figure import Figure  # a second to import; no pyplot: no global state

    most = max(len(arms) for arms in plan.studies.values())
    height = 1.2 + len(plan.studies) * (1.3 + 0.36 * most)
    figure = Figure(figsize=(14, height), layout="constrained")
    shares = {"width_ratios": [1] * len(SCORES) + [1.45]}
    axes = figure.subplots(len(plan.studies), len(SCORES) + 1, squeeze=False, gridspec_kw=shares)
    for line, (study, arms) in zip(axes, plan.studies.items(), strict=True):
        colors = dict(zip(arms, COLORS * len(arms), strict=False)) | {plan.reference: INK}
        for axis, (metric, name) in zip(line[:-1], SCORES.items(), strict=True):
            _dots(axis, metric, arms, scores, colors)
            axis.set_title(name, fontsize=10, loc="left")
        line[0].set_yticks(range(len(arms)), arms)
        line[0].set_ylabel(study, fontsize=11)
        _curves(line[-1], plan, arms, colors)
    for column in axes[:, :-1].T:
        _share_range(column)
    figure.suptitle(f"{title}\ndashed: untrained; small dots: single seeds", fontsize=11)
    figure.savefig(path, dpi=110)


def _dots(axis, metric: str, arms, scores: dict, colors: dict[str, str]) -> None:
    if BASE in scores:
        mean, low, high = scores[BASE]["metrics"][metric]
        axis.axvspan(low, high, color=FAINT, alpha=0.12, linewidth=0)
        axis.axvline(mean, color=FAINT, linestyle="--", linewidth=1)
    for place, arm in enumerate(arms):
        if arm not in scores:
            axis.text(
                0.5, place, "none finished", ha="center", va="center", fontsize=8, color=FAINT,
                transform=axis.get_yaxis_transform(),
            )  # fmt: skip
            continue
        mean, low, high = scores[arm]["metrics"][metric]
        axis.plot([low, high], [place, place], color=colors[arm], linewidth=2.2)
        axis.plot(mean, place, "o", color=colors[arm], markersize=7)
        seeds = scores[arm]["per_seed"][metric]
        axis.plot(seeds, [place + 0.24] * len(seeds), ".", color=colors[arm], alpha=0.7)
    axis.set_yticks(range(len(arms)), [])
    axis.set_ylim(len(arms) - 0.4, -0.6)
    axis.grid(axis="x", color=FAINT, alpha=0.15)
    axis.spines[["top", "right"]].set_visible(False)


def _share_range(column) -> None:
    """One scale for a score in every study, so that the rows can be compared."""
    low = min(axis.get_xlim()[0] for axis in column)
    high = max(axis.get_xlim()[1] for axis in column)
    for axis in column:
        axis.set_xlim(low, high)


def _curves(axis, plan: Plan, arms, colors: dict[str, str]) -> None:
    styles = ["-"] * len(COLORS) + ["--"] * len(COLORS) + [":"] * len(arms)
    for arm, style in zip(arms, styles, strict=False):
        runs = curves(plan, arm, CURVE)
        if not runs:
            continue
        shared = min(map(len, runs))
        smooth = np.stack([_running_mean(np.array(run[:shared])) for run in runs])
        steps = np.arange(1, shared + 1)
        axis.plot(steps, smooth.mean(0), color=colors[arm], ls=style, linewidth=1.8, label=arm)
        axis.fill_between(
            steps, smooth.min(0), smooth.max(0), color=colors[arm], alpha=0.13, linewidth=0
        )
    axis.set_title(f"training: {CURVE_NAME}", fontsize=10, loc="left")
    axis.set_xlabel("step", fontsize=9)
    axis.spines[["top", "right"]].set_visible(False)
    axis.margins(x=0)
    if axis.lines:
        axis.legend(fontsize=8, frameon=False, loc="center left", bbox_to_anchor=(1.0, 0.5))


def _running_mean(values: np.ndarray) -> np.ndarray:
    """Mean over the last twentieth of the run, over less at the start."""
    span = max(1, len(values) // 20)
    total = np.cumsum(np.concatenate([[0.0], values]))
    at = np.arange(1, len(values) + 1)
    first = np.maximum(at - span, 0)
    return (total[at] - total[first]) / (at - first)
