"""The one log-probability: sampler, old, reference and new policy all call it.

float32 log-softmax over temperature-scaled float32 logits, with the same token bans on both
sides, in vocabulary chunks so that [tokens, V] never exists. On a mesh every device goes through
the chunks of its own part of the vocabulary, and the parts' sums are put together once.
"""

import math
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial

import jax
import jax.numpy as jnp
import numpy as np

from dig_jax.model.config import ModelConfig
from dig_jax.model.placement import place, place_vocab, vocab_parts

BAN = -1e30  # finite, so that a banned logit times weight zero is not NaN


def banned_tokens(config: ModelConfig) -> np.ndarray:
    """Tokens an answer may not contain: every vision id; bool[V].

    A sampled image placeholder would make the next forward expect an image that is not there.
    """
    banned = np.zeros(config.text.vocab, bool)
    ids = (config.image_token, config.video_token, config.vision_start, config.vision_end)
    banned[list(ids)] = True
    return banned


def answer_logits(
    hidden: jax.Array, head: jax.Array, *, temperature: float | jax.Array, banned: np.ndarray
) -> jax.Array:
    """Scaled logits f32[..., V] of the sampled distribution; hidden f[..., D], head f32[D, V].

    temperature  a number, or f32[..., 1]
    """
    logits = jnp.matmul(hidden, head.astype(hidden.dtype), preferred_element_type=jnp.float32)
    return jnp.where(banned, BAN, logits / temperature)


def logits_logp(logits: jax.Array, tokens: jax.Array) -> jax.Array:
    """Log-probability f32[...] of given tokens i32[...] under `answer_logits` f32[..., V], nats.

    `token_logp` for logits that are there already: one chunk, the same sums.
    """
    top = logits.max(-1)
    total = jnp.exp(logits - top[..., None]).sum(-1)
    chosen = jnp.arange(logits.shape[-1]) == tokens[..., None]
    return jnp.where(chosen, logits, 0.0).sum(-1) - (top + jnp.log(total))


def token_logp(
    hidden: jax.Array,
    head: jax.Array,
    tokens: jax.Array,
    *,
    temperature: float,
    banned: np.ndarray,
    chunk: int = 8192,
    split: str = "pairs",
) -> tuple[jax.Array, jax.Array]:
    """Log-probability of given tokens, and the entropy of the distribution.

    hidden  f[B, ..., D];  head  f32[D, V];  tokens  i32[B, ...]
    chunk   vocabulary columns at a time, of each device, at most; > 0
    split   ModelConfig.split
    ->      logp f32[B, ...] and entropy f32[B, ...], both in nats

    One chunk of logits exists at a time, forwards and backwards: memory does not grow with V.
    """
    return _make(temperature, banned, chunk, split)(hidden, head, tokens)


def _make(temperature: float, banned: np.ndarray, chunk: int, split: str):
    """The function of (hidden, head, tokens) with its gradient, which computes chunks again.

    Written out because XLA, given the chunks one by one, computes many of them at once, and
    given a scan to differentiate, adds a whole [D, V] to the head's gradient per chunk. Tokens
    come in as many turns as the head has parts: all devices' at a time, each with its own columns.
    """

    @jax.custom_vjp
    def logp_of(hidden, head, tokens):
        return forward(hidden, head, tokens)[0]

    def forward(hidden, head, tokens):
        columns = _Columns.of(head, banned, chunk, split)
        found = columns.over_turns(partial(_sums, columns, temperature), hidden, tokens)
        picked, log_total, mean = (a.reshape(tokens.shape) for a in found)
        entropy = log_total - mean
        return (picked - log_total, entropy), (hidden, head, tokens, log_total, entropy)

    def backward(kept, pull):
        hidden, head, *known = kept
        columns = _Columns.of(head, banned, chunk, split)
        slopes = partial(_slopes, columns, temperature)
        known = (hidden, *known, *pull)
        d_head, d_hidden = columns.through_turns(slopes, columns.zeros(), *known)
        d_hidden = place(d_hidden.reshape(hidden.shape), split)
        return d_hidden, d_head.reshape(head.shape).astype(head.dtype), None

    logp_of.defvjp(forward, backward)
    return logp_of


def _sums(columns: "_Columns", temperature: float, hidden, tokens):
    """Of tokens i32[B, M]: their logit, log of the sum of exponentials, mean logit; f32[B, M]."""

    def add(carry, number):
        top, total, moment, picked = carry
        logits, at = columns.logits(hidden, number, temperature)
        high = jnp.maximum(top, logits.max(-1))
        weight = jnp.exp(logits - high[..., None])
        kept = jnp.exp(top - high)
        total = total * kept + weight.sum(-1)
        moment = moment * kept + (weight * logits).sum(-1)
        chosen = jnp.where(at == tokens[..., None, None], logits, 0.0).sum(-1)
        return (high, total, moment, picked + chosen), None

    low = jnp.full((*tokens.shape, columns.parts), BAN, jnp.float32)
    zero = jnp.zeros_like(low)
    carry = (low, zero, zero, zero)
    (top, total, moment, picked), _ = jax.lax.scan(add, carry, jnp.arange(columns.count))
    high = top.max(-1)
    kept = jnp.exp(top - high[..., None])
    total, moment = ((a * kept).sum(-1) for a in (total, moment))
    return picked.sum(-1), high + jnp.log(total), moment / total


def _slopes(columns: "_Columns", temperature: float, d_head, hidden, *known):
    """d_head with these tokens' share added, and the gradient of hidden f[B, M, D].

    known   tokens, log_total, entropy, and the gradients of logp and entropy, each [B, M]
    """
    tokens, log_total, entropy, pull_logp, pull_entropy = (a[..., None, None] for a in known)

    def add(carry, number):
        d_hidden, d_head = carry
        logits, at = columns.logits(hidden, number, temperature)
        logp = logits - log_total
        share = jnp.exp(logp)
        slope = pull_logp * ((at == tokens) - share)
        slope -= pull_entropy * share * (logp + entropy)
        # banned columns are constants, whatever their share says where all is banned
        slope = jnp.where(columns.closed(number), 0.0, slope / temperature)
        slope = slope.astype(hidden.dtype)
        part = columns.take(number).astype(hidden.dtype)
        d_hidden += _dot("...wc,dwc->w...d", slope, part)
        return (d_hidden, columns.add(d_head, number, _dot("...wc,...d->dwc", slope, hidden))), None

    zeros = columns.put(jnp.zeros((columns.parts, *hidden.shape), jnp.float32), vocab=0, rows=1)
    (d_hidden, d_head), _ = jax.lax.scan(add, (zeros, d_head), jnp.arange(columns.count))
    return d_head, d_hidden.sum(0).astype(hidden.dtype)


@dataclass(frozen=True)
class _Columns:
    """Chunks of the vocabulary: as many columns of each of its equal parts, one on a device.

    The last chunk may overlap the one before it; its repeats are closed.

    head    f32[D, V]
    size    columns of one part in a chunk
    banned  bool[parts, V / parts]
    """

    head: jax.Array
    size: int
    banned: np.ndarray
    split: str

    @classmethod
    def of(cls, head: jax.Array, banned: np.ndarray, chunk: int, split: str) -> "_Columns":
        banned = np.reshape(banned, (vocab_parts(head.shape[1], split), -1))
        width = banned.shape[1]
        size = -(-width // -(-width // chunk))  # equal chunks, but for the last
        return cls(head, size, banned, split)

    @property
    def parts(self) -> int:
        return self.banned.shape[0]

    @property
    def width(self) -> int:
        return self.banned.shape[1]

    @property
    def count(self) -> int:
        return -(-self.width // self.size)

    def over_turns(self, function: Callable, hidden: jax.Array, *known: jax.Array):
        """function(f[B, M, D], *[B, M]) -> trees of [B, M], over all of f[B, ..., D]."""

        def turn(_, some):
            return None, function(*some)

        return self._turns(turn, None, hidden, *known)[1]

    def through_turns(self, function: Callable, carry, hidden: jax.Array, *known: jax.Array):
        """As `over_turns` of a function that is given what it returned first."""
        return self._turns(lambda carry, some: function(carry, *some), carry, hidden, *known)

    def _turns(self, turn: Callable, carry, hidden: jax.Array, *known: jax.Array):
        rows, length = len(hidden), math.prod(hidden.shape[1:-1])
        flat = (hidden.reshape(rows, length, -1), *(a.reshape(rows, length) for a in known))
        if self.parts == 1:
            return turn(carry, flat)

        def cut(a):
            a = jnp.pad(a, [(0, 0), (0, -length % self.parts)] + [(0, 0)] * (a.ndim - 2))
            return a.reshape(rows, self.parts, -1, *a.shape[2:]).swapaxes(0, 1)

        def join(a):
            return a.swapaxes(0, 1).reshape(rows, -1, *a.shape[3:])[:, :length]

        def placed(carry, some):
            return turn(carry, tuple(self.put(a, rows=0) for a in some))

        carry, found = jax.lax.scan(placed, carry, tuple(map(cut, flat)))
        return carry, jax.tree.map(join, found)

    def put(self, x: jax.Array, **dimensions) -> jax.Array:
        """`place_vocab`, where the mesh cuts the head."""
        return place_vocab(x, self.split, **dimensions) if self.parts > 1 else x

    def _start(self, number) -> jax.Array:
        return jnp.minimum(number * self.size, self.width - self.size)

    def take(self, number) -> jax.Array:
        """f[D, parts, size] of the head, which is cut where it is used: XLA would copy it else."""
        head = self.put(self.head.reshape(-1, self.parts, self.width), vocab=1)
        return jax.lax.dynamic_slice_in_dim(head, self._start(number), self.size, axis=2)

    def zeros(self) -> jax.Array:
        """f32[D, parts, V / parts], for a gradient."""
        return self.put(jnp.zeros((len(self.head), *self.banned.shape), jnp.float32), vocab=1)

    def add(self, total: jax.Array, number, part: jax.Array) -> jax.Array:
        """f[D, parts, V / parts] with f[D, parts, size] added to the chunk's columns."""
        start = self._start(number)
        new = jax.lax.dynamic_slice_in_dim(total, start, self.size, axis=2) + part
        return jax.lax.dynamic_update_slice_in_dim(total, new, start, axis=2)

    def closed(self, number) -> jax.Array:
        """bool[parts, size]: banned, or already in the chunk before."""
        start = self._start(number)
        banned = jax.lax.dynamic_slice_in_dim(jnp.asarray(self.banned), start, self.size, axis=1)
        return banned | (start + jnp.arange(self.size) < number * self.size)

    def logits(self, hidden: jax.Array, number, temperature: float):
        """f32[B, ..., parts, size], closed columns at BAN; their ids i32[parts, size], else -1."""
        part = self.take(number).astype(hidden.dtype)
        logits = _dot("...d,dwc->...wc", hidden, part)
        logits = self.put(logits, vocab=-2, rows=0)
        start = self._start(number)
        ids = jnp.arange(self.parts)[:, None] * self.width + start + jnp.arange(self.size)
        repeated = start + jnp.arange(self.size) < number * self.size
        logits = jnp.where(self.closed(number), BAN, logits / temperature)
        return logits, jnp.where(repeated, -1, ids)


def _dot(formula: str, a: jax.Array, b: jax.Array) -> jax.Array:
    return jnp.einsum(formula, a, b, preferred_element_type=jnp.float32)
