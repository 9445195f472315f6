"""Qwen3-VL as three functions: encode a prompt once, score answers, decode one token.

The group axis stays: a pair's prompt (two images and a question) is encoded once and its cache
shared by the pair's G answers, in sampling and inside the loss. Exact by causality.
"""

from functools import partial

import jax
import jax.numpy as jnp
from flax import struct

from dig_jax.model import attention, lora, text, vision
from dig_jax.model.config import ModelConfig
from dig_jax.model.inputs import PromptInputs
from dig_jax.model.packed_attention import of_owner
from dig_jax.model.params import Params
from dig_jax.model.placement import place


@struct.dataclass
class PromptCache:
    """An encoded prompt.

    k, v           f[L, B, P, K, H]   rotated keys and values; or see `for_decoding`
    length         i32[B]             tokens that are not padding
    next_position  i32[B]             position of the first answer token, on all axes
    hidden         f[B, D]            final state of the last token: predicts answer token 0
    """

    k: jax.Array
    v: jax.Array
    length: jax.Array
    next_position: jax.Array
    hidden: jax.Array

    @property
    def valid(self) -> jax.Array:
        """bool[B, P], false at padding."""
        return jnp.arange(jax.tree.leaves(self.k)[0].shape[2]) < self.length[:, None]


@struct.dataclass
class AnswerCache:
    """Keys and values of the answers so far.

    k, v  f[L, B, G, K, T, H]; with config.layers "unroll" f[B, G, K, T, H] of each block
    """

    k: jax.Array | tuple[jax.Array, ...]
    v: jax.Array | tuple[jax.Array, ...]

    @property
    def length(self) -> int:
        """T, the tokens that there is room for."""
        return jax.tree.leaves(self.k)[0].shape[-2]

    def with_room(self, length: int) -> "AnswerCache":
        """The same with room for more tokens."""

        def pad(a):
            return jnp.pad(a, [(0, 0)] * (a.ndim - 2) + [(0, length - a.shape[-2]), (0, 0)])

        return jax.tree.map(pad, self)


def _dtype(config: ModelConfig):
    return jnp.dtype(config.compute_dtype)


def embed(params: Params, tokens: jax.Array, config: ModelConfig) -> jax.Array:
    """Embeddings f[..., D] of tokens i32[...], in the type that is computed in."""
    return place(params["embed"][tokens].astype(_dtype(config)), config.split)


def _place(features: jax.Array, slot: jax.Array) -> jax.Array:
    """Spread image features over prompt positions, zero at text.

    features  f[B, I*S, D];  slot  i32[B, P], -1 at text;  ->  f[B, P, D]
    """
    at = jnp.take_along_axis(features, jnp.maximum(slot, 0)[..., None], axis=1)
    return jnp.where(slot[..., None] >= 0, at, 0)


@struct.dataclass
class SeenImages:
    """What the vision tower makes of B pairs' images; stands for them where they are asked for.

    tokens     f[B, I*S, D]
    deepstack  f[B, n, I*S, D]   one entry per tapped block
    """

    tokens: jax.Array
    deepstack: jax.Array


def see_images(
    params: Params, config: ModelConfig, prompt: PromptInputs, images: jax.Array
) -> SeenImages:
    """The vision tower's part of `encode_prompt`, of use where the tower is frozen.

    images  u8[B, I, Y, X, 3]
    """
    b, count = images.shape[:2]
    flat = images.reshape(b * count, *images.shape[2:])
    grids = prompt.grids.reshape(b * count, 2)
    seen = vision.encode_images(params["vision"], config, flat, grids)
    taps, width = len(seen.deepstack), seen.tokens.shape[-1]
    deepstack = seen.deepstack.reshape(taps, b, -1, width).swapaxes(0, 1)
    return SeenImages(tokens=seen.tokens.reshape(b, -1, width), deepstack=deepstack)


def prompt_states(
    params: Params, config: ModelConfig, prompt: PromptInputs, images: jax.Array | SeenImages
) -> tuple[jax.Array, jax.Array, jax.Array, jax.Array]:
    """Of whole prompts rotated k, v f[L,B,P,K,H], states f[L,B,P,D] after each block, the last."""
    x = embed(params, prompt.tokens, config)
    deepstack = jnp.zeros((0, *x.shape), x.dtype)
    if isinstance(images, SeenImages) or images.shape[1]:
        seen = images
        if not isinstance(images, SeenImages):
            seen = see_images(params, config, prompt, images)
        is_image = prompt.slot[..., None] >= 0
        x = jnp.where(is_image, _place(seen.tokens, prompt.slot), x)
        places = jax.vmap(_place, in_axes=(1, None))
        deepstack = places(seen.deepstack, prompt.slot)
    positions = prompt.positions.swapaxes(1, 2)
    return text.prompt_pass(lora.blocks_of(params, config), x, positions, deepstack, config)


def final_norm(params: Params, x: jax.Array, config: ModelConfig) -> jax.Array:
    return text.rms_norm(x, params["norm"], config.text.norm_eps)


def unembed(params: Params) -> jax.Array:
    """The output head f32[D, V]; the transposed embedding if tied."""
    return params["head"] if "head" in params else params["embed"].T


def encode_prompt(
    params: Params, config: ModelConfig, prompt: PromptInputs, images: jax.Array | SeenImages
) -> PromptCache:
    """Encode B prompts with their images, once for all answers.

    images  u8[B, I, Y, X, 3], where I may be 0 for text-only prompts; or what `see_images` made
    """
    k, v, _, last = prompt_states(params, config, prompt, images)
    return cache_of(params, config, prompt, k, v, last)


def cache_of(params, config, prompt, k, v, x: jax.Array) -> PromptCache:
    """Pack the keys, values and last states f[B, P, D] of `prompt_states` into a cache."""
    last = jnp.take_along_axis(x, (prompt.length - 1)[:, None, None], axis=1)[:, 0]
    return PromptCache(
        k=k,
        v=v,
        length=prompt.length,
        next_position=prompt.next_position,
        hidden=final_norm(params, last, config),
    )


def score_tokens(
    params: Params, config: ModelConfig, cache: PromptCache, tokens: jax.Array
) -> jax.Array:
    """Final hidden states that predict each answer token.

    tokens  i32[B, G, T]
    ->      f[B, G, T, D]   entry t has read the prompt and tokens[..., :t]
    """
    assert tokens.ndim == 3, tokens.shape
    group, length = tokens.shape[1:]
    hidden = cache.hidden[:, None, None]
    first = jnp.broadcast_to(hidden, (len(tokens), group, 1, hidden.shape[-1]))
    if length == 1:
        return first
    x = embed(params, tokens[..., :-1], config)
    positions = cache.next_position[:, None, None] + jnp.arange(length - 1)
    read = partial(attention.answers, config.attention, prompt_valid=cache.valid)
    blocks = lora.blocks_of(params, config)
    x = text.answer_pass(blocks, x, positions, (cache.k, cache.v), read, config)
    return jnp.concatenate([first, final_norm(params, x, config)], axis=2)


@struct.dataclass
class Stream:
    """Answers one after another: E streams of N blocks of S tokens, M pairs to a stream.

    An answer stands in one stream without a gap, a block's tokens are answers to one pair.

    read     i32[E, N, S]  what is read: the token before the one that is predicted
    place    i32[E, N, S]  number of the predicted token in its answer
    owner    i32[E, N]     whose block it is, of the stream's M pairs
    longest  T: tokens that an answer may have
    """

    read: jax.Array
    place: jax.Array
    owner: jax.Array
    longest: int = struct.field(pytree_node=False)

    def of_owner(self, a: jax.Array) -> jax.Array:
        """[E x M, ...] of all pairs -> [E, N, ...] of each block's."""
        return of_owner(a.reshape(len(self.owner), -1, *a.shape[1:]), self.owner)


def score_stream(
    params: Params, config: ModelConfig, cache: PromptCache, stream: Stream
) -> jax.Array:
    """Final hidden states that predict each token of packed answers; `score_tokens` but for that.

    cache  of the E x M pairs
    ->     f[E, N, S, D]
    """
    streams, place = len(stream.owner), stream.place
    x = embed(params, stream.read, config)
    positions = stream.of_owner(cache.next_position)[..., None] + place - 1

    def apart(a, axis):
        return a.reshape(*a.shape[:axis], streams, -1, *a.shape[axis + 1 :])

    read = partial(
        attention.packed,
        config.attention,
        prompt_valid=apart(cache.valid, 0),
        owner=stream.owner,
        reach=jnp.maximum(place - 1, 0),
        longest=stream.longest,
    )
    prompt = (apart(cache.k, 1), apart(cache.v, 1))
    x = text.answer_pass(lora.blocks_of(params, config), x, positions, prompt, read, config)
    first = stream.of_owner(cache.hidden)[:, :, None]
    return jnp.where(place[..., None] == 0, first, final_norm(params, x, config))


def empty_answers(config: ModelConfig, cache: PromptCache, group: int, length: int) -> AnswerCache:
    """A cache for `group` answers of up to `length` tokens per pair."""
    layers, pairs, _, heads, dim = cache.k.shape
    shape, dtype = (pairs, group, heads, length, dim), cache.k.dtype

    def zeros():
        if config.layers == "unroll":
            each = (jnp.zeros(shape, dtype) for _ in range(layers))
            return tuple(place(one, config.split, rows=0, heads=2) for one in each)
        return place(jnp.zeros((layers, *shape), dtype), config.split, rows=1, heads=3)

    return AnswerCache(k=zeros(), v=zeros())


def for_decoding(
    params: Params, config: ModelConfig, cache: PromptCache
) -> tuple[Params, PromptCache]:
    """Weights and prompts as `decode_token` reads them at every token; once is enough.

    With config.layers "unroll" blocks and keys become a tuple with an entry per block, of keys and
    values f[B, K, P, H]. Sliced and transposed at every token they would be copied every time.
    """
    if config.layers != "unroll" or isinstance(params["blocks"], tuple):
        return params, cache
    layers = range(config.text.layers)
    k, v = (tuple(a[n].swapaxes(1, 2) for n in layers) for a in (cache.k, cache.v))
    return unrolled(params, config), cache.replace(k=k, v=v)


def unrolled(params: Params, config: ModelConfig) -> Params:
    """Weights with a tuple of blocks in place of their stacks, adapters merged in, once for all."""
    if config.layers != "unroll" or isinstance(params["blocks"], tuple):
        return params
    blocks = lora.blocks_of(params, config)
    each = tuple(jax.tree.map(lambda a, n=n: a[n], blocks) for n in range(config.text.layers))
    return {name: tree for name, tree in params.items() if name != "lora"} | {"blocks": each}


def decode_token(
    params: Params,
    config: ModelConfig,
    cache: PromptCache,
    answers: AnswerCache,
    token: jax.Array,
    step: jax.Array,
) -> tuple[jax.Array, AnswerCache]:
    """Read answer token number `step` of every answer; predict the next one.

    params, cache  as they are, or from `for_decoding`
    token          i32[B, G];  step  i32[]
    ->             hidden f[B, G, D], and the cache with this token written
    """
    params, cache = for_decoding(params, config, cache)
    blocks, read = params["blocks"], text.token_loop
    if not isinstance(blocks, tuple):
        blocks, read = lora.blocks_of(params, config), text.token_pass
    x, k, v = read(
        blocks,
        embed(params, token, config),
        cache.next_position + step,
        (cache.k, cache.v),
        cache.valid,
        (answers.k, answers.v),
        step,
        config,
    )
    return final_norm(params, x, config), AnswerCache(k=k, v=v)


def full_logits(
    params: Params, config: ModelConfig, prompt: PromptInputs, images: jax.Array
) -> jax.Array:
    """Logits f32[B, P, V] at every prompt position; for parity tests and small inputs."""
    x = final_norm(params, config=config, x=prompt_states(params, config, prompt, images)[-1])
    return jnp.einsum(
        "bpd,dv->bpv", x, unembed(params).astype(x.dtype), preferred_element_type=jnp.float32
    )
