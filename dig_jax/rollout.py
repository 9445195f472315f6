"""Sampling: G answers per pair from one prompt encoding.

The prompt's cache is read by all G answers and never copied. The end token is kept and scored
(stopping is learned); a finished answer costs nothing but its row. Randomness of a row depends
on the step's key and the row's global number alone, so it is the same on any mesh.
"""

import jax
import jax.numpy as jnp
from flax import struct

from dig_jax.model import lora
from dig_jax.model.logprob import BAN, answer_logits, banned_tokens, token_logp
from dig_jax.model.params import ModelConfig, Params
from dig_jax.model.qwen3vl import (
    AnswerCache,
    PromptCache,
    decode_token,
    empty_answers,
    encode_prompt,
    score_tokens,
    unembed,
)
from dig_jax.prompt import PromptInputs


@struct.dataclass
class Rollout:
    """G answers to each of B prompts.

    tokens  i32[B, G, T]   pad token after the end
    valid   bool[B, G, T]  true through the end token
    ended   bool[B, G]     false: cut off at T tokens
    logp    f32[B, G, T]   nats, of the distribution that was sampled; 0 where not valid
    """

    tokens: jax.Array
    valid: jax.Array
    ended: jax.Array
    logp: jax.Array

    @property
    def lengths(self) -> jax.Array:
        """Tokens of each answer, end token included; i32[B, G]."""
        return self.valid.sum(-1)


@struct.dataclass
class DecodeState:
    """Everything that one decoding step reads and writes.

    step     i32[]           number of the token to be sampled next
    hidden   f[B, G, D]      state that predicts it
    answers  AnswerCache     keys and values of the tokens before it
    tokens   i32[B, G, T]    sampled so far, pad elsewhere
    logp     f32[B, G, T]    their log-probabilities
    done     bool[B, G]      the end token has been sampled
    """

    step: jax.Array
    hidden: jax.Array
    answers: AnswerCache
    tokens: jax.Array
    logp: jax.Array
    done: jax.Array


def make_sampler(
    config: ModelConfig,
    *,
    group: int,
    max_tokens: int,
    temperature: float,
    top_k: int = 0,
    top_p: float = 1.0,
):
    """Bind the statics; returns sample(params, prompt, images, key, first_row=0) -> Rollout.

    group        G, answers per pair
    max_tokens   T, end token included
    temperature  > 0 samples; 0 is greedy, ignores the key and reports log-probs at 1
    top_k, top_p see `keep_likeliest`; for evaluation alone: reported log-probs stay those of the
                 whole distribution, so a truncated sample must not be trained on

    sample's `images` are u8[B, I, Y, X, 3] or SeenImages. Its `first_row` is the global number of
    the batch's first pair: the draws of a pair do not depend on which batch slice it is in.
    """
    banned = banned_tokens(config)
    scale = temperature or 1.0
    stops = jnp.asarray(config.eos_tokens)

    def pick(hidden, head, key, rows):
        logits = answer_logits(hidden, head, temperature=scale, banned=banned)
        if temperature == 0:
            return logits.argmax(-1).astype(jnp.int32)
        logits = keep_likeliest(logits, top_k, top_p)
        keys = jax.vmap(lambda row: jax.random.fold_in(key, row))(rows.reshape(-1))
        noise = jax.vmap(lambda k: jax.random.gumbel(k, logits.shape[-1:]))(keys)
        return (logits + noise.reshape(logits.shape)).argmax(-1).astype(jnp.int32)

    def sample(params: Params, prompt: PromptInputs, images, key, first_row=0) -> Rollout:
        params = lora.merge(params, config)  # once, not at every token
        cache = encode_prompt(params, config, prompt, images)
        head = unembed(params)
        pairs = len(prompt.tokens)
        rows = first_row * group + jnp.arange(pairs * group).reshape(pairs, group)

        def advance(state: DecodeState) -> DecodeState:
            chosen = pick(state.hidden, head, jax.random.fold_in(key, state.step), rows)
            chosen = jnp.where(state.done, config.pad_token, chosen)
            logp, _ = token_logp(state.hidden, head, chosen, temperature=scale, banned=banned)
            hidden, answers = decode_token(params, config, cache, state.answers, chosen, state.step)
            return DecodeState(
                step=state.step + 1,
                hidden=hidden,
                answers=answers,
                tokens=state.tokens.at[:, :, state.step].set(chosen),
                logp=state.logp.at[:, :, state.step].set(jnp.where(state.done, 0.0, logp)),
                done=state.done | jnp.isin(chosen, stops),
            )

        def unfinished(state: DecodeState):
            return (state.step < max_tokens) & ~state.done.all()

        last = jax.lax.while_loop(unfinished, advance, _start(config, cache, group, max_tokens))
        return _finish(last, stops)

    return sample


def keep_likeliest(logits: jax.Array, top_k: int, top_p: float) -> jax.Array:
    """Bans all but the likeliest tokens (HF `TopKLogitsWarper`, then `TopPLogitsWarper`).

    logits  f32[..., V]   already scaled by the temperature
    top_k   tokens kept, and whatever ties with the last of them; 0 = all
    top_p   probability kept: those tokens go whose probability, with all less likely ones, is
            at most 1 - top_p; the likeliest stays; 1 = all
    ->      f32[..., V]   the same array where nothing is asked for
    """
    if 0 < top_k < logits.shape[-1]:
        least = jax.lax.top_k(logits, top_k)[0][..., -1:]
        logits = jnp.where(logits < least, BAN, logits)
    if top_p < 1:
        order = jnp.argsort(logits, axis=-1)  # stable: of equal tokens the first goes first
        ascending = jnp.take_along_axis(logits, order, axis=-1)
        below = jnp.cumsum(jax.nn.softmax(ascending, axis=-1), axis=-1)
        gone = (below <= 1 - top_p).at[..., -1].set(False)
        back = jnp.argsort(order, axis=-1)
        logits = jnp.where(jnp.take_along_axis(gone, back, axis=-1), BAN, logits)
    return logits


def _start(config: ModelConfig, cache: PromptCache, group: int, length: int) -> DecodeState:
    pairs, width = cache.hidden.shape
    shape = (pairs, group, length)
    return DecodeState(
        step=jnp.int32(0),
        hidden=jnp.broadcast_to(cache.hidden[:, None], (pairs, group, width)),
        answers=empty_answers(config, cache, group, length),
        tokens=jnp.full(shape, config.pad_token, jnp.int32),
        logp=jnp.zeros(shape, jnp.float32),
        done=jnp.zeros(shape[:2], bool),
    )


def _finish(state: DecodeState, stops: jax.Array) -> Rollout:
    """Masks from lengths: the pad token may be a stop token, so ids alone do not tell."""
    stop = jnp.isin(state.tokens, stops)
    ended = state.done
    length = jnp.where(ended, stop.argmax(-1) + 1, state.tokens.shape[-1])
    valid = jnp.arange(state.tokens.shape[-1]) < length[..., None]
    return Rollout(tokens=state.tokens, valid=valid, ended=ended, logp=state.logp)


def make_scorer(config: ModelConfig, *, temperature: float, chunk: int, slices: int = 1):
    """Bind the statics; returns score(params, prompt, images, tokens) -> (logp, entropy).

    slices  parts of the group computed one after the other, each with the prompt's one cache
    tokens  i32[B, G, T];  ->  f32[B, G, T] twice, nats, also at padding: mask afterwards

    The learner, the old and the reference policy all call this or its second half.
    """
    score_answers = make_answer_scorer(config, temperature=temperature, chunk=chunk)

    def score(params: Params, prompt: PromptInputs, images, tokens):
        cache = encode_prompt(params, config, prompt, images)
        scores = jax.lax.map(lambda part: score_answers(params, cache, part),
                             group_slices(tokens, slices))  # fmt: skip
        return join_groups(scores)

    return score


def make_answer_scorer(config: ModelConfig, *, temperature: float, chunk: int):
    """Bind the statics; returns score(params, cache, tokens) -> (logp, entropy).

    cache   PromptCache of the B prompts;  tokens  i32[B, G, T];  ->  f32[B, G, T] twice, nats
    """
    banned = banned_tokens(config)

    def score(params: Params, cache: PromptCache, tokens: jax.Array):
        hidden = score_tokens(params, config, cache, tokens)
        return token_logp(
            hidden, unembed(params), tokens, temperature=temperature, banned=banned, chunk=chunk
        )

    return score


def group_slices(tree, count: int):
    """[B, G, ...] -> [count, B, G/count, ...]."""
    return jax.tree.map(lambda a: a.reshape(len(a), count, -1, *a.shape[2:]).swapaxes(0, 1), tree)


def join_groups(tree):
    """The inverse of `group_slices`."""
    return jax.tree.map(lambda a: a.swapaxes(0, 1).reshape(a.shape[1], -1, *a.shape[3:]), tree)
