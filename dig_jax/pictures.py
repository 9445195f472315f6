"""Pictures of a run: pairs with their true and predicted boxes, and curves over the steps.

Everything here reads finished rows (the `rows` of eval_<name>.json, the rows of metrics.jsonl)
and writes PNG files. Nothing here trains, scores or loads a model.
"""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
from PIL import Image, ImageDraw

from dig_jax.drawing import (
    FAINT,
    GAP,
    INK,
    LINE,
    MARGIN,
    PAPER,
    PRED,
    TRUE,
    draw_box,
    draw_tag,
    enlarged,
    font_of,
    framed,
    heading,
    legend,
)  # fmt: skip

CHOICES = ("best", "typical", "worst")

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


def choose(rewards: Sequence[float], count: int) -> dict[str, list[int]]:
    """Which rows to show: the `count` best, the ones around the median, the worst.

    rewards  one per row   ->   row indices, best first in each list; no row twice

    Depends on the rewards alone: ties go to the earlier row. Fewer than 3 * count rows are
    dealt out best first, then worst, then typical.
    """
    order = sorted(range(len(rewards)), key=lambda i: (-rewards[i], i))
    best = order[:count]
    rest = order[len(best) :]
    worst = rest[len(rest) - min(count, len(rest)) :]
    rest = rest[: len(rest) - len(worst)]
    middle = np.median(rewards) if len(rewards) else 0.0
    near = sorted(rest, key=lambda i: (abs(rewards[i] - middle), i))[:count]
    return {"best": best, "typical": sorted(near, key=order.index), "worst": worst}


def example(rows: Sequence[dict]) -> int:
    """The row to show on its own: three quarters of the answers to two differences earn less."""
    several = [i for i, row in enumerate(rows) if row["n_true"] == 2] or list(range(len(rows)))
    order = sorted(several, key=lambda i: (rows[i]["reward"], i))
    return order[3 * len(order) // 4]


def contact_sheet(
    path: str | Path,
    images: np.ndarray,
    rows: Sequence[dict],
    *,
    title: str,
    count: int = 4,
    columns: int = 2,
) -> None:
    """Best, typical and worst answers of an evaluation, each as image A | image B.

    images  u8[n, 2, Y, X, 3]   of the rows, in their order
    rows    of eval_<name>.json
    count   pairs of each kind

    Raises ValueError unless there is one image pair per row.
    """
    if len(images) != len(rows):
        raise ValueError(
            f"{len(images)} image pairs for {len(rows)} rows; evaluate and report must read the "
            f"same split with the same eval.pairs"
        )
    blocks = []
    for kind, chosen in choose([row["reward"] for row in rows], count).items():
        tiles = [pair_tile(images[i], rows[i]) for i in chosen]
        if tiles:
            blocks += [heading(f"{kind} of {len(rows)} by reward"), _grid(tiles, columns)]
    blocks = [heading(title, size=20), _legend(), *blocks]
    framed(blocks).save(path)


def pair_tile(images: np.ndarray, row: dict) -> Image.Image:
    """One pair with its caption: true boxes on both images, predicted ones with IoU on B.

    images  u8[2, Y, X, 3]
    row     of eval_<name>.json: pred, true (unit frame), match, match_iou, pair_id, f1, ...
    """
    big = [enlarged(image) for image in images]
    for picture in big:
        for box in row["true"]:
            draw_box(picture, box, TRUE, 3)
    for box in row["pred"]:
        draw_box(big[1], box, PRED, 2)
    for box, label in zip(row["pred"], _labels(row), strict=True):
        draw_tag(big[1], box, label)
    tile = Image.new("RGB", (2 * big[0].width + GAP, LINE + big[0].height), PAPER)
    tile.paste(big[0], (0, LINE))
    tile.paste(big[1], (big[0].width + GAP, LINE))
    ImageDraw.Draw(tile).text((0, 1), _caption(row), fill=INK, font=font_of(14))
    return tile


def pair_picture(path: str | Path, images: np.ndarray, row: dict) -> None:
    """A single pair with its boxes and the legend, as in the README."""
    framed([_legend(), pair_tile(images, row)]).save(path)


def _labels(row: dict) -> list[str]:
    """What is written at each predicted box: the IoU with its true partner."""
    shared = zip(row["match"], row["match_iou"], strict=True)
    return [f"{iou:.2f}" if match >= 0 else "none" for match, iou in shared]


def _caption(row: dict) -> str:
    verdict = row.get("verdict", "ok")
    wrong = "" if verdict == "ok" else f"   ({verdict})"
    return (
        f"pair {row['pair_id']}   boxes {len(row['pred'])} for {row['n_true']}   "
        f"F1 {row['f1']:.2f}   IoU {row['iou']:.2f}   reward {row['reward']:.2f}{wrong}"
    )


def _legend() -> Image.Image:
    note = "(none: no true box is left for it)      left: image A      right: image B"
    return legend({"true difference": TRUE, "predicted, with its IoU": PRED}, note)


def _grid(tiles: Sequence[Image.Image], columns: int) -> Image.Image:
    wide, high = tiles[0].size
    lines = -(-len(tiles) // columns)
    sheet = Image.new(
        "RGB", (columns * (wide + MARGIN) - MARGIN, lines * (high + MARGIN) - MARGIN), PAPER
    )
    for i, tile in enumerate(tiles):
        sheet.paste(tile, (i % columns * (wide + MARGIN), i // columns * (high + MARGIN)))
    return sheet


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
