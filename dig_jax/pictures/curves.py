"""Metrics of a run drawn over its steps."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np

from dig_jax.pictures.drawing import FAINT

# Panel title, and the metrics drawn in it with their legend; those that a run lacks are left out.
PANELS = (
    (
        "reward, mean over answers",
        {"reward": "total", "f1": "F1", "iou": "mean IoU", "format": "format"},
    ),
    ("share of answers with the right number of boxes", {"count_ok": "count"}),
    ("KL to the reference, nats per token", {"kl": "k3"}),
    ("entropy, nats per token", {"entropy": "entropy"}),
    ("answer length, tokens", {"length": "mean", "length_max": "longest"}),
    (
        "shares",
        {"flat_groups": "flat groups", "truncated": "answers cut off", "clip_high": "clipped up"},
    ),
)
MODES = {"": "o", "sampled/": "o", "greedy/": "D"}  # of a validation, with their markers
COLORS = ("#1f6feb", "#d1495b", "#2a9d8f", "#e9a23b")
STAGE_TINTS = ("#eef2f7", "#fdf6e7", "#eef7ee", "#f7eef5")


def curves(
    path: str | Path, rows: Sequence[dict], *, title: str, stages: Sequence[str] = ()
) -> None:
    """One figure of what a run's log says, with its curriculum stages shaded.

    rows    of metrics.jsonl: `kind`, `step`, `stage` and the metrics of PANELS
    stages  name of each stage; their numbers if absent

    Faint lines are single training steps, bold ones a running mean over a twentieth of the run,
    markers held-out validations: discs of sampled answers, diamonds of greedy ones. Panels whose
    metrics are all absent are left out; raises ValueError when that leaves none.
    """
    from matplotlib.figure import Figure  # a second to import; no pyplot: no global state

    train = [row for row in rows if row["kind"] == "train"]
    panels = [(name, _present(metrics, train)) for name, metrics in PANELS]
    panels = [(name, metrics) for name, metrics in panels if metrics]
    if not panels:
        names = ", ".join(name for _, metrics in PANELS for name in metrics)
        raise ValueError(f"no training row has any of {names}; has the run made a step?")
    lines = -(-len(panels) // 2)
    figure = Figure(figsize=(11, 2.7 * lines + 0.5), layout="constrained")
    axes = figure.subplots(lines, 2, squeeze=False, sharex=True).ravel()
    for axis in axes[len(panels) :]:
        axis.set_visible(False)
    for axis, (name, metrics) in zip(axes, panels, strict=False):
        _shade_stages(axis, train, stages)
        _panel(axis, name, metrics, train, [row for row in rows if row["kind"] == "eval"])
    for axis in axes[max(0, len(panels) - 2) : len(panels)]:
        axis.set_xlabel("step")
        axis.tick_params(labelbottom=True)
    figure.suptitle(title, fontsize=12)
    figure.savefig(path, dpi=110)


def _present(metrics: dict[str, str], rows: Sequence[dict]) -> dict[str, str]:
    return {name: label for name, label in metrics.items() if any(name in row for row in rows)}


def _panel(axis, name: str, metrics: dict[str, str], rows, held_out) -> None:
    span = max(1, len(rows) // 20)
    for (metric, label), color in zip(metrics.items(), COLORS, strict=False):
        steps, values = _points(metric, rows)
        axis.plot(steps, values, color=color, alpha=0.25, linewidth=1)
        axis.plot(steps, _running_mean(values, span), color=color, linewidth=1.8, label=label)
        for prefix, marker in MODES.items():
            axis.plot(*_points(prefix + metric, held_out), marker, color=color, markersize=5)
    axis.set_title(name, fontsize=10, loc="left")
    axis.spines[["top", "right"]].set_visible(False)
    axis.margins(x=0)
    if len(metrics) > 1:
        axis.legend(fontsize=8, frameon=False, loc="best")


def _points(metric: str, rows: Sequence[dict]) -> tuple[np.ndarray, np.ndarray]:
    """Steps done and values of a metric where it was logged."""
    # a metric that was not finite stands in the log as text: float() reads "nan" and "inf"
    some = [(row["step"] + 1, float(row[metric])) for row in rows if metric in row]
    steps, values = np.array(some, float).reshape(-1, 2).T
    return steps, values


def _shade_stages(axis, rows: Sequence[dict], names: Sequence[str]) -> None:
    for number in sorted({row["stage"] for row in rows if "stage" in row}):
        steps = [row["step"] for row in rows if row.get("stage") == number]
        tint = STAGE_TINTS[number % len(STAGE_TINTS)]
        axis.axvspan(min(steps) + 0.5, max(steps) + 1.5, color=tint, zorder=0, linewidth=0)
        name = names[number] if number < len(names) else f"stage {number}"
        axis.text(
            min(steps) + 1.5, 0.01, name, fontsize=8, color=FAINT, va="bottom",
            transform=axis.get_xaxis_transform(),
        )  # fmt: skip


def _running_mean(values: np.ndarray, span: int) -> np.ndarray:
    """Mean over the last `span` steps, over fewer at the start."""
    total = np.cumsum(np.concatenate([[0.0], values]))
    at = np.arange(1, len(values) + 1)
    first = np.maximum(at - span, 0)
    return (total[at] - total[first]) / (at - first)
