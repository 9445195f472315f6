"""What the cells of two pictures show: dense labels, from true boxes, masks and plans."""

from collections.abc import Sequence

import numpy as np

from dig_jax.common.fields import require
from dig_jax.config import SftConfig
from dig_jax.data.scene.scene import COLORS, MATERIALS, SHAPES
from dig_jax.learner.cells import BINS, RANKS, ROWS, THINGS, UNKNOWN, Cells

COVERED = 0.12  # share of a cell that a box or a thing must cover to be what the cell shows
LARGE = 0.7  # scene units: the radius from which a thing is called large
LOOKS = {"shape": SHAPES, "color": tuple(COLORS), "material": MATERIALS}
# Words of each of THINGS.
KINDS = {name: {**LOOKS, "size": ("medium", "large")}[name] for name in THINGS}
_NOTHING = len(SHAPES)  # the value of "shape" where nothing stands


def check_labels(cfg: SftConfig, *, layers: int, vocab: int) -> None:
    """Raises ValueError where a label is read from a block, or a row, that the model lacks.

    layers, vocab  of its text decoder: JAX would read the last one in place of one beyond
    """
    read = {
        "changed": ("changed", "rank"),
        "things": ("things",),
        "asked": ("asked", "meant", "told"),
    }
    for weight, names in read.items():
        for name in names if getattr(cfg, f"{weight}_weight") else ():
            field, value = f"sft.{name}_layer", getattr(cfg, f"{name}_layer")
            rule = f"is no text block of a model of {layers}"
            require(value < layers, field, value, rule, f"use 0 to {layers - 1}")
    ok = cfg.first_row + ROWS <= vocab or not any(getattr(cfg, f"{name}_weight") for name in read)
    rule = f"and the {ROWS - 1} rows after it are not all in a vocabulary of {vocab}"
    require(ok, "sft.first_row", cfg.first_row, rule, "name rows that no text uses")


def difference_labels(boxes_unit: np.ndarray, grid: tuple[int, int]) -> tuple[np.ndarray, ...]:
    """changed i32[S], bins i32[S,4] and rank i32[S] of image B's cells.

    boxes_unit   f32[n,4]  in the order of the answer
    grid         rows and columns of cells

    A cell belongs to the box that covers it most, if that is more than `COVERED` of it.
    """
    rows, cols = grid
    low = np.stack(np.meshgrid(np.arange(cols), np.arange(rows)), -1).reshape(-1, 1, 2)
    if not len(boxes_unit):
        none = np.full(rows * cols, UNKNOWN)
        return np.zeros(rows * cols, np.int32), np.stack([none] * 4, -1), none
    corner = boxes_unit.reshape(1, -1, 2, 2) * np.array([cols, rows])
    shared = np.minimum(corner[:, :, 1], low + 1) - np.maximum(corner[:, :, 0], low)
    cover = np.prod(np.clip(shared, 0, None), -1)
    changed, rank = cover.max(-1) > COVERED, cover.argmax(-1)
    bins = np.where(changed[:, None], bins_of(boxes_unit[rank]), UNKNOWN)
    rank = np.where(changed, np.minimum(rank, RANKS - 1), UNKNOWN)
    return changed.astype(np.int32), bins, rank


def thing_labels(
    mask: np.ndarray, things: Sequence[dict], grid: tuple[int, int]
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """things i32[S,4], in the order of THINGS, thing_bins i32[S,4] and core i32[S] of A's cells.

    mask    u8[Y,X]  ids of the things, 0 the ground
    things  {"id", "shape", "color", "material", "radius"} of each, as a record's meta has them

    A cell shows the thing that covers it most, if that is more than `COVERED` of it. The core of a
    thing is the cell of those that show it of which it covers most.
    """
    kinds = np.full((*grid, len(THINGS)), UNKNOWN, np.int32)
    kinds[..., 0] = _NOTHING
    bins, most = np.full((*grid, 4), UNKNOWN, np.int32), np.full(grid, COVERED)
    shown = np.zeros(grid, np.int32)
    for thing in things:
        visible = mask == thing["id"]
        share = _shares(visible, grid)
        here = share > most
        if here.any():
            kinds[here] = [*_looks(thing), thing["radius"] >= LARGE]
            bins[here] = bins_of(_box(visible))
            most, shown = np.maximum(most, share), np.where(here, thing["id"], shown)
    core = np.zeros(shown.size, np.int32)
    for one in set(shown.flat) - {0}:
        core[np.where(shown == one, most, 0).argmax()] = 1
    return kinds.reshape(-1, len(THINGS)), bins.reshape(-1, 4), core


def unknown_things(grid: tuple[int, int]) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """`thing_labels` of a picture of which nothing is known."""
    cells = grid[0] * grid[1]
    return tuple(np.full(shape, UNKNOWN) for shape in ((cells, len(THINGS)), (cells, 4), cells))


def stack_cells(rows: Sequence[tuple[np.ndarray, ...]]) -> Cells:
    """Cells of B rows of (changed, bins, rank, things, thing_bins, core)."""
    return Cells(*(np.stack(column).astype(np.int32) for column in zip(*rows, strict=True)))


def _looks(thing: dict) -> list[int]:
    return [values.index(thing[name]) for name, values in LOOKS.items()]


def bins_of(boxes_unit: np.ndarray) -> np.ndarray:
    """i32[..., 4] of boxes f32[..., 4]."""
    return np.clip((boxes_unit * BINS).astype(np.int32), 0, BINS - 1)


def _shares(visible: np.ndarray, grid: tuple[int, int]) -> np.ndarray:
    """f64[rows, cols]: the share of each cell's pixels that are set."""
    cells = visible.astype(np.float64)
    for axis, count in enumerate(grid):
        edges = np.arange(count + 1) * visible.shape[axis] // count
        sizes = np.diff(edges)
        cells = np.add.reduceat(cells, edges[:-1], axis)
        cells /= sizes.reshape((-1, 1) if axis == 0 else (1, -1))
    return cells


def _box(visible: np.ndarray) -> np.ndarray:
    """f32[4], unit frame: tight around what is set."""
    height, width = visible.shape
    (rows, cols) = np.nonzero(visible)
    box = (
        cols.min() / width,
        rows.min() / height,
        (cols.max() + 1) / width,
        (rows.max() + 1) / height,
    )
    return np.float32(box)
