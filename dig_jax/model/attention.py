"""Attention: who reads whom, and which implementation computes it, chosen in this one place.

Three passes over whole sequences, `full` (an image's patches), `causal` (prompts) and `answers`
(answers to their prompt and themselves), each in every implementation:

    xla      all scores at once: the reference
    chunked  the reference, ROWS queries at a time: memory linear in the sequence
    dot      `jax.nn.dot_product_attention` by XLA: cudnn's calls without cuDNN
    cudnn    the same by cuDNN's flash attention; bfloat16 on CUDA GPUs
    splash   Pallas flash attention; TPUs ("splash_interpret" runs it anywhere, slowly)

All compute the same softmax with float32 statistics; sums run in another order. Prompts and
answers are right-padded, so causality masks their padding. The padding of an image's canvas
and of the prompt that answers read is masked. Decoding one token is always `attend`.
"""

from collections.abc import Callable, Sequence

import jax
import jax.numpy as jnp
from flax import struct
from jax.ad_checkpoint import checkpoint_name

from dig_jax.model import splash

NEGATIVE = -1e30  # finite: a fully masked padding row must not become NaN
ROWS = 512  # queries whose scores "chunked" holds at a time, per batch row and head
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
        return splash.full(q, k, v, inside, interpret=kind != "splash")
    compute = {"xla": _full_xla, "chunked": _full_chunked}.get(kind) or _full_dot(kind)
    return checkpoint_name(compute(q, k, v, inside), "o")


def causal(kind: str, q: jax.Array, k: jax.Array, v: jax.Array) -> jax.Array:
    """Each token reads the tokens of its row up to itself.

    q     f[B, G, T, N, H];  N/K consecutive query heads share a key head
    k, v  f[B, G, T, K, H]
    ->    f[B, G, T, N, H]
    """
    if kind.startswith("splash"):
        return splash.causal(q, k, v, interpret=kind != "splash")
    compute = {"xla": _causal_xla, "chunked": _causal_chunked}.get(kind) or _causal_dot(kind)
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
        return splash.answers(q, k, v, *prompt, prompt_valid, interpret=kind != "splash")
    named = {"xla": _answers_xla, "chunked": _answers_chunked}
    compute = named.get(kind) or _answers_dot(kind)
    return checkpoint_name(compute(q, k, v, prompt, prompt_valid), "o")


@struct.dataclass
class Segment:
    """Keys and values that a query may read.

    k, v     f[B, P, K, H] shared by the group, or f[B, G, S, K, H] of each answer
    allowed  bool, broadcastable to [B, G, T, keys]
    """

    k: jax.Array
    v: jax.Array
    allowed: jax.Array


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


def _full_xla(q, k, v, inside) -> jax.Array:
    logits = jnp.einsum("eunh,evnh->enuv", q, k, preferred_element_type=jnp.float32)
    logits = logits * q.shape[-1] ** -0.5 + jnp.where(inside, 0.0, NEGATIVE)[:, None, None, :]
    weights = jax.nn.softmax(logits, axis=-1).astype(v.dtype)
    return jnp.einsum("enuv,evnh->eunh", weights, v)


def _causal_xla(q, k, v, rows: jax.Array | None = None) -> jax.Array:
    """rows  i32[T]   the queries' places in the sequence, if they are not all of it"""
    return attend(q, [_own(k, v, rows)])


def _answers_xla(q, k, v, prompt, prompt_valid, rows: jax.Array | None = None) -> jax.Array:
    shared = Segment(*prompt, prompt_valid[:, None, None])
    return attend(q, [shared, _own(k, v, rows)])


def _own(k, v, rows: jax.Array | None) -> Segment:
    """The row's own keys, up to the query."""
    columns = jnp.arange(k.shape[2])
    rows = columns if rows is None else rows
    return Segment(k, v, (columns <= rows[:, None])[None, None])


def _full_chunked(q, k, v, inside) -> jax.Array:
    return _by_rows(lambda q, _: _full_xla(q, k, v, inside), q, ROWS)


def _causal_chunked(q, k, v) -> jax.Array:
    return _by_rows(lambda q, rows: _causal_xla(q, k, v, rows), q, ROWS // q.shape[1])


def _answers_chunked(q, k, v, prompt, prompt_valid) -> jax.Array:
    return _by_rows(
        lambda q, rows: _answers_xla(q, k, v, prompt, prompt_valid, rows), q, ROWS // q.shape[1]
    )


def _by_rows(some: Callable, q: jax.Array, rows: int) -> jax.Array:
    """`some` applied to `rows` queries at a time, its scores computed again in the backward pass.

    some  (f[..., rows, N, H], their numbers i32[rows]) -> f[..., rows, N, H]
    q     f[..., T, N, H]
    """
    length, rows = q.shape[-3], max(rows, 1)
    if length <= rows:
        return jax.checkpoint(some)(q, jnp.arange(length))
    lead, heads = q.shape[:-3], q.shape[-2:]
    q = jnp.pad(q, [(0, 0)] * len(lead) + [(0, -length % rows), (0, 0), (0, 0)])
    chunks = jnp.moveaxis(q.reshape(*lead, -1, rows, *heads), -4, 0)
    numbers = jnp.arange(q.shape[-3]).reshape(-1, rows)
    # inside a loop XLA cannot merge the two computations, and the barrier has a price
    some = jax.checkpoint(some, prevent_cse=False)
    out = jax.lax.map(lambda chunk: some(*chunk), (chunks, numbers))
    return jnp.moveaxis(out, 0, -4).reshape(q.shape)[..., :length, :, :]


def _full_dot(kind: str) -> Callable:
    """cuDNN masks keys by a length alone, so padding is moved behind the patches it lies between.

    Attention does not depend on the order of keys. A dense mask would be a bias of U x U.
    """

    def compute(q, k, v, inside):
        order = jnp.argsort(~inside, axis=1, stable=True)[..., None, None]
        k, v = (jnp.take_along_axis(a, order, axis=1) for a in (k, v))
        # an empty image slot reads one patch of its padding: over no keys cuDNN divides by 0
        lengths = jnp.maximum(inside.sum(1), 1).astype(jnp.int32)
        return _dot(kind, q, k, v, key_value_seq_lengths=lengths)

    return compute


def _causal_dot(kind: str) -> Callable:
    """JAX refuses to differentiate cuDNN's attention over an odd length, so that gets a token.

    It comes last, so causality keeps it from all others.
    """

    def compute(q, k, v):
        flat = (a.reshape(-1, *a.shape[2:]) for a in (q, k, v))
        length = q.shape[2]
        even = (jnp.pad(a, [(0, 0), (0, length % 2), (0, 0), (0, 0)]) for a in flat)
        return _dot(kind, *even, is_causal=True)[:, :length].reshape(q.shape)

    return compute


def _answers_dot(kind: str) -> Callable:
    """Every answer behind a copy of its prompt's keys, causal: the one mask cuDNN has for this.

    Two calls, over the prompt and over the answer, could not be merged by their log-sum-exps:
    neither JAX's nor cuDNN's rule lets a gradient through those. The queries of the prompt's
    places are zero and cost P^2 / 2 products a head, little beside the answers' matrices.
    """
    causal_dot = _causal_dot(kind)

    def compute(q, k, v, prompt, prompt_valid):
        lengths, group, own = prompt_valid.sum(-1), q.shape[1], q.shape[2]
        behind = _answer_behind_prompt(lengths, prompt_valid.shape[1], own)

        def line(shared, a):
            shared = jnp.broadcast_to(shared[:, None], (len(a), group, *shared.shape[1:]))
            return _reordered(jnp.concatenate([shared, a], axis=2), behind)

        nothing = jnp.zeros((len(q), prompt_valid.shape[1], *q.shape[3:]), q.dtype)
        out = causal_dot(line(nothing, q), line(prompt[0], k), line(prompt[1], v))
        return _reordered(out, lengths[:, None] + jnp.arange(own))

    return compute


def _answer_behind_prompt(lengths: jax.Array, most: int, own: int) -> jax.Array:
    """Of rows of `most` prompt tokens and `own` of the answer: which token is where; i32[B, P + T].

    The prompt's padding goes last, where causality keeps it from all others.
    """
    at, end = jnp.arange(most + own), lengths[:, None]
    return jnp.where(at < end, at, jnp.where(at < end + own, most - end + at, at - own))


def _reordered(a: jax.Array, order: jax.Array) -> jax.Array:
    """f[B, G, S, ...] -> f[B, G, M, ...]; order i32[B, M] without repeats: gradients just move."""

    def one(row, order):
        return row.at[:, order].get(unique_indices=True, mode="promise_in_bounds")

    return jax.vmap(one)(a, order)


def _dot(kind: str, q, k, v, **masks) -> jax.Array:
    implementation = {"dot": "xla", "cudnn": "cudnn"}[kind]
    return jax.nn.dot_product_attention(q, k, v, implementation=implementation, **masks)
