"""Initial weights for a tiny Qwen3-VL that is to compare two images.

Plain random initialisation leaves a model of a million parameters on a plateau for thousands
of steps. Here attention starts as a comparison ("mimetic" initialisation, after Trockman &
Kolter 2023): in the first text layers a token of image B attends to the token of the same cell
in image A and subtracts what it finds.
"""

import math
from dataclasses import dataclass

import jax
import jax.numpy as jnp
import numpy as np

from dig_jax.model.config import ModelConfig
from dig_jax.model.params import Params, init_params
from dig_jax.model.specs import model_specs


@dataclass(frozen=True)
class Codes:
    """Rows of an untied head by which states say what they show, or what they look for.

    rows    i32[n]  all of them
    shown   i32[m]  what a cell shows
    asked   i32[m]  what words ask for, in the same order
    wanted  i32[w]  that something is wanted, of which the last layer
    right   i32[w]  reads what says that it is
    """

    rows: np.ndarray
    shown: np.ndarray
    asked: np.ndarray
    wanted: np.ndarray
    right: np.ndarray


def comparing_init(
    config: ModelConfig,
    cells: tuple[int, int],
    *,
    key: jax.Array,
    layers: int = 2,
    codes: Codes | None = None,
) -> Params:
    """Float32 parameters whose first `layers` text layers subtract image A from image B.

    cells   merged rows and columns of each image; fixes how far B's positions lie after A's
    layers  text layers that start as a comparison
    codes   the next layer starts as a search: what asks for a code reads what shows it; the last
            one as another: what wants an option reads the one that says that it is right. Of a
            model of layers + 2 text layers or more
    """
    specs = model_specs(config)
    params = init_params(specs, key=key, scale=1.0)
    draw = np.random.default_rng(int(jax.random.randint(key, (), 0, 2**31 - 1)))
    params = jax.tree.map(np.array, params)
    _scale_linears(params, config)
    _position_table(params["vision"], config, amplitude=0.5)
    _similarity_attention(params["vision"]["blocks"], draw)
    # image B's positions all lie max(rows, cols) + 2 after image A's: the image and two markers
    _twin_attention(params["blocks"], config, shift=max(cells) + 2, layers=layers, draw=draw)
    if codes is not None:
        turn = _write_codes(params["head"], codes, draw)
        _search_attention(params["blocks"], config, turn, layer=layers, draw=draw)
        _match_attention(params, config, codes, layer=config.text.layers - 1, draw=draw)
    return jax.tree.map(lambda a: jnp.asarray(a, jnp.float32), params)


def matching_init(params: Params, config: ModelConfig, codes: Codes, *, key: jax.Array) -> Params:
    """Trained parameters whose last text layer looks for the right option as a fresh one does.

    While nothing says yet which option is right, these heads have nothing to find and drift; put
    in again when options say it, they read it.
    """
    draw = np.random.default_rng(int(jax.random.randint(key, (), 0, 2**31 - 1)))
    params = jax.tree.map(lambda a: np.array(a, np.float32), params)
    _match_attention(params, config, codes, layer=config.text.layers - 1, draw=draw)
    return jax.tree.map(jnp.asarray, params)


def _scale_linears(params: Params, config: ModelConfig) -> None:
    """Unit-variance activations everywhere, small residual branches, a nearly flat output."""
    text, vision = params["blocks"], params["vision"]
    params["embed"] *= 0.5
    if "head" in params:
        params["head"] *= 0.02
    residual = 1 / math.sqrt(2 * config.text.layers)
    for name in ("w_gate", "w_up", "w_down"):
        text[name] /= math.sqrt(text[name].shape[1])
    text["w_down"] *= residual
    for name in ("wq", "wk", "wv"):
        text[name] /= math.sqrt(config.text.width)
    text["wo"] *= residual / math.sqrt(config.text.heads * config.text.head_dim)
    # pixels are in [-1, 1] with little contrast: start louder
    vision["patch"] *= 3 / math.sqrt(vision["patch"].shape[0])
    if "deepstack" in vision:
        vision["deepstack"]["w_down"] *= 0.5
    stacks = (("blocks", 1), ("merger", 0), ("deepstack", 1))
    for tree, stacked in ((vision[name], n) for name, n in stacks if name in vision):
        for name in ("w_up", "w_down"):
            tree[name] /= math.sqrt(tree[name].shape[stacked])
    vision["blocks"]["w_down"] *= residual
    vision["merger"]["w_down"] *= 1.5  # GELU keeps 0.43 of a unit variance
    vision["blocks"]["wqkv"] /= math.sqrt(config.vision.width)
    vision["blocks"]["wo"] *= residual / math.sqrt(config.vision.width)


def _position_table(vision: Params, config: ModelConfig, amplitude: float) -> None:
    """Start the learned table as 2-D sines, so that neighbours look alike."""
    side, width = math.isqrt(config.vision.positions), config.vision.width
    quarter = width // 4
    place = np.linspace(0, 1, side)[:, None]
    angle = place * np.pi * np.geomspace(0.5, side / 2, quarter)
    along = np.concatenate([np.sin(angle), np.cos(angle)], -1)
    table = np.zeros((side, side, width), np.float32)
    table[..., : 2 * quarter] = along[:, None]
    table[..., 2 * quarter : 4 * quarter] = along[None]
    vision["position"][:] = amplitude * table.reshape(side * side, width)


def _similarity_attention(blocks: Params, draw: np.random.Generator) -> None:
    """ViT patches attend to patches like themselves and subtract some of what they share."""
    depth, width, _, heads, dim = blocks["wqkv"].shape
    for layer in range(depth):
        same = draw.normal(size=(width, heads, dim)) / math.sqrt(width)
        noise = draw.normal(size=(width, heads, dim)) / math.sqrt(width)
        value = _orthonormal(width, heads * dim, draw).reshape(width, heads, dim)
        blocks["wqkv"][layer, :, 0] = same + 0.3 * noise
        blocks["wqkv"][layer, :, 1] = same
        blocks["wqkv"][layer, :, 2] = value
        blocks["wo"][layer] += -0.4 * value.transpose(1, 2, 0)


def _twin_attention(
    blocks: Params, config: ModelConfig, *, shift: int, layers: int, draw: np.random.Generator
) -> None:
    """Even query heads look `shift` positions back for the same content and subtract it.

    Rotating the query projection by -shift moves the peak of the rotary attention from the
    token itself to its twin: score(m, n) = |u|^2 summed over cos(frequency * (m - n - shift)).
    """
    c = config.text
    group = c.heads // c.kv_heads
    angle = shift * c.rope_theta ** (-np.arange(0, c.head_dim, 2) / c.head_dim)
    cos, sin = np.cos(angle), np.sin(angle)
    for layer in range(layers):
        key = _orthonormal(c.width, c.kv_heads * c.head_dim, draw)
        key = key.reshape(c.width, c.kv_heads, c.head_dim) * math.sqrt(c.width / c.head_dim)
        value = _orthonormal(c.width, c.kv_heads * c.head_dim, draw)
        value = value.reshape(c.width, c.kv_heads, c.head_dim)
        first, second = np.split(key, 2, axis=-1)
        back = np.concatenate([first * cos + second * sin, second * cos - first * sin], -1)
        blocks["wk"][layer], blocks["wv"][layer] = key, value
        blocks["wq"][layer, :, ::group] = back
        blocks["wo"][layer, ::group] = -0.7 * value.transpose(1, 2, 0)
        blocks["q_norm"][layer] = blocks["k_norm"][layer] = math.sqrt(2.0)


def _write_codes(head: np.ndarray, codes: Codes, draw: np.random.Generator) -> np.ndarray:
    """Make the codes of a head orthogonal; returns the turn f64[D, D] of asked to shown ones."""
    width = len(head)
    turn = _orthonormal(width, width, draw)
    free = np.setdiff1d(codes.rows, codes.asked)
    head[:, free] = 2 * _orthonormal(width, len(free), draw)
    head[:, codes.asked] = turn.T @ head[:, codes.shown]
    return turn


def _search_attention(
    blocks: Params,
    config: ModelConfig,
    turn: np.ndarray,
    *,
    layer: int,
    draw: np.random.Generator,
) -> None:
    """Even query heads look for what is their own state turned, wherever it is, and add it.

    For the turn of `_write_codes`: for what shows the code that they ask for. A token then matches
    neither itself nor what is as it is. Keys lie in the slowest quarter of the rotary frequencies,
    which tell places least.
    """
    c = config.text
    group = c.heads // c.kv_heads
    key = _orthonormal(c.width, c.kv_heads * c.head_dim, draw)
    key = key.reshape(c.width, c.kv_heads, c.head_dim) * math.sqrt(c.width / c.head_dim)
    key *= np.where(_slow(c.head_dim), 1.0, 0.1)
    blocks["wk"][layer] = key
    blocks["wq"][layer, :, ::group] = np.einsum("ij,jkh->ikh", turn.T, key)
    _copy_what_is_read(blocks, config, layer, draw)


def _match_attention(
    params: Params, config: ModelConfig, codes: Codes, *, layer: int, draw: np.random.Generator
) -> None:
    """Even query heads look for a code by another one, and add what says it.

    By another: a token that looks for what it says itself finds itself, and learns nothing from
    the others. What a state says otherwise lies in the fast frequencies: without it, the norm
    would make a match out of a state that says neither.
    """
    c, blocks, head = config.text, params["blocks"], params["head"]
    slow = _slow(c.head_dim)
    axes = np.zeros((len(codes.wanted), c.head_dim))
    axes[:, slow] = _orthonormal(slow.sum(), len(codes.wanted), draw).T
    every = slice(None, None, c.heads // c.kv_heads)
    for name, rows, heads in (("wq", codes.wanted, every), ("wk", codes.right, slice(None))):
        weights = blocks[name][layer]
        noise = draw.normal(size=weights[:, heads].shape) * np.where(slow, 0.0, 1.3)
        weights[:, heads] = (head[:, rows] @ axes)[:, None] + noise / math.sqrt(c.width)
    _copy_what_is_read(blocks, config, layer, draw)


def _copy_what_is_read(
    blocks: Params, config: ModelConfig, layer: int, draw: np.random.Generator
) -> None:
    """Even heads add the states that they attend to, at sharp attention."""
    c = config.text
    value = _orthonormal(c.width, c.kv_heads * c.head_dim, draw)
    value = value.reshape(c.width, c.kv_heads, c.head_dim)
    blocks["wv"][layer] = value
    blocks["wo"][layer, :: c.heads // c.kv_heads] = 0.7 * value.transpose(1, 2, 0)
    blocks["q_norm"][layer] = blocks["k_norm"][layer] = math.sqrt(2.0)


def _slow(head_dim: int) -> np.ndarray:
    """bool[head_dim]: the slowest quarter of the rotary frequencies, which tell places least."""
    half = head_dim // 2
    return np.arange(head_dim) % half >= half - half // 4 - 1


def _orthonormal(rows: int, cols: int, draw: np.random.Generator) -> np.ndarray:
    """Orthonormal columns (or rows, if there are more columns than rows)."""
    tall = draw.normal(size=(max(rows, cols), min(rows, cols)))
    q, _ = np.linalg.qr(tall)
    return q if rows >= cols else q.T
