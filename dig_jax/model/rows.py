"""Independent rows, each with a prompt of its own: what an engine holds that answers many people.

Where `qwen3vl` keeps a pair's prompt apart from its G answers, here a row is one sequence: the
prefix (pictures, shared by all questions about them), the question, the answer, one behind the
other without a gap. Rows are at different places, come and go, and read nothing of one another.
"""

import jax
import jax.numpy as jnp
from flax import struct

from dig_jax.model import attention, lora, text
from dig_jax.model.config import ModelConfig
from dig_jax.model.layers import over_layers
from dig_jax.model.params import Params
from dig_jax.model.placement import place as placed
from dig_jax.model.qwen3vl import PromptCache, embed, final_norm
from dig_jax.model.row_attention import row_token

BLOCK = 64  # tokens of a row that are read at a time


@struct.dataclass
class Rows:
    """What E rows have read.

    k, v      f[L, E, K, C, H], rotated; with config.layers "unroll" f[E, K, C, H] of each block
    place     i32[E]   tokens held, at most C
    position  i32[E]   rotary position of the next one
    """

    k: jax.Array | tuple[jax.Array, ...]
    v: jax.Array | tuple[jax.Array, ...]
    place: jax.Array
    position: jax.Array

    @property
    def room(self) -> int:
        """C, the tokens that a row has room for."""
        return jax.tree.leaves(self.k)[0].shape[-2]

    def with_room(self, room: int) -> "Rows":
        """The same with room for more tokens, a multiple of BLOCK."""

        def pad(a):
            return jnp.pad(a, [(0, 0)] * (a.ndim - 2) + [(0, room - a.shape[-2]), (0, 0)])

        return self.replace(k=jax.tree.map(pad, self.k), v=jax.tree.map(pad, self.v))


@struct.dataclass
class Suffix:
    """Questions that were read behind their prefixes.

    k, v    f[L, E, Q, K, H]   rotated
    hidden  f[E, D]            final state of the last token: predicts the answer's first
    """

    k: jax.Array
    v: jax.Array
    hidden: jax.Array


def empty_rows(config: ModelConfig, rows: int, room: int) -> Rows:
    """Rows that hold nothing; `room` is a multiple of BLOCK."""
    assert room % BLOCK == 0, room
    c, dtype = config.text, jnp.dtype(config.compute_dtype)
    shape = (rows, c.kv_heads, room, c.head_dim)

    def zeros():
        if config.layers == "unroll":
            return tuple(_place_keys(jnp.zeros(shape, dtype), config) for _ in range(c.layers))
        return _place_keys(jnp.zeros((c.layers, *shape), dtype), config)

    nothing = jnp.zeros(rows, jnp.int32)
    return Rows(k=zeros(), v=zeros(), place=nothing, position=nothing)


def read_suffix(
    params: Params,
    config: ModelConfig,
    prefix: PromptCache,
    take: jax.Array,
    tokens: jax.Array,
    count: jax.Array,
) -> Suffix:
    """Questions read behind prefixes that are encoded already.

    prefix  of B prefixes, from `qwen3vl.encode_prompt`
    take    i32[E]      whose prefix each question stands behind
    tokens  i32[E, Q]   text alone, padded on the right
    count   i32[E]      tokens that are not padding, at least 1
    """
    x = embed(params, tokens, config)[:, None]
    positions = prefix.next_position[take][:, None, None] + jnp.arange(tokens.shape[1])
    angles = text.angles_of(jnp.repeat(positions[..., None], 3, -1), config)
    valid = prefix.valid[take]

    def step(x, layer):
        p, k, v = layer

        def mix(q, new_k, new_v):
            read = ((k[take], v[take]), valid)
            return attention.answers(config.attention, q, new_k, new_v, *read)

        x, (k, v) = text.block(p, x, angles, config, mix)
        return x, (k[:, 0], v[:, 0])

    stack = (lora.blocks_of(params, config), prefix.k, prefix.v)
    x, (k, v) = over_layers(step, x, stack, layers=config.layers)
    last = jnp.take_along_axis(x[:, 0], (count - 1)[:, None, None], axis=1)[:, 0]
    return Suffix(k=k, v=v, hidden=final_norm(params, last, config))


def admit(
    rows: Rows,
    config: ModelConfig,
    prefix: PromptCache,
    suffix: Suffix,
    take: jax.Array,
    count: jax.Array,
    source: jax.Array,
) -> Rows:
    """Gives some rows new sequences: a prefix and the question behind it.

    take, count  i32[F]   as `read_suffix` had them
    source       i32[E]   which of the F questions a row gets; -1: it keeps what it has

    The rows need room for the longest prefix and question together (P + Q).
    """
    length, chosen = prefix.length[take], jnp.maximum(source, 0)
    width = prefix.k.shape[2] + suffix.k.shape[2]
    columns = jnp.arange(width)
    behind = prefix.k.shape[2] + columns - length[:, None]
    index = jnp.where(columns < length[:, None], columns, behind)  # i32[F, P + Q]
    index = jnp.minimum(index, width - 1)[chosen]
    stays = (source < 0)[:, None, None, None]

    def put(old, first, second):
        """old f[E, K, C, H] of one block;  first f[B, P, K, H];  second f[F, Q, K, H]"""
        both = jnp.concatenate([first[take], second], axis=1)[chosen]
        both = jnp.take_along_axis(both, index[..., None, None], axis=1).swapaxes(1, 2)
        new = jnp.where(stays, old[:, :, :width], both.astype(old.dtype))
        return jax.lax.dynamic_update_slice_in_dim(old, new, 0, axis=2)

    def put_all(old, first, second):
        if isinstance(old, tuple):
            return tuple(put(a, first[n], second[n]) for n, a in enumerate(old))
        return jax.vmap(put)(old, first, second)

    def either(new, old):
        return jnp.where(source < 0, old, new[chosen])

    return Rows(
        k=put_all(rows.k, prefix.k, suffix.k),
        v=put_all(rows.v, prefix.v, suffix.v),
        place=either(length + count, rows.place),
        position=either(prefix.next_position[take] + count, rows.position),
    )


def read_token(
    params: Params, config: ModelConfig, rows: Rows, token: jax.Array, moves: jax.Array
) -> tuple[jax.Array, Rows]:
    """Every row reads one more token and predicts the next.

    params  as they are, or with a tuple of blocks (`qwen3vl.unrolled`)
    token   i32[E]
    moves   bool[E]   false: the row stays as it is, and what is computed for it means nothing
    ->      hidden f[E, D], and the rows with the token in them
    """
    x = embed(params, token, config)[:, None, None]
    angles = text.angles_of(jnp.repeat(rows.position[:, None], 3, -1), config)[:, None, None]
    turn = jax.lax.optimization_barrier((jnp.cos(angles), jnp.sin(angles)))
    fullest = jnp.where(moves, rows.place, 0).max()
    read = _token_loop if isinstance(rows.k, tuple) else _token_scan
    x, k, v = read(params, config, rows, x, turn, (fullest + BLOCK) // BLOCK)
    moved = moves.astype(jnp.int32)
    after = Rows(k=k, v=v, place=rows.place + moved, position=rows.position + moved)
    return final_norm(params, x[:, 0, 0], config), after


def _token_loop(params, config: ModelConfig, rows: Rows, x, turn, blocks):
    """Block after block; keys are written before they are read, which costs no copy here."""
    written = []
    for p, *cache in zip(params["blocks"], rows.k, rows.v, strict=True):

        def mix(q, k, v, cache=cache):
            new = (k[:, 0, 0], v[:, 0, 0])
            own = tuple(_write(a, n, rows.place) for a, n in zip(cache, new, strict=True))
            written.append(own)
            read = (own, rows.place + 1, blocks)
            return row_token(config.attention, q[:, 0, 0], *read, size=BLOCK)[:, None, None]

        x, _ = text.block(p, x, turn, config, mix)
    return x, *zip(*written, strict=True)


def _token_scan(params, config: ModelConfig, rows: Rows, x, turn, blocks):
    """In one scan, whose caches are read alone: writing them inside would copy them."""

    def step(x, layer):
        p, *cache = layer

        def mix(q, k, v):
            new = (k[:, 0, 0], v[:, 0, 0])
            read = (tuple(cache), rows.place, blocks)
            out = row_token(config.attention, q[:, 0, 0], *read, size=BLOCK, new=new)
            return out[:, None, None]

        x, (k, v) = text.block(p, x, turn, config, mix)
        return x, (k[:, 0, 0], v[:, 0, 0])

    x, new = jax.lax.scan(step, x, (lora.blocks_of(params, config), rows.k, rows.v))
    write = jax.vmap(_write, in_axes=(0, 0, None))
    return x, *(write(a, n, rows.place) for a, n in zip((rows.k, rows.v), new, strict=True))


def _write(cache: jax.Array, new: jax.Array, place: jax.Array) -> jax.Array:
    """cache f[E, K, C, H] with new f[E, K, H] at each row's place; a full row's last is lost."""
    at = jax.vmap(lambda a, n, to: jax.lax.dynamic_update_slice(a, n[:, None], (0, to, 0)))
    return at(cache, new, place)


def _place_keys(a: jax.Array, config: ModelConfig) -> jax.Array:
    first = a.ndim - 4
    return placed(a, config.split, rows=first, heads=first + 1)
