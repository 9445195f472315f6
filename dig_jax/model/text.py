"""The text decoder: pre-norm blocks with grouped-query attention.

HF `Qwen3VLTextModel`. The prompt attends to itself, an answer token to its pair's prompt and its
own answer so far. Prompts and answers are right-padded, so causality and lengths are the only
masks; `attention` computes them.
"""

from collections.abc import Callable, Sequence
from functools import partial

import jax
import jax.numpy as jnp
from jax.ad_checkpoint import checkpoint_name

from dig_jax.model import attention, lora
from dig_jax.model.config import ModelConfig
from dig_jax.model.layers import over_layers, recomputed
from dig_jax.model.params import Params
from dig_jax.model.placement import place
from dig_jax.model.rope import mrope_angles, rotate


def rms_norm(x: jax.Array, weight: jax.Array, eps: float) -> jax.Array:
    """RMSNorm: float32 statistics, cast back, then the weight (HF `Qwen3VLTextRMSNorm`)."""
    wide = x.astype(jnp.float32)
    scaled = wide * jax.lax.rsqrt(jnp.square(wide).mean(-1, keepdims=True) + eps)
    return scaled.astype(x.dtype) * weight.astype(x.dtype)


def block(
    p: Params,
    x: jax.Array,
    angles: jax.Array,
    config: ModelConfig,
    mix: Callable[[jax.Array, jax.Array, jax.Array], jax.Array],
) -> tuple[jax.Array, tuple[jax.Array, jax.Array]]:
    """One decoder block.

    x         f[B, G, T, D]
    angles    f32[B, G, T, H/2]
    mix       attention: q f[B, G, T, N, H], new k, v f[B, G, T, K, H] -> f[B, G, T, N, H]
    ->        x, and this block's new (k rotated, v) f[B, G, T, K, H]
    """
    p, eps, split = lora.merged_block(p), config.text.norm_eps, config.split
    h = rms_norm(place(x, split), p["attn_norm"], eps)
    q, k, v = (jnp.einsum("bgtd,dnh->bgtnh", h, p[w].astype(h.dtype)) for w in ("wq", "wk", "wv"))
    q = rotate(rms_norm(q, p["q_norm"], eps), angles)
    k = rotate(rms_norm(k, p["k_norm"], eps), angles)
    named = ((q, "q"), (k, "k"), (v, "v"))
    q, k, v = (checkpoint_name(place(a, split, heads=3), name) for a, name in named)
    mixed = place(mix(q, k, v), split, heads=3)
    x = place(x + jnp.einsum("bgtnh,nhd->bgtd", mixed, p["wo"].astype(x.dtype)), split)
    h = rms_norm(x, p["mlp_norm"], eps)
    gated = jax.nn.silu(h @ p["w_gate"].astype(h.dtype)) * (h @ p["w_up"].astype(h.dtype))
    return place(x + gated @ p["w_down"].astype(x.dtype), split), (k, v)


def angles_of(positions: jax.Array, config: ModelConfig) -> jax.Array:
    """Rotary angles f32[..., H/2] of M-RoPE positions i32[..., 3]."""
    c = config.text
    return mrope_angles(positions, head_dim=c.head_dim, theta=c.rope_theta, section=c.mrope_section)


def prompt_pass(
    blocks: Params, x: jax.Array, positions: jax.Array, deepstack: jax.Array, config: ModelConfig
) -> tuple[jax.Array, jax.Array, jax.Array, jax.Array]:
    """All blocks over whole prompts, deepstack features added after the first ones.

    x          f[B, P, D]
    positions  i32[B, P, 3]
    deepstack  f[n, B, P, D]   zero at text tokens; entry i is added after block i
    ->         k and v f[L, B, P, K, H], states f[L, B, P, D] after each block, and the last of
               them alone

    Layers "scan": one scan over the first blocks with their features, one over the rest.
    "one_scan": one body, hence half the program, that adds a feature where there is one.

    Callers that use only the last state pay nothing for the others: under jit they are dead. They
    would not be if that one were cut from the stack.
    """
    angles = angles_of(positions, config)[:, None]
    mix = partial(attention.causal, config.attention)
    taps, how = len(deepstack), config.layers

    def step(x, layer):
        p, feature = layer
        x, (k, v) = block(p, x, angles, config, mix)
        x = _deepened(x, feature, deepstack)
        return x, (k[:, 0], v[:, 0], x[:, 0])

    step, x = recomputed(step, remat=config.remat, layers=how), x[:, None]
    if how == "one_scan":
        numbers = jnp.arange(config.text.layers)
        x, found = over_layers(step, x, (blocks, numbers), layers=how)
        return *found, x[:, 0]
    first, rest = jax.tree.map(lambda a: a[:taps], blocks), jax.tree.map(lambda a: a[taps:], blocks)
    x, early = over_layers(step, x, (first, deepstack), layers=how)
    x, late = over_layers(step, x, (rest, None), layers=how)
    return *(jnp.concatenate(both) for both in zip(early, late, strict=True)), x[:, 0]


def _deepened(x: jax.Array, feature: jax.Array | None, deepstack: jax.Array) -> jax.Array:
    """x f[B, 1, P, D] after a block, with the deepstack feature it gets.

    feature  f[B, P, D], or the block's number i32[], or None: this block gets none
    """
    if feature is None or not len(deepstack):
        return x
    if feature.ndim:
        return x + feature[:, None]
    return jax.lax.cond(
        feature < len(deepstack), lambda x: x + deepstack[feature][:, None], lambda x: x, x
    )


def answer_pass(
    blocks: Params,
    x: jax.Array,
    positions: jax.Array,
    prompt: tuple[jax.Array, jax.Array],
    read: Callable[..., jax.Array],
    config: ModelConfig,
) -> jax.Array:
    """All blocks over whole answers.

    x          f[B, G, T, D]
    positions  i32[B, 1 or G, T]    same on all three axes
    prompt     k, v f[L, ...]
    read       attention: q f[B, G, T, N, H], new k, v f[B, G, T, K, H], and as `prompt` the k, v
               of the block -> f[B, G, T, N, H]
    ->         f[B, G, T, D]
    """
    angles = angles_of(jnp.repeat(positions[..., None], 3, -1), config)

    def step(x, layer):
        p, *shared = layer
        return block(p, x, angles, config, partial(read, prompt=tuple(shared)))[0], None

    step = recomputed(step, remat=config.remat, layers=config.layers)
    return over_layers(step, x, (blocks, *prompt), layers=config.layers)[0]


def token_pass(
    blocks: Params,
    x: jax.Array,
    positions: jax.Array,
    prompt: tuple[jax.Array, jax.Array],
    prompt_valid: jax.Array,
    answers: tuple[jax.Array, jax.Array],
    step_index: jax.Array,
    config: ModelConfig,
) -> tuple[jax.Array, jax.Array, jax.Array]:
    """All blocks over one new token per answer, in one scan.

    x           f[B, G, D]
    positions   i32[B]
    prompt      k, v f[L, B, P, K, H]
    answers     k, v f[L, B, G, K, T, H]   entries before `step_index` are filled
    ->          hidden f[B, G, D], and the answers with this token's keys and values

    The cache is a scan input and the new key a third segment: writing into a carried cache
    inside the scan would copy it once per layer.
    """
    filled = jnp.arange(answers[0].shape[-2]) < step_index
    turn = _turn(positions, config)

    def step(x, layer):
        p, prompt_k, prompt_v, own_k, own_v = layer
        prompt, own = (prompt_k.swapaxes(1, 2), prompt_v.swapaxes(1, 2)), (own_k, own_v)

        def mix(q, k, v):
            read = (prompt, prompt_valid, own, filled, (k[:, :, 0], v[:, :, 0]))
            return attention.token(config.attention, q[:, :, 0], *read)[:, :, None]

        x, (k, v) = block(p, x, turn, config, mix)
        return x, (k[:, :, 0], v[:, :, 0])

    x, new = jax.lax.scan(step, x[:, :, None], (blocks, *prompt, *answers))
    return x[:, :, 0], *(_write(a, n, step_index) for a, n in zip(answers, new, strict=True))


def token_loop(
    blocks: Sequence[Params],
    x: jax.Array,
    positions: jax.Array,
    prompt: tuple[Sequence[jax.Array], Sequence[jax.Array]],
    prompt_valid: jax.Array,
    answers: tuple[Sequence[jax.Array], Sequence[jax.Array]],
    step_index: jax.Array,
    config: ModelConfig,
) -> tuple[jax.Array, tuple[jax.Array, ...], tuple[jax.Array, ...]]:
    """`token_pass`, block after block; every sequence has one entry per block.

    prompt   k, v f[B, K, P, H] of each block, which the matrix products read as they are
    answers  k, v f[B, G, K, T, H] of each block

    A block's keys are written before they are read, which costs no copy here.
    """
    filled = jnp.arange(answers[0][0].shape[-2]) <= step_index
    turn, x, written = _turn(positions, config), x[:, :, None], []
    for p, *caches in zip(blocks, *prompt, *answers, strict=True):

        def mix(q, k, v, caches=caches):
            prompt, own = tuple(caches[:2]), caches[2:]
            own = tuple(_write(a, n[:, :, 0], step_index) for a, n in zip(own, (k, v), strict=True))
            written.append(own)
            read = (prompt, prompt_valid, own, filled)
            return attention.token(config.attention, q[:, :, 0], *read)[:, :, None]

        x, _ = block(p, x, turn, config, mix)
    return x[:, :, 0], *zip(*written, strict=True)


def _turn(positions: jax.Array, config: ModelConfig) -> tuple[jax.Array, jax.Array]:
    """Cosines and sines f32[B, 1, 1, H/2] at positions i32[B], the same for all blocks.

    Behind a barrier: XLA would compute them again for every head of every block.
    """
    angles = angles_of(jnp.repeat(positions[:, None], 3, -1), config)[:, None, None]
    return jax.lax.optimization_barrier((jnp.cos(angles), jnp.sin(angles)))


def _write(cache: jax.Array, new: jax.Array, at: jax.Array) -> jax.Array:
    """cache f[..., T, H] with new f[..., H] as entry `at`."""
    return jax.lax.dynamic_update_slice_in_dim(cache, new[..., None, :], at, axis=-2)
