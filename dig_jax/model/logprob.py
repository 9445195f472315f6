"""The one log-probability: sampler, old, reference and new policy all call it.

float32 log-softmax over temperature-scaled float32 logits, with the same token bans on both
sides, in vocabulary chunks so that [tokens, V] never exists.
"""

import math
from dataclasses import dataclass

import jax
import jax.numpy as jnp
import numpy as np

from dig_jax.model.params import ModelConfig

WAYS = 128  # the most devices a vocabulary is split over (that of Qwen3-VL is 128 x 1187)
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
    hidden: jax.Array, head: jax.Array, *, temperature: float, banned: np.ndarray
) -> jax.Array:
    """Scaled logits f32[..., V] of the sampled distribution; hidden f[..., D], head f32[D, V]."""
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
) -> tuple[jax.Array, jax.Array]:
    """Log-probability of given tokens, and the entropy of the distribution.

    hidden  f[..., D];  head  f32[D, V];  tokens  i32[...]
    chunk   vocabulary columns at a time, > 0
    ->      logp f32[...] and entropy f32[...], both in nats

    One chunk of logits exists at a time, forwards and backwards: memory does not grow with V.
    """
    return _make(temperature, banned, chunk)(hidden, head, tokens)


def _make(temperature: float, banned: np.ndarray, chunk: int):
    """The function of (hidden, head, tokens) with its gradient, which computes chunks again.

    Written out because XLA, given the chunks one by one, computes many of them at once, and
    given a scan to differentiate, adds a whole [D, V] to the head's gradient per chunk.
    """

    @jax.custom_vjp
    def logp_of(hidden, head, tokens):
        return forward(hidden, head, tokens)[0]

    def forward(hidden, head, tokens):
        columns = _Columns.of(head.shape[1], banned, chunk)

        def add(carry, number):
            top, total, moment, picked = carry
            logits, at = columns.logits(hidden, head, number, temperature)
            high = jnp.maximum(top, logits.max((-2, -1)))
            weight = jnp.exp(logits - high[..., None, None])
            kept = jnp.exp(top - high)
            total = total * kept + weight.sum((-2, -1))
            moment = moment * kept + (weight * logits).sum((-2, -1))
            chosen = jnp.where(at == tokens[..., None, None], logits, 0.0).sum((-2, -1))
            return (high, total, moment, picked + chosen), None

        low = jnp.full(tokens.shape, BAN, jnp.float32)
        zero = jnp.zeros(tokens.shape, jnp.float32)
        carry = (low, zero, zero, zero)
        (top, total, moment, picked), _ = jax.lax.scan(add, carry, jnp.arange(columns.count))
        log_total = top + jnp.log(total)
        entropy = log_total - moment / total
        return (picked - log_total, entropy), (hidden, head, tokens, log_total, entropy)

    def backward(kept, pull):
        hidden, head, tokens, log_total, entropy = (*kept,)
        columns = _Columns.of(head.shape[1], banned, chunk)
        pull_logp, pull_entropy = (p[..., None, None] for p in pull)

        def add(carry, number):
            d_hidden, d_head = carry
            logits, at = columns.logits(hidden, head, number, temperature)
            logp = logits - log_total[..., None, None]
            share = jnp.exp(logp)
            slope = pull_logp * ((at == tokens[..., None, None]) - share)
            slope -= pull_entropy * share * (logp + entropy[..., None, None])
            # banned columns are constants, whatever their share says where all is banned
            slope = jnp.where(columns.closed(number), 0.0, slope / temperature)
            slope = slope.astype(hidden.dtype)
            part = columns.take(head, number).astype(hidden.dtype)
            d_hidden += _dot("...wc,dwc->...d", slope, part)
            return (d_hidden, columns.add(d_head, number, _dot("...wc,...d->dwc", slope, hidden)))

        zeros = (jnp.zeros(hidden.shape, jnp.float32), jnp.zeros(head.shape, jnp.float32))
        scanned = jax.lax.scan(lambda c, n: (add(c, n), None), zeros, jnp.arange(columns.count))
        d_hidden, d_head = scanned[0]
        return d_hidden.astype(hidden.dtype), d_head.astype(head.dtype), None

    logp_of.defvjp(forward, backward)
    return logp_of


@dataclass(frozen=True)
class _Columns:
    """Chunks of the vocabulary: the same few columns of each of `ways` equal parts.

    A head whose vocabulary is split over devices is thereby cut on every device alike, and no
    chunk has to travel. The last chunk may overlap the one before it; its repeats are closed.
    """

    ways: int  # parts
    width: int  # columns of one part
    size: int  # columns of one part in a chunk
    banned: np.ndarray  # bool[ways, width]

    @classmethod
    def of(cls, vocab: int, banned: np.ndarray, chunk: int) -> "_Columns":
        ways = math.gcd(vocab, WAYS)
        width = vocab // ways
        size = min(width, max(1, chunk // ways))
        return cls(ways, width, size, np.reshape(banned, (ways, width)))

    @property
    def count(self) -> int:
        return -(-self.width // self.size)

    def _start(self, number) -> jax.Array:
        return jnp.minimum(number * self.size, self.width - self.size)

    def take(self, head: jax.Array, number) -> jax.Array:
        """f[D, ways, size] of f[D, V]."""
        parts = head.reshape(len(head), self.ways, self.width)
        return jax.lax.dynamic_slice_in_dim(parts, self._start(number), self.size, axis=2)

    def add(self, total: jax.Array, number, part: jax.Array) -> jax.Array:
        """f[D, V] with f[D, ways, size] added to the chunk's columns."""
        parts = total.reshape(len(total), self.ways, self.width)
        new = self.take(total, number) + part
        start = self._start(number)
        return jax.lax.dynamic_update_slice_in_dim(parts, new, start, axis=2).reshape(total.shape)

    def closed(self, number) -> jax.Array:
        """bool[ways, size]: banned, or already in the chunk before."""
        start = self._start(number)
        banned = jax.lax.dynamic_slice_in_dim(jnp.asarray(self.banned), start, self.size, axis=1)
        return banned | (start + jnp.arange(self.size) < number * self.size)

    def logits(self, hidden: jax.Array, head: jax.Array, number, temperature: float):
        """f32[..., ways, size], closed columns at BAN, and their ids i32[ways, size], -1 there."""
        logits = _dot("...d,dwc->...wc", hidden, self.take(head, number).astype(hidden.dtype))
        start = self._start(number)
        ids = jnp.arange(self.ways)[:, None] * self.width + start + jnp.arange(self.size)
        repeated = start + jnp.arange(self.size) < number * self.size
        logits = jnp.where(self.closed(number), BAN, logits / temperature)
        return logits, jnp.where(repeated, -1, ids)


def _dot(formula: str, a: jax.Array, b: jax.Array) -> jax.Array:
    return jnp.einsum(formula, a, b, preferred_element_type=jnp.float32)
