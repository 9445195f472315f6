"""Log-probs of answers that were drawn: the sampler's own function, which the learner shares."""

import jax

from dig_jax.model.config import ModelConfig
from dig_jax.model.inputs import PromptInputs
from dig_jax.model.logprob import banned_tokens, token_logp
from dig_jax.model.params import Params
from dig_jax.model.qwen3vl import PromptCache, encode_prompt, score_tokens, unembed


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
        how = {"temperature": temperature, "banned": banned, "chunk": chunk}
        return token_logp(hidden, unembed(params), tokens, **how, split=config.split)

    return score


def group_slices(tree, count: int):
    """[B, G, ...] -> [count, B, G/count, ...]."""
    return jax.tree.map(lambda a: a.reshape(len(a), count, -1, *a.shape[2:]).swapaxes(0, 1), tree)


def join_groups(tree):
    """The inverse of `group_slices`."""
    return jax.tree.map(lambda a: a.swapaxes(0, 1).reshape(a.shape[1], -1, *a.shape[3:]), tree)
