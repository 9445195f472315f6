"""Position arithmetic: interleaved M-RoPE, the vision tower's 2-D rotary, its resampled table.

All in float32, from integer positions and grids that are data; nothing here knows an image size.
"""

import jax
import jax.numpy as jnp
import numpy as np


def mrope_axes(section: tuple[int, int, int]) -> np.ndarray:
    """Which position axis (0 T, 1 H, 2 W) drives each frequency; i32[H/2].

    Frequency j takes H if j % 3 == 1 and W if j % 3 == 2, while the axis has frequencies
    left, else T (HF `apply_interleaved_mrope`).
    """
    axes = np.zeros(sum(section), np.int32)
    for axis in (1, 2):
        axes[axis : 3 * section[axis] : 3] = axis
    return axes


def mrope_angles(
    positions: jax.Array, *, head_dim: int, theta: float, section: tuple[int, int, int]
) -> jax.Array:
    """Rotary angles of text and image tokens.

    positions  i32[..., 3]       (T, H, W) of each token
    ->         f32[..., H/2]     radians
    """
    frequency = theta ** (-np.arange(0, head_dim, 2, dtype=np.float32) / head_dim)
    chosen = positions[..., mrope_axes(section)].astype(jnp.float32)
    return chosen * jnp.asarray(frequency, jnp.float32)


def rotate(x: jax.Array, angles: jax.Array | tuple[jax.Array, jax.Array]) -> jax.Array:
    """Rotate half-split pairs by `angles`, in float32, back in x's dtype.

    x        [..., heads, H]
    angles   f32[..., H/2]   broadcast over heads; or their cosines and sines
    """
    turn = angles if isinstance(angles, tuple) else (jnp.cos(angles), jnp.sin(angles))
    cos, sin = (a[..., None, :] for a in turn)
    first, second = jnp.split(x.astype(jnp.float32), 2, axis=-1)
    turned = jnp.concatenate([first * cos - second * sin, second * cos + first * sin], axis=-1)
    return turned.astype(x.dtype)


def patch_rows_cols(rows: int, cols: int, merge: int) -> tuple[np.ndarray, np.ndarray]:
    """Row and column of each patch of a canvas, in block-major order; i32[rows*cols] twice.

    2x2 blocks run in raster order, and within a block its patches do: the order in which
    HF's image processor writes `pixel_values`.
    """
    grid = np.arange(rows * cols).reshape(rows // merge, merge, cols // merge, merge)
    order = grid.transpose(0, 2, 1, 3).reshape(-1)
    return (order // cols).astype(np.int32), (order % cols).astype(np.int32)


def vision_angles(rows: np.ndarray, cols: np.ndarray, head_dim: int) -> jax.Array:
    """2-D rotary angles of patches: a quarter of the head from rows, a quarter from columns.

    rows, cols  i32[U]
    ->          f32[U, head_dim/2]   radians
    """
    frequency = 10000.0 ** (-np.arange(0, head_dim // 2, 2, dtype=np.float32) / (head_dim // 2))
    both = np.stack([rows, cols], -1)[:, :, None].astype(np.float32) * frequency.astype(np.float32)
    return jnp.asarray(both.reshape(len(rows), head_dim // 2))


def axis_weights(places: int, lengths: jax.Array, side: int) -> jax.Array:
    """Linear interpolation from a table's axis to a grid's axis, corners aligned.

    places   rows (or columns) of the canvas
    lengths  i32[E]   rows (or columns) of each image's own grid
    side     rows of the square table
    ->       f32[E, places, side]   at most two weights per place, sum 1

    Places outside an image's grid (canvas padding) repeat its edge; they are never read.
    """
    step = (side - 1) / jnp.maximum(lengths - 1, 1).astype(jnp.float32)
    at = jnp.minimum(np.arange(places, dtype=np.float32) * step[:, None], side - 1.0)
    distance = jnp.abs(at[..., None] - np.arange(side, dtype=np.float32))
    return jnp.maximum(1.0 - distance, 0.0)
