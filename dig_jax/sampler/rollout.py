"""Sampling: G answers per pair from one prompt encoding.

The prompt's cache is read by all G answers and never copied. The end token is kept and scored
(stopping is learned); a finished answer costs nothing but its row, and `staged` takes that away.
Randomness of a token depends on the step's key, the token's place in its answer and the row's
global number alone, so it is the same on any mesh, in any slot and at any time.
"""

from collections.abc import Callable
from dataclasses import dataclass

import jax
import jax.numpy as jnp
from flax import struct

from dig_jax.model import lora
from dig_jax.model.config import ModelConfig
from dig_jax.model.inputs import PromptInputs
from dig_jax.model.params import Params
from dig_jax.model.qwen3vl import (
    AnswerCache,
    PromptCache,
    decode_token,
    empty_answers,
    encode_prompt,
    for_decoding,
    unembed,
)
from dig_jax.sampler.sampling import make_pick


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
class Drawn:
    """Answers as far as they have been drawn; E and S are entries and slots, or B and G.

    tokens  i32[E, S, T]   pad where nothing has been drawn
    logp    f32[E, S, T]   nats
    done    bool[E, S]     the end token has been drawn, or the slot is nobody's
    """

    tokens: jax.Array
    logp: jax.Array
    done: jax.Array


@struct.dataclass
class DecodeState:
    """Everything that decoding reads and writes. Slots are E entries of S, at first B and G.

    step     i32[]           number of the token to be sampled next
    hidden   f[E, S, D]      state that predicts it
    answers  AnswerCache     keys and values of the tokens before it
    rows     i32[E, S]       whose slot it is, pair x G + answer; B x G: nobody's
    drawn    Drawn           of each slot
    """

    step: jax.Array
    hidden: jax.Array
    answers: AnswerCache
    rows: jax.Array
    drawn: Drawn


@dataclass(frozen=True)
class Decoder:
    """The parts of a sampler; traceable functions.

    start(params, prompt, images, length) -> (PromptCache, DecodeState)
        Encodes the prompts; the answers' caches have room for `length` tokens.
    run(params, cache, state, key, first_row, until=None) -> DecodeState
        Decodes until all answers have ended, the caches are full, or `until(rows, done)`.
    finish(drawn) -> Rollout
        Of all answers in order.
    """

    start: Callable
    run: Callable
    finish: Callable


def make_sampler(config: ModelConfig, *, group: int, max_tokens: int, **how):
    """Bind the statics; returns sample(params, prompt, images, key, first_row=0) -> Rollout.

    One program, whose caches have room for `max_tokens` from the start; `staged` has the same
    answers for less. The arguments are those of `make_decoder`.

    sample's `images` are u8[B, I, Y, X, 3] or SeenImages. Its `first_row` is the global number of
    the batch's first pair: the draws of a pair do not depend on which batch slice it is in.
    """
    decoder = make_decoder(config, group=group, max_tokens=max_tokens, **how)

    def sample(params: Params, prompt: PromptInputs, images, key, first_row=0) -> Rollout:
        params = lora.merge(params, config)  # once, not at every token
        cache, state = decoder.start(params, prompt, images, max_tokens)
        return decoder.finish(decoder.run(params, cache, state, key, first_row).drawn)

    return sample


def make_decoder(
    config: ModelConfig,
    *,
    group: int,
    max_tokens: int,
    temperature: float,
    top_k: int = 0,
    top_p: float = 1.0,
    min_p: float = 0.0,
) -> Decoder:
    """Bind the statics of a sampler's parts.

    group        G, answers per pair
    max_tokens   T, end token included
    temperature  > 0 samples; 0 is greedy, ignores the key and reports log-probs at 1
    top_k, top_p, min_p
                 see `keep_likeliest`; for evaluation alone: reported log-probs stay those of the
                 whole distribution, so a truncated sample must not be trained on
    """
    how = {"top_k": top_k, "top_p": top_p, "min_p": min_p}
    pick = make_pick(config, temperature=temperature, **how)
    stops = jnp.asarray(config.eos_tokens)

    def start(params: Params, prompt: PromptInputs, images, length: int):
        cache = encode_prompt(lora.merge(params, config), config, prompt, images)
        return cache, _start(config, cache, group, length, max_tokens)

    def run(params, cache: PromptCache, state: DecodeState, key, first_row, until=None):
        params, cache = for_decoding(lora.merge(params, config), config, cache)
        head, rows = unembed(params), first_row * group + state.rows

        def advance(state: DecodeState) -> DecodeState:
            drawn, step = state.drawn, state.step
            token, logp = pick(state.hidden, head, jax.random.fold_in(key, step), rows)
            token = jnp.where(drawn.done, config.pad_token, token)
            hidden, answers = decode_token(params, config, cache, state.answers, token, step)
            drawn = Drawn(
                tokens=drawn.tokens.at[:, :, step].set(token),
                logp=drawn.logp.at[:, :, step].set(jnp.where(drawn.done, 0.0, logp)),
                done=drawn.done | jnp.isin(token, stops),
            )
            return state.replace(step=step + 1, hidden=hidden, answers=answers, drawn=drawn)

        def unfinished(state: DecodeState):
            done = state.drawn.done
            going = (state.step < state.answers.length) & ~done.all()
            return going if until is None else going & ~until(state.rows, done)

        return jax.lax.while_loop(unfinished, advance, state)

    return Decoder(start, run, lambda drawn: _finish(drawn, stops))


def _start(config: ModelConfig, cache: PromptCache, group: int, length: int, most: int):
    """length  tokens that the answers' caches have room for;  most  that an answer may have"""
    pairs, width = cache.hidden.shape
    shape = (pairs, group, most)
    drawn = Drawn(
        tokens=jnp.full(shape, config.pad_token, jnp.int32),
        logp=jnp.zeros(shape, jnp.float32),
        done=jnp.zeros(shape[:2], bool),
    )
    return DecodeState(
        step=jnp.int32(0),
        hidden=jnp.broadcast_to(cache.hidden[:, None], (pairs, group, width)),
        answers=empty_answers(config, cache, group, length),
        rows=jnp.arange(pairs * group, dtype=jnp.int32).reshape(pairs, group),
        drawn=drawn,
    )


def _finish(drawn: Drawn, stops: jax.Array) -> Rollout:
    """Masks from lengths: the pad token may be a stop token, so ids alone do not tell."""
    stop, most = jnp.isin(drawn.tokens, stops), drawn.tokens.shape[-1]
    length = jnp.where(drawn.done, stop.argmax(-1) + 1, most)
    valid = jnp.arange(most) < length[..., None]
    return Rollout(tokens=drawn.tokens, valid=valid, ended=drawn.done, logp=drawn.logp)
