"""Where activations live on a mesh: hints at the few places where XLA would guess wrong.

    pairs   the update: rows over both axes, everything else whole; each device gathers a layer's
            weights and computes its own rows with them. But the head stays: the last states are
            gathered, and each device computes its own part of the vocabulary for all rows
    heads   a rollout: rows over `fsdp`, attention heads and the vocabulary over `tensor`; weights
            stay where they are

Weights alone do not say so: a table split by features would spread the residual stream by
features, and every matrix would be gathered at every token. Without a mesh nothing happens.
"""

import jax
from jax.sharding import PartitionSpec

BATCH_AXIS, HEAD_AXIS = "fsdp", "tensor"  # as in sharding.MESH_AXES


def place(x: jax.Array, split: str, *, rows: int = 0, heads: int | None = None) -> jax.Array:
    """x f[..., B, ...] as the mesh in context should hold it, its gradient alike.

    split   ModelConfig.split: "pairs" or "heads"
    rows    the dimension of B
    heads   the dimension that `tensor` splits in a rollout; None: whole on its devices

    A dimension that its axes do not divide is left to XLA.
    """
    mesh = jax.sharding.get_abstract_mesh()
    if mesh.empty or mesh.size == 1:
        return x
    parts: list = [None] * x.ndim
    if split == "pairs":
        parts[rows] = _axes(x.shape[rows], mesh, BATCH_AXIS, HEAD_AXIS)
    else:
        parts[rows] = _axes(x.shape[rows], mesh, BATCH_AXIS)
        if heads is not None:
            parts[heads] = _axes(x.shape[heads], mesh, HEAD_AXIS)
    return jax.lax.with_sharding_constraint(x, PartitionSpec(*parts))


def vocab_parts(vocab: int, split: str) -> int:
    """Into how many equal parts of the vocabulary the mesh in context cuts the head."""
    mesh = jax.sharding.get_abstract_mesh()
    if mesh.empty:
        return 1
    ways = 1
    for name in _vocab_axes(split):
        ways *= mesh.shape[name]
    return 1 if vocab % ways else ways


def place_vocab(
    x: jax.Array, split: str, *, vocab: int | None = None, rows: int | None = None
) -> jax.Array:
    """x f[...] where parts of the vocabulary are computed, its gradient alike.

    vocab   the dimension of `vocab_parts`, each on its devices; None: x is the same for all
    rows    that of B, if there is one: whole in the update, as in `place` in a rollout
    """
    mesh = jax.sharding.get_abstract_mesh()
    if mesh.empty or mesh.size == 1:
        return x
    parts: list = [None] * x.ndim
    if vocab is not None:
        parts[vocab] = _vocab_axes(split)
    if rows is not None and split == "heads":
        parts[rows] = _axes(x.shape[rows], mesh, BATCH_AXIS)
    return jax.lax.with_sharding_constraint(x, PartitionSpec(*parts))


def _vocab_axes(split: str) -> tuple[str, ...]:
    """As `sharding.spec_for` splits the vocabulary, in training and in a rollout."""
    return (HEAD_AXIS, BATCH_AXIS) if split == "pairs" else (HEAD_AXIS,)


def _axes(size: int, mesh, *names: str):
    ways = 1
    for name in names:
        ways *= mesh.shape[name]
    return names if size % ways == 0 else PartitionSpec.UNCONSTRAINED
