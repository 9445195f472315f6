"""Choosing the next token: its log-probability, and which tokens may be chosen at all.

Everything here is element by element or a sum over the vocabulary, so that logits whose vocabulary
is split over devices stay where they are: nothing is sorted, and only one number per row travels.
"""

import math
from collections.abc import Callable

import jax
import jax.numpy as jnp
from flax import struct

from dig_jax.model.config import ModelConfig
from dig_jax.model.logprob import BAN, answer_logits, banned_tokens, logits_logp


def make_pick(
    config: ModelConfig,
    *,
    temperature: float,
    top_k: int = 0,
    top_p: float = 1.0,
    min_p: float = 0.0,
) -> Callable[..., tuple[jax.Array, jax.Array]]:
    """Bind the statics; returns pick(hidden, head, key, rows) -> (token, logp).

    hidden  f[..., D];  head  f32[D, V]
    rows    i32[...]   a row's noise depends on key and its number alone
    ->      token i32[...]; logp f32[...], nats, of the distribution before truncation

    At temperature 0 the likeliest token, whatever the key, and its log-probability at 1.
    """
    banned = banned_tokens(config)

    def pick(hidden, head, key, rows):
        logits = answer_logits(hidden, head, temperature=temperature or 1.0, banned=banned)
        scores = logits
        if temperature:
            scores = keep_likeliest(logits, top_k, top_p, min_p)
            keys = jax.vmap(lambda row: jax.random.fold_in(key, row))(rows.reshape(-1))
            noise = jax.vmap(lambda k: jax.random.gumbel(k, logits.shape[-1:]))(keys)
            scores += noise.reshape(logits.shape)
        token = first_highest(scores)
        return token, logits_logp(logits, token)

    return pick


@struct.dataclass
class RowDecoding:
    """How each of E rows chooses its tokens; the fields of `make_pick`, a value for each.

    temperature  f32[E]   0 is greedy
    top_k        i32[E]
    top_p, min_p f32[E]
    seed         u32[E, 2]   key data: a row's draws depend on it and on the token's number alone
    """

    temperature: jax.Array
    top_k: jax.Array
    top_p: jax.Array
    min_p: jax.Array
    seed: jax.Array


def make_row_pick(config: ModelConfig) -> Callable[..., tuple[jax.Array, jax.Array]]:
    """Returns pick(hidden, head, how, number) -> (token, logp): `make_pick`, row by row.

    hidden  f[E, D];  head  f32[D, V];  how  RowDecoding
    number  i32[E]   which token of its answer each row chooses
    ->      token i32[E]; logp f32[E], nats, of the distribution before truncation

    What no row asks for is not computed.
    """
    banned = banned_tokens(config)

    def pick(hidden, head, how: RowDecoding, number):
        greedy = how.temperature == 0
        scale = jnp.where(greedy, 1.0, how.temperature)[:, None]
        logits = answer_logits(hidden, head, temperature=scale, banned=banned)
        cut = ~greedy & ((how.top_k > 0) | (how.top_p < 1) | (how.min_p > 0))
        scores = jax.lax.cond(cut.any(), _cut_rows, lambda a, how, cut: a, logits, how, cut)
        scores = jax.lax.cond((~greedy).any(), _noisy, lambda a, *_: a, scores, how, number)
        token = first_highest(scores)
        return token, logits_logp(logits, token)

    return pick


def _cut_rows(logits: jax.Array, how: RowDecoding, cut: jax.Array) -> jax.Array:
    """`keep_likeliest` of the rows f32[E, V] where `cut`, each in its own way."""
    order = _ordered(logits)
    count = jnp.where(how.top_k > 0, how.top_k, logits.shape[-1])[:, None]
    least = _largest_such(order, lambda t: (order >= t).sum(-1, keepdims=True) >= count)
    kept = jnp.where(order < least, BAN, logits)
    part = (how.top_p < 1)[:, None] & _unlikely(kept, 1 - how.top_p[:, None])
    kept = jnp.where(part, BAN, kept)
    floor = kept.max(-1, keepdims=True) + jnp.log(how.min_p)[:, None]
    return jnp.where(cut[:, None], jnp.where(kept < floor, BAN, kept), logits)


def _noisy(scores: jax.Array, how: RowDecoding, number: jax.Array) -> jax.Array:
    """Scores f32[E, V] with each row's Gumbel noise for its token; a greedy row's as they are."""
    keys = jax.vmap(jax.random.fold_in)(jax.random.wrap_key_data(how.seed), number)
    noise = jax.vmap(lambda key: jax.random.gumbel(key, scores.shape[-1:]))(keys)
    return scores + jnp.where((how.temperature > 0)[:, None], noise, 0.0)


def first_highest(scores: jax.Array) -> jax.Array:
    """`argmax` over the last axis, i32[...]: two plain reductions, which a CPU vectorises.

    A row that is not a number anywhere gives its last index.
    """
    ids = jnp.arange(scores.shape[-1], dtype=jnp.int32)
    highest = scores == scores.max(-1, keepdims=True)
    return jnp.where(highest, ids, scores.shape[-1] - 1).min(-1)


def keep_likeliest(logits: jax.Array, top_k: int, top_p: float, min_p: float = 0.0) -> jax.Array:
    """Bans all but the likeliest tokens (HF `TopKLogitsWarper`, `TopPLogitsWarper`, then `MinP`).

    logits  f32[..., V]   already scaled by the temperature
    top_k   tokens kept, and whatever ties with the last of them; 0 = all
    top_p   probability kept: those tokens go whose probability, with all less likely ones, is
            at most 1 - top_p; of equal ones the first goes first; the likeliest stays; 1 = all
    min_p   tokens go that are less than this times as likely as the likeliest; 0 = none
    ->      f32[..., V]   the same array where nothing is asked for

    The threshold is found by bisection over the bits of a float, 32 sums over the vocabulary.
    """
    if 0 < top_k < logits.shape[-1]:
        order = _ordered(logits)
        least = _largest_such(order, lambda t: (order >= t).sum(-1, keepdims=True) >= top_k)
        logits = jnp.where(order < least, BAN, logits)
    if top_p < 1:
        logits = jnp.where(_unlikely(logits, 1 - top_p), BAN, logits)
    if min_p:
        floor = logits.max(-1, keepdims=True) + math.log(min_p)
        logits = jnp.where(logits < floor, BAN, logits)
    return logits


def _unlikely(logits: jax.Array, spare) -> jax.Array:
    """Where the least likely tokens are that together have at most `spare`; bool[..., V].

    All below a threshold go, and of those that equal it, as many as there is room for, the first
    ones first.
    """
    order, weight = _ordered(logits), jax.nn.softmax(logits, axis=-1)

    def below(threshold):
        return jnp.where(order < threshold, weight, 0.0).sum(-1, keepdims=True)

    least = _largest_such(order, lambda t: below(t) <= spare)
    least = jnp.minimum(least, order.max(-1, keepdims=True))
    equal = order == least
    each = jnp.where(equal, weight, 0.0).max(-1, keepdims=True)
    count = jnp.minimum(jnp.floor((spare - below(least)) / each), equal.sum(-1, keepdims=True) - 1)
    ids = jnp.arange(logits.shape[-1], dtype=jnp.uint32)
    ids = jnp.where(equal, ids, jnp.uint32(0xFFFFFFFF))
    # the largest id that fewer than `count` equal tokens precede or share: ids below it go
    end = _largest_such(ids, lambda t: (ids < t).sum(-1, keepdims=True) <= count)
    return (order < least) | (ids < end)


def _ordered(x: jax.Array) -> jax.Array:
    """uint32 that order as the float32 do; -0 and 0 are equal."""
    bits = jax.lax.bitcast_convert_type(jnp.where(x == 0, 0.0, x), jnp.uint32)
    sign = jnp.uint32(0x80000000)
    return jnp.where(bits >= sign, ~bits, bits | sign)


def _largest_such(like: jax.Array, holds: Callable[[jax.Array], jax.Array]) -> jax.Array:
    """The largest t uint32[..., 1] for which holds(t), which is true up to it and false beyond.

    like  uint32[..., V], for the shape.  holds(0) is taken for true.
    """

    def add(number, found):
        tried = found | (jnp.uint32(0x80000000) >> number.astype(jnp.uint32))
        return jnp.where(holds(tried), tried, found)

    return jax.lax.fori_loop(0, 32, add, jnp.zeros((*like.shape[:-1], 1), jnp.uint32))
