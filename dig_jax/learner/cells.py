"""Dense labels: what the cells of two pictures say about a difference pair.

Without them a model of a million parameters does not leave its plateau in hours of CPU: image B's
tokens, otherwise unsupervised, say which cells changed, where the box that covers them lies, and
which place it has in the answer; image A's say what stands there, and in which box. They are read
from early text layers through the ordinary head, by rows of the vocabulary that no text uses, so
there are no extra parameters. `SftConfig` has weights, layers and the first row.
"""

from collections.abc import Callable, Iterable, Sequence

import jax
import jax.numpy as jnp
import numpy as np
from flax import struct

from dig_jax.config import SftConfig

BINS = 20  # per coordinate
RANKS = 4
# Values of what stands in a cell; nothing is the last "shape", large the last "size".
THINGS = {"shape": 4, "color": 8, "material": 2, "size": 2}
UNKNOWN = -1  # a label that does not apply, or that nobody knows

ASKED = {f"asked_{name}": count for name, count in THINGS.items()}
# What a question decides: left or right, behind or in front, how many, no or yes; and whether an
# option is wanted.
TOLD = {"aside": 2, "ahead": 2, "number": 4, "truth": 2, "wanted": 2}
NAMED = 3  # things of a question, in its order

# Rows of the vocabulary, in order. Of the bytes of a byte-level vocabulary those that gaps skip
# stand in texts: tab and newline, and the blank.
_PARTS = {"changed": 2, "bins": 4 * BINS, "rank": RANKS, **THINGS, "gap": 6, **ASKED, "aside": 2}
_PARTS |= {"blank": 1, **{name: TOLD[name] for name in ("ahead", "number", "truth")}}
# An option of a count says one number and counts another: rows of their own. One is spare: rows
# after it stay where trained bases have them.
_PARTS |= {"core": 2, "spare": 1, "wanted": TOLD["wanted"], "counted": TOLD["number"]}
GAPS = ("gap", "blank", "spare")
ROWS = sum(_PARTS.values())
_STARTS = dict(zip(_PARTS, np.cumsum([0, *_PARTS.values()]).tolist(), strict=False))


@struct.dataclass
class Cells:
    """Labels of B pairs' cells, in raster order.

    changed     i32[B, S]     of image B: 1 where a true box covers the cell
    bins        i32[B, S, 4]  of the covering box's coordinates; UNKNOWN where unchanged
    rank        i32[B, S]     place of that box in the answer; UNKNOWN where unchanged
    things      i32[B, S, 4]  of image A, as THINGS
    thing_bins  i32[B, S, 4]  of the visible box of what stands there; UNKNOWN where nothing does
    core        i32[B, S]     of image A: 1 in one cell of each thing, by which they are counted
    """

    changed: jax.Array
    bins: jax.Array
    rank: jax.Array
    things: jax.Array
    thing_bins: jax.Array
    core: jax.Array


def totals(cells: Cells) -> dict[str, jax.Array]:
    """Number of labels of each kind, f32[] and at least 1: what their losses are means over."""
    known = {"bins": cells.bins[..., 0], "rank": cells.rank, "thing_bins": cells.thing_bins[..., 0]}
    known["core"] = cells.core
    known |= {name: cells.things[..., i] for i, name in enumerate(THINGS)}
    found = {name: (label != UNKNOWN).sum() for name, label in known.items()}
    found["changed"] = cells.changed.size
    return {name: jnp.maximum(count, 1).astype(jnp.float32) for name, count in found.items()}


def make_cell_loss(cfg: SftConfig) -> Callable:
    """Bind the statics; returns loss(read, states, cells, totals) -> (f32[], metrics).

    read    f[B, S, D] -> logits f32[B, S, ROWS] of the label rows
    states  [layer] -> (image A's cells f[B, S, D], image B's)
    totals  of the whole batch, of which `cells` may be a slice

    Metrics are sums of f32[] over slices; "cells_right" and "cells_told" make the F1 of changed.
    """

    def loss(read, states, cells: Cells, totals):
        total, metrics = jnp.float32(0), {}
        if cfg.changed_weight:
            early = read(states(cfg.changed_layer)[1])
            late = read(states(cfg.rank_layer)[1])
            changed, seen = _changed(early, cells.changed)
            parts = {
                "changed": changed / totals["changed"],
                "bins": bins_loss(early, cells.bins) / totals["bins"],
                "rank": cross(rows_of(late, "rank"), cells.rank) / totals["rank"],
            }
            total += cfg.changed_weight * (parts["changed"] + 0.3 * (parts["bins"] + parts["rank"]))
            metrics |= {f"loss_{name}": value for name, value in parts.items()} | seen
        if cfg.things_weight:
            logits = read(states(cfg.things_layer)[0])
            parts = {
                name: cross(rows_of(logits, name), cells.things[..., i]) / totals[name]
                for i, name in enumerate(THINGS)
            }
            things = sum(parts.values()) / len(parts)
            more = {
                "thing_bins": bins_loss(logits, cells.thing_bins) / totals["thing_bins"],
                "core": cross(rows_of(logits, "core"), cells.core) / totals["core"],
            }
            total += cfg.things_weight * (things + 0.3 * more["thing_bins"] + more["core"])
            metrics |= {f"loss_{name}": value for name, value in (parts | more).items()}
        return total, metrics

    return loss


def label_rows(first: int) -> np.ndarray:
    """i32[ROWS]: the rows of the vocabulary that labels use."""
    return first + np.arange(ROWS)


def places_of(names: Iterable[str]) -> np.ndarray:
    """i32[n]: the places of some labels' values among the rows."""
    return np.concatenate([_STARTS[name] + np.arange(_PARTS[name]) for name in names])


def rows_of(logits: jax.Array, name: str) -> jax.Array:
    """f32[..., values] of a label, of f32[..., ROWS]."""
    start = _STARTS[name]
    return logits[..., start : start + _PARTS[name]]


def _changed(logits: jax.Array, truth: jax.Array):
    """Sum over cells; one in eight is changed, so the changed ones weigh more."""
    yes, no = jnp.moveaxis(rows_of(logits, "changed"), -1, 0)
    logit, truth = yes - no, truth.astype(jnp.float32)
    loss = ((1 + 2 * truth) * (jax.nn.softplus(logit) - truth * logit)).sum()
    told = (logit > 0).astype(jnp.float32)
    return loss, {"cells_right": (told * truth).sum(), "cells_told": told.sum() + truth.sum()}


def bins_loss(logits: jax.Array, labels: jax.Array) -> jax.Array:
    """Cross-entropy f32[] of bins i32[..., 4]: a sum, and a mean over the four coordinates."""
    logits = rows_of(logits, "bins").reshape(*logits.shape[:-1], 4, BINS)
    return cross(logits, labels) / 4


def cross(logits: jax.Array, labels: jax.Array) -> jax.Array:
    """Cross-entropy f32[], summed over all labels that are known."""
    logp = jax.nn.log_softmax(logits)
    picked = jnp.take_along_axis(logp, jnp.maximum(labels, 0)[..., None], -1)[..., 0]
    return -jnp.where(labels == UNKNOWN, 0.0, picked).sum()


def cell_slots(slot: np.ndarray) -> Sequence[np.ndarray]:
    """Places in a prompt of image A's cells, and of image B's: i32[S] each, in raster order.

    slot   i32[P]  of `PromptInputs`, of a row with two images of one size
    """
    places = np.flatnonzero(np.asarray(slot) >= 0)
    return places[: len(places) // 2], places[len(places) // 2 :]
