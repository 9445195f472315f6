"""The one log-probability: sampler, old, reference and new policy all call it.

float32 log-softmax over temperature-scaled float32 logits, with the same token bans on both
sides, in vocabulary chunks so that [tokens, V] never exists.
"""

import jax
import jax.numpy as jnp
import numpy as np

from dig_jax.model.params import ModelConfig

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

    Each chunk is recomputed in the backward pass instead of stored.
    """
    vocab = head.shape[1]
    shape = tokens.shape

    @jax.checkpoint
    def part(hidden, columns, closed, start):
        logits = answer_logits(hidden, columns, temperature=temperature, banned=closed)
        top = jax.lax.stop_gradient(logits.max(-1))
        weight = jnp.exp(logits - top[..., None])
        local = tokens - start
        inside = (local >= 0) & (local < logits.shape[-1])
        at = jnp.clip(local, 0, logits.shape[-1] - 1)[..., None]
        picked = jnp.take_along_axis(logits, at, -1)[..., 0]
        return top, weight.sum(-1), (weight * logits).sum(-1), jnp.where(inside, picked, 0.0)

    top = jnp.full(shape, BAN, jnp.float32)
    total = jnp.zeros(shape, jnp.float32)
    moment = jnp.zeros(shape, jnp.float32)
    picked = jnp.zeros(shape, jnp.float32)
    for start in range(0, vocab, chunk):
        stop = min(start + chunk, vocab)
        new_top, new_total, new_moment, found = part(
            hidden, head[:, start:stop], banned[start:stop], start
        )
        high = jnp.maximum(top, new_top)
        old_scale, new_scale = jnp.exp(top - high), jnp.exp(new_top - high)
        total = total * old_scale + new_total * new_scale
        moment = moment * old_scale + new_moment * new_scale
        picked = picked + found
        top = high
    log_total = top + jnp.log(total)
    return picked - log_total, log_total - moment / total
