"""Dense labels: what the token from which an answer starts says about its question.

The answer's loss alone has to find, in one go, the words that tell a thing, the cells that show it
and how its box is written. Asked for step by step these are learned within thousands of questions:
an early block says which words were read, a later one what the thing that they mean is, and where,
by the rows of the vocabulary by which cells say it (`cells`). `SftConfig` has weights and layers.
"""

from collections.abc import Callable

import jax
import jax.numpy as jnp
from flax import struct

from dig_jax.config import SftConfig
from dig_jax.learner.cells import ASKED, THINGS, UNKNOWN, bins_loss, cross, rows_of


@struct.dataclass
class Asked:
    """Labels of B questions.

    words  i32[B, 4]  as THINGS: what the question's words tell
    meant  i32[B, 4]  what is known of the thing that they mean
    bins   i32[B, 4]  of the coordinates of its box
    """

    words: jax.Array
    meant: jax.Array
    bins: jax.Array


def asked_totals(asked: Asked) -> dict[str, jax.Array]:
    """Number of labels of each kind, f32[] and at least 1: what their losses are means over."""
    known = {"words": asked.words, "meant": asked.meant, "where": asked.bins[:, 0]}
    counts = {name: (label != UNKNOWN).sum() for name, label in known.items()}
    return {name: jnp.maximum(count, 1).astype(jnp.float32) for name, count in counts.items()}


def make_asked_loss(cfg: SftConfig) -> Callable:
    """Bind the statics; returns loss(read, states, asked, totals) -> (f32[], metrics f32[]).

    read    f[B, D] -> logits f32[B, ROWS] of the label rows
    states  [layer] -> f[B, D] of the last token of every prompt
    totals  of the whole batch, of which `asked` may be a slice
    """

    def loss(read, states, asked: Asked, totals):
        early, late = read(states(cfg.asked_layer)), read(states(cfg.meant_layer))
        sums = {
            "words": _values(early, ASKED, asked.words),
            "meant": _values(late, THINGS, asked.meant),
            "where": bins_loss(late, asked.bins),
        }
        parts = {name: value / totals[name] for name, value in sums.items()}
        total = parts["words"] + parts["meant"] + 0.3 * parts["where"]
        return cfg.asked_weight * total, {f"loss_{name}": one for name, one in parts.items()}

    return loss


def _values(logits: jax.Array, names, labels: jax.Array) -> jax.Array:
    """Sum over labels i32[B, 4] of all kinds."""
    return sum(cross(rows_of(logits, name), labels[:, i]) for i, name in enumerate(names))
