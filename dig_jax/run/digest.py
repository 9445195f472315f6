"""A number for the bits of an array, the same on every mesh: what was saved is what is loaded.

Orbax and TensorStore keep checksums of their own tables, not of the numbers themselves: a byte
that turns over in an array's file goes unnoticed. Here a digest is the sum, modulo 2^32, of an
array's words times an odd weight that tells their place. Integers are summed, so that the order,
and with it the mesh, does not matter. A word that changes in one bit always changes the sum: an
odd number times a power of two below 2^32 is not 0 modulo 2^32.
"""

import functools
from typing import Any

import jax
import jax.numpy as jnp
from jax.sharding import NamedSharding, PartitionSpec, Sharding

Digest = dict[str, list]  # dotted path -> [dtype of the array, its sum]


def digest_of(tree: Any) -> Digest:
    """The digest of every array of a tree. Every process calls it where arrays are shared.

    tree   pytree of arrays of 1, 2 or 4 bytes an element, sharded or not
    """
    return {name: [str(leaf.dtype), int(_sum(leaf))] for name, leaf in _named(tree).items()}


def changed(tree: Any, known: Digest) -> list[str]:
    """Paths of arrays whose numbers are not those of `known`, in order.

    An array that `known` lacks is not judged, nor one that was read in a narrower type than it
    was saved in; one in a wider type is rounded back first, which changes nothing.
    """
    wrong = []
    for name, leaf in _named(tree).items():
        dtype, total = known.get(name, (None, None))
        if dtype is None or jnp.dtype(dtype).itemsize > leaf.dtype.itemsize:
            continue
        if int(_sum(leaf, dtype)) != total:
            wrong.append(name)
    return wrong


def check(tree: Any, known: Digest) -> None:
    """Raises ValueError naming the arrays of a tree that are not what was saved (`changed`)."""
    wrong = [] if tree is None else changed(tree, known)
    if wrong:
        some = ", ".join(wrong[:5]) + (f" and {len(wrong) - 5} more" if wrong[5:] else "")
        raise ValueError(f"arrays are not what was saved, their digests differ: {some}")


def _named(tree: Any) -> dict[str, jax.Array]:
    leaves = jax.tree_util.tree_leaves_with_path(tree)
    named = {jax.tree_util.keystr(path, simple=True, separator="."): leaf for path, leaf in leaves}
    return {name: leaf for name, leaf in named.items() if hasattr(leaf, "dtype")}


def _sum(leaf: jax.Array, dtype: str | None = None) -> jax.Array:
    leaf = jnp.asarray(leaf)
    return _program(leaf.sharding, dtype or str(leaf.dtype))(leaf)


@functools.lru_cache(maxsize=256)
def _program(sharding: Sharding, dtype: str):
    """The sum of an array that lies so; its result is on every process."""
    everywhere = None
    if isinstance(sharding, NamedSharding):
        everywhere = NamedSharding(sharding.mesh, PartitionSpec())

    def digest(array):
        if sharding.memory_kind == "pinned_host":
            array = jax.device_put(array, jax.memory.Space.Device)
        return (_words(array.astype(dtype)) * _weights(array.shape)).sum(dtype=jnp.uint32)

    return jax.jit(digest, out_shardings=everywhere)


def _words(array: jax.Array) -> jax.Array:
    """The bits of every element as u32."""
    if array.dtype == jnp.bool_:
        return array.astype(jnp.uint32)
    size = {1: jnp.uint8, 2: jnp.uint16, 4: jnp.uint32}[array.dtype.itemsize]
    return jax.lax.bitcast_convert_type(array, size).astype(jnp.uint32)


def _weights(shape: tuple[int, ...]) -> jax.Array:
    """2 i + 1 for the i-th element in row-major order, modulo 2^32: u32[shape]."""
    place = jnp.zeros(shape, jnp.uint32)
    for axis, length in enumerate(shape):
        place = place * jnp.uint32(length % 2**32) + jax.lax.broadcasted_iota(
            jnp.uint32, shape, axis
        )
    return 2 * place + 1
