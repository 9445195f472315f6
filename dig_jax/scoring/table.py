"""Evaluations as cells, for Markdown and for a terminal."""

from pathlib import Path

from dig_jax.common.files import read_sealed
from dig_jax.scoring.metrics import METRICS

NAMES = {"before": "before", "after": "after", "pixel_diff": "pixel difference"}
Evaluation = dict  # an eval_<name>.json: name, protocol, summary, rows


def read_evaluation(path: Path) -> Evaluation:
    """An eval_<name>.json; raises ValueError naming it where it is not what was written."""
    return read_sealed(path, "delete it, and evaluate again")


def table(evaluations: dict[str, Evaluation], metrics: dict[str, str]) -> list[list[str]]:
    """Cells of a table: a heading line, then a line per evaluation with `mean [low, high]`."""
    lines = [["", *metrics.values()]]
    for name, evaluation in evaluations.items():
        cells = [_interval(evaluation["summary"].get(metric)) for metric in metrics]
        lines.append([NAMES[name], *cells])
    return lines


def metric_labels(evaluation: Evaluation) -> dict[str, str]:
    threshold = evaluation["protocol"]["iou_threshold"]
    return {name: label.format(threshold=threshold) for name, label in METRICS.items()}


def count_labels(evaluation: Evaluation) -> dict[str, str]:
    """The metrics by the true number of differences: "f1_n2" -> "F1, n = 2"."""
    counts = sorted({row["n_true"] for row in evaluation["rows"]})
    words = {"f1": "F1", "count_ok": "count accuracy", "n_pred": "boxes predicted"}
    return {f"{name}_n{n}": f"{word}, n = {n}" for name, word in words.items() for n in counts}


def markdown(lines: list[list[str]]) -> str:
    """Cells as a Markdown table."""
    head, *body = ["| " + " | ".join(line) + " |" for line in lines]
    return "\n".join([head, "|" + "---|" * len(lines[0]), *body])


def columns(lines: list[list[str]]) -> str:
    """Cells for a terminal, a column per line: seven intervals side by side would not fit."""
    widths = [max(map(len, line)) for line in lines]
    return "\n".join(
        "  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip()
        for row in zip(*lines, strict=True)
    )


def _interval(cell: list[float] | None) -> str:
    return "-" if cell is None else "{:.3f} [{:.3f}, {:.3f}]".format(*cell)
