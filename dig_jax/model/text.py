"""The text decoder: pre-norm blocks with grouped-query attention over key-value segments.

HF `Qwen3VLTextModel`. A query attends to one or more segments under one softmax: the prompt
attends to itself, an answer token to (the pair's prompt, its own answer so far). Prompts and
answers are right-padded, so causality and lengths are the only masks.
"""

from collections.abc import Callable

import jax
import jax.numpy as jnp
from flax import struct

from dig_jax.model.params import ModelConfig, Params
from dig_jax.model.rope import mrope_angles, rotate

NEGATIVE = -1e30  # finite: a fully masked padding row must not become NaN


@struct.dataclass
class Segment:
    """Keys and values that a query may attend to.

    k, v     f[B, P, K, H] shared by the group, or f[B, G, S, K, H] of each answer
    allowed  bool, broadcastable to [B, G, T, keys]
    """

    k: jax.Array
    v: jax.Array
    allowed: jax.Array


def rms_norm(x: jax.Array, weight: jax.Array, eps: float) -> jax.Array:
    """RMSNorm: float32 statistics, cast back, then the weight (HF `Qwen3VLTextRMSNorm`)."""
    wide = x.astype(jnp.float32)
    scaled = wide * jax.lax.rsqrt(jnp.square(wide).mean(-1, keepdims=True) + eps)
    return scaled.astype(x.dtype) * weight.astype(x.dtype)


def attend(q: jax.Array, segments: list[Segment]) -> jax.Array:
    """Attention of answer-shaped queries over all segments, one float32 softmax.

    q   f[B, G, T, N, H]; N/K consecutive query heads share a key head
    ->  f[B, G, T, N, H]
    """
    b, g, t, n, h = q.shape
    kv_heads = segments[0].k.shape[-2]
    q = q.reshape(b, g, t, kv_heads, n // kv_heads, h) * h**-0.5
    logits = []
    for s in segments:
        keys = "bskh" if s.k.ndim == 4 else "bgskh"
        part = jnp.einsum(f"bgtkrh,{keys}->bgkrts", q, s.k, preferred_element_type=jnp.float32)
        logits.append(part + jnp.where(s.allowed, 0.0, NEGATIVE)[:, :, None, None])
    weights = jax.nn.softmax(jnp.concatenate(logits, -1), axis=-1).astype(q.dtype)
    out, start = 0.0, 0
    for s in segments:
        keys = "bskh" if s.v.ndim == 4 else "bgskh"
        stop = start + s.v.shape[-3]
        out = out + jnp.einsum(f"bgkrts,{keys}->bgtkrh", weights[..., start:stop], s.v)
        start = stop
    return out.reshape(b, g, t, n, h)


def block(
    p: Params,
    x: jax.Array,
    angles: jax.Array,
    config: ModelConfig,
    segments: Callable[[jax.Array, jax.Array], list[Segment]],
) -> tuple[jax.Array, tuple[jax.Array, jax.Array]]:
    """One decoder block.

    x         f[B, G, T, D]
    angles    f32[B, G, T, H/2]
    segments  (new k, new v) -> everything the queries may attend to
    ->        x, and this block's new (k rotated, v) f[B, G, T, K, H]
    """
    eps = config.text.norm_eps
    h = rms_norm(x, p["attn_norm"], eps)
    q, k, v = (jnp.einsum("bgtd,dnh->bgtnh", h, p[w].astype(h.dtype)) for w in ("wq", "wk", "wv"))
    q = rotate(rms_norm(q, p["q_norm"], eps), angles)
    k = rotate(rms_norm(k, p["k_norm"], eps), angles)
    mixed = attend(q, segments(k, v))
    x = x + jnp.einsum("bgtnh,nhd->bgtd", mixed, p["wo"].astype(x.dtype))
    h = rms_norm(x, p["mlp_norm"], eps)
    gated = jax.nn.silu(h @ p["w_gate"].astype(h.dtype)) * (h @ p["w_up"].astype(h.dtype))
    return x + gated @ p["w_down"].astype(x.dtype), (k, v)


def angles_of(positions: jax.Array, config: ModelConfig) -> jax.Array:
    """Rotary angles f32[..., H/2] of M-RoPE positions i32[..., 3]."""
    c = config.text
    return mrope_angles(positions, head_dim=c.head_dim, theta=c.rope_theta, section=c.mrope_section)


def prompt_pass(
    blocks: Params, x: jax.Array, positions: jax.Array, deepstack: jax.Array, config: ModelConfig
) -> tuple[jax.Array, jax.Array, jax.Array]:
    """All blocks over whole prompts, deepstack features added after the first ones.

    x          f[B, P, D]
    positions  i32[B, P, 3]
    deepstack  f[n, B, P, D]   zero at text tokens; entry i is added after block i
    ->         k and v f[L, B, P, K, H], states f[L, B, P, D] after each block

    Callers that use only the last state pay nothing for the others: under jit they are dead.
    """
    causal = jnp.tril(jnp.ones((x.shape[1], x.shape[1]), bool))[None, None]
    angles = angles_of(positions, config)[:, None]

    def step(x, layer):
        p, feature = layer
        x, (k, v) = block(p, x, angles, config, lambda k, v: [Segment(k, v, causal)])
        x = x if feature is None else x + feature[:, None]
        return x, (k[:, 0], v[:, 0], x[:, 0])

    if config.remat == "full":
        step = jax.checkpoint(step)
    x, taps = x[:, None], len(deepstack)
    x, early = jax.lax.scan(step, x, (jax.tree.map(lambda a: a[:taps], blocks), deepstack))
    _, late = jax.lax.scan(step, x, (jax.tree.map(lambda a: a[taps:], blocks), None))
    return tuple(jnp.concatenate(both) for both in zip(early, late, strict=True))


def answer_pass(
    blocks: Params,
    x: jax.Array,
    positions: jax.Array,
    prompt: tuple[jax.Array, jax.Array],
    prompt_valid: jax.Array,
    config: ModelConfig,
) -> jax.Array:
    """All blocks over whole answers: each attends to its pair's prompt and causally to itself.

    x             f[B, G, T, D]
    positions     i32[B, T]             same on all three axes and for all answers of a pair
    prompt        k, v f[L, B, P, K, H]
    prompt_valid  bool[B, P]
    ->            f[B, G, T, D]
    """
    causal = jnp.tril(jnp.ones((x.shape[2], x.shape[2]), bool))[None, None]
    seen = prompt_valid[:, None, None]
    angles = angles_of(jnp.repeat(positions[..., None], 3, -1), config)[:, None]

    def step(x, layer):
        p, prompt_k, prompt_v = layer
        shared = Segment(prompt_k, prompt_v, seen)
        x, _ = block(p, x, angles, config, lambda k, v: [shared, Segment(k, v, causal)])
        return x, None

    if config.remat == "full":
        step = jax.checkpoint(step)
    return jax.lax.scan(step, x, (blocks, *prompt))[0]


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
    """All blocks over one new token per answer, with caches that are only read.

    x           f[B, G, D]
    positions   i32[B]
    answers     k, v f[L, B, G, T, K, H]   entries before `step_index` are filled
    ->          hidden f[B, G, D], new k and v f[L, B, G, K, H]

    The cache is a scan input and the new key a third segment: writing into a carried cache
    inside the scan would copy it once per layer.
    """
    seen = prompt_valid[:, None, None]
    filled = (jnp.arange(answers[0].shape[3]) < step_index)[None, None, None]
    now = jnp.ones((1, 1, 1, 1), bool)
    angles = angles_of(jnp.repeat(positions[:, None], 3, -1), config)[:, None, None]

    def step(x, layer):
        p, prompt_k, prompt_v, own_k, own_v = layer
        read = [Segment(prompt_k, prompt_v, seen), Segment(own_k, own_v, filled)]
        x, (k, v) = block(p, x, angles, config, lambda k, v: [*read, Segment(k, v, now)])
        return x, (k[:, :, 0], v[:, :, 0])

    x, (k, v) = jax.lax.scan(step, x[:, :, None], (blocks, *prompt, *answers))
    return x[:, :, 0], k, v
