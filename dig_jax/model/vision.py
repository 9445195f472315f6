"""The vision tower: patches -> merged tokens for the text decoder, and deepstack features.

HF `Qwen3VLVisionModel`. Every image lies on a canvas of one static size; its own grid is data.
Attention knows patches only by (row, column), so canvas order instead of HF's order changes
nothing, and patches outside an image's grid are masked.
"""

import jax
import jax.numpy as jnp
from flax import struct
from jax.ad_checkpoint import checkpoint_name

from dig_jax.model import attention
from dig_jax.model.config import ModelConfig, VisionConfig
from dig_jax.model.layers import over_layers, recomputed
from dig_jax.model.params import Params
from dig_jax.model.placement import place
from dig_jax.model.rope import axis_weights, patch_rows_cols, rotate, vision_angles


@struct.dataclass
class VisionTokens:
    """What the text decoder reads of E images with S canvas cells each.

    tokens     f[E, S, D]
    deepstack  f[n, E, S, D]   one entry per tapped block, lowest block first
    """

    tokens: jax.Array
    deepstack: jax.Array


def patchify(images: jax.Array, config: VisionConfig) -> jax.Array:
    """Cut images into patches, normalised to [-1, 1]; HF's `pixel_values` to the bit.

    images  u8[E, Y, X, 3]
    ->      f32[E, U, 3*2*patch*patch]   block-major patches; channel, time, y, x within one
    """
    count, height, width, channels = images.shape
    p, m = config.patch, config.merge
    blocks = images.reshape(count, height // (p * m), m, p, width // (p * m), m, p, channels)
    patches = blocks.transpose(0, 1, 4, 2, 5, 7, 3, 6)
    patches = patches.reshape(count, -1, channels, 1, p * p)
    # a still image is a two-frame video of itself
    patches = jnp.broadcast_to(patches, (*patches.shape[:3], config.temporal, p * p))
    patches = patches.reshape(*patches.shape[:2], -1)
    return normalise(patches)


def normalise(pixels: jax.Array) -> jax.Array:
    """u8[...] -> f32[...] in [-1, 1], bit for bit HF's (float32(v * (1 / 255)) - 0.5) / 0.5.

    In whole 2^-24ths: 2v - 255 times (2^24 - 1) / 255, and one more or less as HF's own roundings
    fall. Integers and a power of two, so no compiler or device can round otherwise; in floats,
    XLA contracts or reorders the steps.
    """
    value = pixels.astype(jnp.int32)
    nudge = (value >= 128).astype(jnp.int32) - (value < 64)
    whole = (2 * value - 255) * 65793 + nudge
    return whole.astype(jnp.float32) * jnp.float32(2**-24)


def layer_norm(x: jax.Array, weight: jax.Array, bias: jax.Array, eps: float) -> jax.Array:
    """LayerNorm with float32 statistics, back in x's dtype."""
    wide = x.astype(jnp.float32)
    centred = wide - wide.mean(-1, keepdims=True)
    scaled = centred * jax.lax.rsqrt(jnp.square(centred).mean(-1, keepdims=True) + eps)
    return (scaled * weight + bias).astype(x.dtype)


def gelu_exact(x: jax.Array) -> jax.Array:
    """The erf form: HF's mergers use `nn.GELU()`, the blocks the tanh form."""
    return jax.nn.gelu(x, approximate=False)


def position_embedding(
    table: jax.Array, grids: jax.Array, rows: int, cols: int, merge: int
) -> jax.Array:
    """The learned square table resampled onto each image's grid; f32[E, U, Dv], block-major.

    Bilinear resampling is separable, so it is two small matmuls and no gather or scatter.
    """
    side = round(table.shape[0] ** 0.5)
    square = table.reshape(side, side, -1)
    along_y = jnp.einsum("ers,std->ertd", axis_weights(rows, grids[:, 0], side), square)
    grid = jnp.einsum("ect,ertd->ercd", axis_weights(cols, grids[:, 1], side), along_y)
    blocks = grid.reshape(len(grid), rows // merge, merge, cols // merge, merge, -1)
    return blocks.transpose(0, 1, 3, 2, 4, 5).reshape(len(grid), rows * cols, -1)


def _linear(x: jax.Array, weight: jax.Array, bias: jax.Array) -> jax.Array:
    return x @ weight.astype(x.dtype) + bias.astype(x.dtype)


def block(
    p: Params, x: jax.Array, angles: jax.Array, inside: jax.Array, config: ModelConfig
) -> jax.Array:
    """One ViT block; x f[E, U, Dv]."""
    eps, split = config.vision.norm_eps, config.split
    h = layer_norm(place(x, split), p["norm1"], p["norm1_bias"], eps)
    qkv = jnp.einsum("eud,dcnh->ceunh", h, p["wqkv"].astype(h.dtype))
    q, k, v = qkv + p["wqkv_bias"].astype(h.dtype)[:, None, None]
    named = (("q", rotate(q, angles)), ("k", rotate(k, angles)), ("v", v))
    q, k, v = (checkpoint_name(place(a, split, heads=2), name) for name, a in named)
    mixed = place(attention.full(config.attention, q, k, v, inside), split, heads=2)
    x = x + jnp.einsum("eunh,nhd->eud", mixed, p["wo"].astype(x.dtype))
    x = place(x + p["wo_bias"].astype(x.dtype), split)
    h = layer_norm(x, p["norm2"], p["norm2_bias"], eps)
    h = jax.nn.gelu(_linear(h, p["w_up"], p["w_up_bias"]), approximate=True)
    return place(x + _linear(h, p["w_down"], p["w_down_bias"]), split)


def merge(p: Params, x: jax.Array, config: VisionConfig, *, norm_first: bool) -> jax.Array:
    """Join each 2x2 block of patches into one token; f[E, U, Dv] -> f[E, U/4, D].

    The final merger normalises patches before joining them, the deepstack mergers after.
    """
    joined = (x.shape[0], x.shape[1] // config.merge**2, config.width * config.merge**2)
    if norm_first:
        x = layer_norm(x, p["norm"], p["norm_bias"], config.norm_eps).reshape(joined)
    else:
        x = layer_norm(x.reshape(joined), p["norm"], p["norm_bias"], config.norm_eps)
    x = gelu_exact(_linear(x, p["w_up"], p["w_up_bias"]))
    return _linear(x, p["w_down"], p["w_down_bias"])


def _rows(stack: Params, start: int, stop: int) -> Params:
    """Layers start..stop of stacked parameters."""
    return jax.tree.map(lambda a: a[start:stop], stack)


def encode_images(
    params: Params, config: ModelConfig, images: jax.Array, grids: jax.Array
) -> VisionTokens:
    """Tokens and deepstack features of a batch of images on one canvas size.

    params  the "vision" subtree
    images  u8[E, Y, X, 3]   each image in the top left corner of its canvas
    grids   i32[E, 2]        rows and columns of each image's own patches
    """
    c = config.vision
    height, width = images.shape[1:3]
    config.check_image(height, width)
    canvas = (height // c.patch, width // c.patch)
    rows, cols = patch_rows_cols(*canvas, c.merge)
    inside = (rows < grids[:, :1]) & (cols < grids[:, 1:])
    angles = vision_angles(rows, cols, c.head_dim)
    dtype = jnp.dtype(config.compute_dtype)

    x = _linear(patchify(images, c).astype(dtype), params["patch"], params["patch_bias"])
    x = x + position_embedding(params["position"], grids, *canvas, c.merge).astype(dtype)

    def step(x, p):
        return block(p, x, angles, inside, config), None

    x, taps = _tapped(step, x, params["blocks"], config)
    features = []
    for number, tap in enumerate(taps):
        merger = jax.tree.map(lambda a: a[0], _rows(params["deepstack"], number, number + 1))
        features.append(merge(merger, tap, c, norm_first=False))
    tokens = merge(params["merger"], x, c, norm_first=True)
    none = jnp.zeros((0, *tokens.shape), dtype)
    return VisionTokens(tokens=tokens, deepstack=jnp.stack(features) if features else none)


def _tapped(step, x: jax.Array, blocks: Params, config: ModelConfig):
    """All blocks, and the states f[E, U, Dv] that deepstack taps, lowest block first.

    Layers "scan": a scan from tap to tap, states leave in between. "one_scan": one scan that
    carries the states, half the program.
    """
    taps, depth, how = config.vision.deepstack, config.vision.depth, config.layers
    step = recomputed(step, remat=config.remat, layers=how)
    if how == "one_scan" and taps:

        def tapping(carry, layer):
            x, states = carry
            p, number = layer
            x, _ = step(x, p)
            here = (number == jnp.asarray(taps)).reshape(-1, 1, 1, 1)
            return (x, jnp.where(here, x, states)), None

        empty = jnp.zeros((len(taps), *x.shape), x.dtype)
        return over_layers(tapping, (x, empty), (blocks, jnp.arange(depth)), layers=how)[0]
    states, start = [], 0
    for tap in taps:
        x, _ = over_layers(step, x, _rows(blocks, start, tap + 1), layers=how)
        states.append(x)
        start = tap + 1
    return over_layers(step, x, _rows(blocks, start, depth), layers=how)[0], states
