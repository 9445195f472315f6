"""Attention: who reads whom, and which implementation computes it, chosen in this one place.

Four passes over whole sequences, `full` (an image's patches), `causal` (prompts), `answers`
(answers to their prompt and themselves) and `packed` (the same, answers behind one another), each
in every implementation:

    xla      all scores at once: the reference
    chunked  the reference, ROWS queries at a time: memory linear in the sequence
    dot      `jax.nn.dot_product_attention` by XLA: cudnn's calls without cuDNN
    cudnn    the same by cuDNN's flash attention; bfloat16 on CUDA GPUs
    splash   Pallas flash attention; TPUs ("splash_interpret" runs it anywhere, slowly)

All compute the same softmax with float32 statistics; sums run in another order. Prompts and
answers are right-padded, so causality masks their padding. The padding of an image's canvas
and of the prompt that answers read is masked. Decoding one token is always `attend`.
"""

from collections.abc import Sequence

import jax
import jax.numpy as jnp
from jax.ad_checkpoint import checkpoint_name

from dig_jax.model import dot_attention as dot
from dig_jax.model import packed_attention as pack
from dig_jax.model import plain_attention as plain
from dig_jax.model.plain_attention import NEGATIVE

CUDNN_HEAD = 128  # cuDNN wants head_dim a multiple of 8 up to this (256 on newer cards)


def choose(request: str, *, platform: str, dtype: str, head_dims: Sequence[int]) -> str:
    """The implementation for `model.attention` on a machine.

    platform   "cpu", "gpu" or "tpu"
    dtype      of queries and keys
    head_dims  of the towers that will run it

    Raises ValueError where the request cannot run there.
    """
    if request == "auto":
        return _best(platform, dtype, head_dims)
    problem = _problem(request, platform, dtype, head_dims)
    if problem:
        best = _best(platform, dtype, head_dims)
        raise ValueError(f"model.attention={request!r} {problem}; use auto (here: {best})")
    return request


def _splash():
    """The TPU's kernels, imported where they are asked for: Pallas takes a second."""
    from dig_jax.model import splash

    return splash


def _best(platform: str, dtype: str, head_dims: Sequence[int]) -> str:
    if platform == "tpu":
        return "splash"
    if platform == "gpu":
        return "chunked" if _problem("cudnn", platform, dtype, head_dims) else "cudnn"
    return "xla"


def _problem(kind: str, platform: str, dtype: str, head_dims: Sequence[int]) -> str:
    """Why an implementation cannot run, or nothing."""
    if kind == "splash" and platform != "tpu":
        return f"needs a TPU, but this is a {platform}"
    if kind != "cudnn":
        return ""
    if platform != "gpu":
        return f"needs a GPU, but this is a {platform}"
    if dtype != "bfloat16":
        return f"needs model.compute_dtype=bfloat16, which is {dtype}"
    wrong = [dim for dim in head_dims if dim % 8 or dim > CUDNN_HEAD]
    rule = f"wants head_dim a multiple of 8 up to {CUDNN_HEAD}, but this model has {wrong}"
    return rule if wrong else ""


def full(kind: str, q: jax.Array, k: jax.Array, v: jax.Array, inside: jax.Array) -> jax.Array:
    """Each patch reads all patches of its image.

    q, k, v  f[E, U, N, H]
    inside   bool[E, U]      false: canvas padding, not read
    ->       f[E, U, N, H]
    """
    if kind.startswith("splash"):  # names "o" itself
        return _splash().full(q, k, v, inside, interpret=kind != "splash")
    named = {"xla": plain.full_xla, "chunked": plain.full_chunked}
    compute = named.get(kind) or dot.full_dot(kind)
    return checkpoint_name(compute(q, k, v, inside), "o")


def causal(kind: str, q: jax.Array, k: jax.Array, v: jax.Array) -> jax.Array:
    """Each token reads the tokens of its row up to itself.

    q     f[B, G, T, N, H];  N/K consecutive query heads share a key head
    k, v  f[B, G, T, K, H]
    ->    f[B, G, T, N, H]
    """
    if kind.startswith("splash"):
        return _splash().causal(q, k, v, interpret=kind != "splash")
    named = {"xla": plain.causal_xla, "chunked": plain.causal_chunked}
    compute = named.get(kind) or dot.causal_dot(kind)
    return checkpoint_name(compute(q, k, v), "o")


def answers(
    kind: str,
    q: jax.Array,
    k: jax.Array,
    v: jax.Array,
    prompt: tuple[jax.Array, jax.Array],
    prompt_valid: jax.Array,
) -> jax.Array:
    """Each answer token reads its pair's prompt and its own answer up to itself.

    q             f[B, G, T, N, H]
    k, v          f[B, G, T, K, H]
    prompt        k, v f[B, P, K, H]   shared by the group
    prompt_valid  bool[B, P]
    ->            f[B, G, T, N, H]

    """
    if kind.startswith("splash"):
        return _splash().answers(q, k, v, *prompt, prompt_valid, interpret=kind != "splash")
    named = {"xla": plain.answers_xla, "chunked": plain.answers_chunked}
    compute = named.get(kind) or dot.answers_dot(kind)
    return checkpoint_name(compute(q, k, v, prompt, prompt_valid), "o")


def packed(
    kind: str,
    q: jax.Array,
    k: jax.Array,
    v: jax.Array,
    prompt: tuple[jax.Array, jax.Array],
    prompt_valid: jax.Array,
    owner: jax.Array,
    reach: jax.Array,
    longest: int,
) -> jax.Array:
    """`answers` for answers one behind the other, in E streams of N blocks of S tokens.

    q             f[E, N, S, N, H]
    k, v          f[E, N, S, K, H]
    prompt        k, v f[E, M, P, K, H]   of the pairs of each stream
    prompt_valid  bool[E, M, P]
    owner         i32[E, N]               the pair whose prompt a block reads
    reach         i32[E, N, S]            how many tokens before itself a token reads
    longest       the furthest reach is longest - 2
    ->            f[E, N, S, N, H]
    """
    how = {"prompt": prompt, "prompt_valid": prompt_valid, "owner": owner, "reach": reach}
    how["longest"] = longest
    if kind.startswith("splash"):
        return _splash().packed(q, k, v, **how, interpret=kind != "splash")
    named = {"xla": pack.packed_xla, "chunked": pack.packed_chunked}
    compute = named.get(kind) or pack.packed_dot(kind)
    return checkpoint_name(compute(q, k, v, **how), "o")


def token(
    kind: str,
    q: jax.Array,
    prompt: tuple[jax.Array, jax.Array],
    prompt_valid: jax.Array,
    own: tuple[jax.Array, jax.Array],
    filled: jax.Array,
    new: tuple[jax.Array, jax.Array] | None = None,
) -> jax.Array:
    """One new token per answer reads its pair's prompt, its answer so far, and itself.

    q             f[B, G, N, H]
    prompt        k, v f[B, K, P, H]    shared by the group
    prompt_valid  bool[B, P]
    own           k, v f[B, G, K, T, H]
    filled        bool[T]
    new           k, v f[B, G, K, H]    the new token's, where `own` does not hold it yet
    ->            f[B, G, N, H]

    The answers' own keys are read once by few queries. For that "xla" multiplies and sums: on a
    CPU a matrix product for every answer and head costs more to start than to compute.
    """
    b, g, n, h = q.shape
    heads, scale = prompt[0].shape[1], h**-0.5
    q = q.reshape(b, g, heads, n // heads, h) * scale
    score, weigh = _PRODUCTS["sum" if kind == "xla" else "dot"]

    def by_head(a):  # [B, G, K, R, _] -> [B, K, G x R, _]
        return a.swapaxes(1, 2).reshape(b, heads, -1, a.shape[-1])

    def by_answer(a):
        return a.reshape(b, heads, g, -1, a.shape[-1]).swapaxes(1, 2)

    shared = jnp.einsum(
        "bkmh,bkph->bkmp", by_head(q), prompt[0], preferred_element_type=jnp.float32
    )
    mine = by_head(score(q, own[0]))
    logits = [
        jnp.where(prompt_valid[:, None, None], shared, NEGATIVE),
        jnp.where(filled, mine, NEGATIVE),
    ]
    if new is not None:
        logits.append(by_head(score(q, new[0][:, :, :, None])))
    weights = jax.nn.softmax(jnp.concatenate(logits, axis=-1), axis=-1).astype(q.dtype)
    ends = (shared.shape[-1], shared.shape[-1] + mine.shape[-1])
    out = by_answer(jnp.einsum("bkmp,bkph->bkmh", weights[..., : ends[0]], prompt[1]))
    out = out + weigh(by_answer(weights[..., ends[0] : ends[1]]), own[1])
    if new is not None:
        out = out + by_answer(weights[..., ends[1] :]) * new[1][:, :, :, None]
    return out.reshape(b, g, n, h)


def _score_sum(q, k):
    return (q[..., None, :].astype(jnp.float32) * k[:, :, :, None]).sum(-1)


def _weigh_sum(weights, v):
    return (weights[..., None] * v[:, :, :, None]).sum(-2)


def _score_dot(q, k):
    return jnp.einsum("bgkrh,bgkth->bgkrt", q, k, preferred_element_type=jnp.float32)


def _weigh_dot(weights, v):
    return jnp.einsum("bgkrt,bgkth->bgkrh", weights, v)


# scores f32[B, G, K, R, T] of q f[B, G, K, R, H] and k f[B, G, K, T, H], and the weighted sum of v
_PRODUCTS = {"sum": (_score_sum, _weigh_sum), "dot": (_score_dot, _weigh_dot)}
