"""Pictures of a run: pairs with their true and predicted boxes, and curves over the steps.

Everything here reads finished rows (the `rows` of eval_<name>.json, the rows of metrics.jsonl)
and writes PNG files. Nothing here trains, scores or loads a model.
"""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
from PIL import Image, ImageDraw

from dig_jax.pictures.drawing import (
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
)

CHOICES = ("best", "typical", "worst")


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
