"""Dense labels: what the tokens of a prompt say about its question.

The answer's loss alone has to find, in one go, the words that tell a thing, the cells that show it,
how it compares and which option says so. Asked for step by step these are learned within thousands
of questions: an early block says which words were read, a later one what the thing that they mean
is, and where, by the rows of the vocabulary by which cells say it (`cells`); the one after it what
the question decides, which an option then says. `SftConfig` has weights and layers.
"""

from collections.abc import Callable

import jax
import jax.numpy as jnp
from flax import struct

from dig_jax.config import SftConfig
from dig_jax.learner.cells import ASKED, THINGS, TOLD, UNKNOWN, bins_loss, cross, rows_of

SPOTS = 8  # of a prompt that labels are for: its end, and the last word of what it names


@struct.dataclass
class Asked:
    """Labels of B questions at N spots each; UNKNOWN where nothing is known.

    places  i32[B, N]     in the prompt; the first is its end, of others that are none it is 0
    words   i32[B, N, 9]  as THINGS and TOLD: what the words up to it say
    meant   i32[B, N, 4]  as THINGS: what is known of the thing that they mean
    bins    i32[B, N, 4]  of the coordinates of its box
    named   i32[B, N]     of a thing: its place among those of the question
    number  i32[B, N]     where it is asked how many there are: that, less one, at the name of what
                          is counted and at every option
    letter  i32[B, N]     of an option: its place among them
    told    i32[B, N, 5]  as TOLD: what is decided; of an option whether it is right
    """

    places: jax.Array
    words: jax.Array
    meant: jax.Array
    bins: jax.Array
    named: jax.Array
    number: jax.Array
    letter: jax.Array
    told: jax.Array


def asked_totals(asked: Asked) -> dict[str, jax.Array]:
    """Number of labels of each kind, f32[] and at least 1: what their losses are means over."""
    known = {"words": asked.words, "meant": asked.meant, "where": asked.bins[..., 0]}
    known |= {name: getattr(asked, name) for name in ("named", "number", "letter", "told")}
    counts = {name: (label != UNKNOWN).sum() for name, label in known.items()}
    return {name: jnp.maximum(count, 1).astype(jnp.float32) for name, count in counts.items()}


def make_asked_loss(cfg: SftConfig) -> Callable:
    """Bind the statics; returns loss(read, states, asked, totals) -> (f32[], metrics f32[]).

    read    f[B, N, D] -> logits f32[B, N, ROWS] of the label rows
    states  [layer] -> f[B, N, D] of the tokens at the spots
    totals  of the whole batch, of which `asked` may be a slice
    """

    def loss(read, states, asked: Asked, totals):
        early, late = read(states(cfg.asked_layer)), read(states(cfg.meant_layer))
        last = read(states(cfg.told_layer))
        sums = {
            "words": _values(early, (*ASKED, *TOLD), asked.words),
            "meant": _values(late, THINGS, asked.meant),
            "where": bins_loss(late, asked.bins),
            "named": cross(rows_of(late, "rank"), asked.named),
            "number": cross(rows_of(late, "counted"), asked.number),
            "letter": cross(rows_of(late, "rank"), asked.letter),
            "told": _values(last, TOLD, asked.told),
        }
        parts = {name: value / totals[name] for name, value in sums.items()}
        total = parts["words"] + parts["meant"] + parts["number"] + parts["told"]
        total += 0.3 * (parts["where"] + parts["named"] + parts["letter"])
        return cfg.asked_weight * total, {f"loss_{name}": one for name, one in parts.items()}

    return loss


def _values(logits: jax.Array, names, labels: jax.Array) -> jax.Array:
    """Sum over labels i32[..., kinds] of all kinds."""
    return sum(cross(rows_of(logits, name), labels[..., i]) for i, name in enumerate(names))
