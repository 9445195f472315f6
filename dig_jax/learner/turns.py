"""An update's answers, some at a time: slices of every group, or streams of packed answers.

    padded  all answers T tokens long, a share of each group in a turn
    packed  answers as long as they are, as many as a stream holds in a turn (`packing`)

Both score the same tokens; packed turns compute little else. A turn ends in log-probs
f32[B, G', T], so that the loss knows nothing of it.
"""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp

from dig_jax.config import GrpoConfig
from dig_jax.learner.loss import Answers
from dig_jax.learner.packing import Plan
from dig_jax.learner.slices import join_pairs, pair_slices, turns_of
from dig_jax.model.config import ModelConfig
from dig_jax.model.logprob import banned_tokens, token_logp
from dig_jax.model.packed_attention import of_owner
from dig_jax.model.qwen3vl import PromptCache, Stream, encode_prompt, score_stream, unembed
from dig_jax.sampler.scorer import group_slices, join_groups, make_answer_scorer, make_scorer


def make_turn_scorer(config: ModelConfig, *, temperature: float, chunk: int) -> Callable:
    """Bind the statics; returns score(params, cache, tokens, take) -> (logp, entropy, here).

    cache   PromptCache of B pairs, E equal parts of them on a device each
    tokens  i32[B, G, T]
    take    i32[E, N, S]   see `packing.Plan`; or None: all tokens
    ->      f32[B, G, T] twice, nats, 0 where not `here`; bool[B, G, T], or True
    """
    score_all = make_answer_scorer(config, temperature=temperature, chunk=chunk)
    how = {"temperature": temperature, "banned": banned_tokens(config), "chunk": chunk}

    def score(params, cache: PromptCache, tokens: jax.Array, take: jax.Array | None):
        if take is None:
            return *score_all(params, cache, tokens), True
        stream, wanted = _stream(tokens, take)
        hidden = score_stream(params, config, cache, stream)
        scores = token_logp(hidden, unembed(params), wanted, **how, split=config.split)
        here = jnp.ones(take.shape, bool)
        return tuple(_back(a, take, tokens.shape) for a in (*scores, here))

    return score


def _stream(tokens: jax.Array, take: jax.Array) -> tuple[Stream, jax.Array]:
    """The stream of tokens i32[B, G, T] that `take` i32[E, N, S] tells, and what it predicts."""
    group, longest = tokens.shape[1:]
    flat, at = tokens.reshape(len(take), -1), jnp.maximum(take, 0)
    read, wanted = (of_owner(flat, i) for i in (jnp.maximum(at - 1, 0), at))
    place = jnp.where(take < 0, 0, take % longest)
    owner = at[:, :, 0] // (group * longest)  # a block's first token is there if any is
    return Stream(read=read, place=place, owner=owner, longest=longest), wanted


def _back(a: jax.Array, take: jax.Array, shape: tuple[int, ...]) -> jax.Array:
    """[E, N, S] of a stream's tokens -> [B, G, T], 0 for tokens of other turns."""
    count = shape[0] // len(take) * shape[1] * shape[2]
    at = jnp.where(take < 0, count, take)

    def row(a, at):
        return jnp.zeros(count, a.dtype).at[at].set(a, mode="drop")

    return jax.vmap(row)(a, at).reshape(shape)


def over_turns(turn: Callable, carry: Any, answers: Answers, plan, slices: int):
    """turn(carry, answers, take) -> (carry, seen) for all answers, `seen` of them all together.

    plan    (take i32[R, E, N, S], turns i32[]); None: padded, in `slices` parts of every group
    slices  of a padded group
    seen    {"loss": {name: f32[B, G]}, "sum": {name: f32[]}, "max": {name: f32[]}}
    """
    if plan is None:
        carry, seen = jax.lax.scan(
            lambda carry, some: turn(carry, some, None), carry, group_slices(answers, slices)
        )
        return carry, {
            "loss": join_groups(seen["loss"]),
            "sum": jax.tree.map(lambda a: a.sum(0), seen["sum"]),
            "max": jax.tree.map(lambda a: a.max(0), seen["max"]),
        }
    take, turns = plan

    def add(number, both):
        carry, before = both
        carry, seen = turn(carry, answers, take[number])
        return carry, {
            "loss": jax.tree.map(jnp.add, before["loss"], seen["loss"]),
            "sum": jax.tree.map(jnp.add, before["sum"], seen["sum"]),
            "max": jax.tree.map(jnp.maximum, before["max"], seen["max"]),
        }

    shapes = jax.eval_shape(turn, carry, answers, take[0])[1]
    nothing = jax.tree.map(lambda s: jnp.zeros(s.shape, s.dtype), shapes)
    return jax.lax.fori_loop(0, turns, add, (carry, nothing))


def make_scores(cfg: GrpoConfig, config: ModelConfig, *, temperature: float) -> Callable:
    """Bind the statics; returns score(params, pairs, tokens, plan) -> (logp, entropy).

    pairs   (PromptInputs of B rows, images);  tokens  i32[B, G, T]
    plan    packing.Plan; None: padded
    ->      f32[B, G, T] twice, nats; 0 for tokens that are not planned

    In the slices and turns of the update: equal shapes give equal bits.
    """
    how = {"temperature": temperature, "chunk": cfg.vocab_chunk}
    padded = make_scorer(config, slices=cfg.answer_slices, **how)
    scorer = make_turn_scorer(config, **how)

    def of_slice(params, prompt, images, tokens, turns):
        if turns is None:
            return padded(params, prompt, images, tokens)
        take, count = turns
        cache = encode_prompt(params, config, prompt, images)

        def add(number, known):
            *scores, here = scorer(params, cache, tokens, take[number])
            return tuple(jnp.where(here, *pair) for pair in zip(scores, known, strict=True))

        return jax.lax.fori_loop(0, count, add, (jnp.zeros(tokens.shape, jnp.float32),) * 2)

    def score(params, pairs, tokens, plan: Plan | None):
        def minibatch(some):
            *inputs, plan = some
            slices = (*pair_slices(tuple(inputs), cfg.accumulate, plan), turns_of(plan))
            return join_pairs(jax.lax.map(lambda one: of_slice(params, *one), slices), plan)

        minibatches = pair_slices((*pairs, tokens), cfg.minibatches)
        return join_pairs(jax.lax.map(minibatch, (*minibatches, plan)))

    return score
