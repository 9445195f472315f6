"""Rows that answer: what the programs of an engine do with them.

    see      pictures and what stands before them -> PromptCache, once for all questions about them
    read     questions behind prefixes -> Suffix
    admit    prefixes and suffixes -> rows of the slots that are free
    decode   all slots draw, until enough have ended
    grow     the same slots with room for longer rows
    fetch    slots -> what the host reads of them
    release  slots -> some of them nobody's

A slot's answer depends on its own prefix, question and seed alone: not on the slot, nor on the
neighbours, nor on when it is asked. Programs are compiled once per shape.
"""

from collections.abc import Callable
from dataclasses import dataclass, fields, replace

import jax
import jax.numpy as jnp
from flax import struct

from dig_jax.mesh import sharding
from dig_jax.mesh.layout import Layout
from dig_jax.model.config import ModelConfig
from dig_jax.model.params import Params
from dig_jax.model.qwen3vl import PromptCache, encode_prompt, unembed, unrolled
from dig_jax.model.rows import Rows, admit, empty_rows, read_suffix, read_token
from dig_jax.sampler.sampling import RowDecoding, make_row_pick


@struct.dataclass
class Slots:
    """E rows with their answers so far.

    hidden  f[E, D]     state that predicts the next token
    tokens  i32[E, T]   drawn; pad beyond
    logp    f32[E, T]   nats
    count   i32[E]      tokens drawn, a stop token included
    most    i32[E]      tokens that the row may draw, at most T
    ended   bool[E]     a stop token has been drawn
    done    bool[E]     ended, or at its most, or nobody's
    """

    rows: Rows
    how: RowDecoding
    hidden: jax.Array
    tokens: jax.Array
    logp: jax.Array
    count: jax.Array
    most: jax.Array
    ended: jax.Array
    done: jax.Array


@struct.dataclass
class Admission:
    """F questions and the slots that they get.

    take, count  i32[F]      whose prefix, and tokens of the question
    tokens       i32[F, Q]
    source       i32[E]      which question a slot gets; -1: none
    how          RowDecoding of the F questions
    most         i32[F]
    """

    take: jax.Array
    count: jax.Array
    tokens: jax.Array
    source: jax.Array
    how: RowDecoding
    most: jax.Array


@dataclass(frozen=True)
class Engine:
    """Compiled functions over one set of slots; the slots that they are given are used up.

    see(params, prompt, images) -> PromptCache
    admit(params, slots, prefix, admission) -> Slots
    decode(params, slots, steps, enough) -> (Slots, (done bool[E], place i32[E]))
    grow(slots, room) -> Slots
    fetch(slots) -> (tokens, logp, count, ended), the same on every process
    release(slots, gone bool[E]) -> Slots
    start(room) -> Slots of nobody
    slots, answer   E and T
    """

    see: Callable
    admit: Callable
    decode: Callable
    grow: Callable
    fetch: Callable
    release: Callable
    start: Callable
    slots: int
    answer: int


def make_engine(layout: Layout, *, slots: int, answer: int) -> Engine:
    """Bind the statics.

    slots   E, rows that answer at a time; a multiple of mesh.fsdp
    answer  T, the most tokens that an answer may have

    Raises ValueError where the mesh does not divide the slots.
    """
    ways = layout.mesh.shape["fsdp"]
    if slots < 1 or slots % ways:
        raise ValueError(
            f"{slots} rows at a time are no multiple of mesh.fsdp={ways}; use "
            f"{max(ways, slots // ways * ways)}"
        )
    config, whole = layout.rollout_model, sharding.replicated(layout.mesh)
    # prompts in as few bodies as the model has: there is a program of them for every shape
    reading = replace(config, layers=layout.model.layers)

    def see(params, prompt, images):
        return encode_prompt(params, reading, prompt, images)

    def fetch(slots):
        return slots.tokens, slots.logp, slots.count, slots.ended

    def release(slots, gone):
        return slots.replace(done=slots.done | gone)

    def admit_rows(params, slots, prefix, admission):
        return _admit(params, reading, slots, prefix, admission)

    def start(room):
        return _nobody(config, slots, answer, room)

    def grow(slots, room):
        return slots.replace(rows=slots.rows.with_room(room))

    jit, where = layout.jit, _placing(layout)
    return Engine(
        see=jit(see),
        admit=jit(admit_rows, donate_argnums=1, out_shardings=where),
        decode=jit(make_decode(config), donate_argnums=1, out_shardings=(where, whole)),
        grow=jit(grow, static_argnums=1, out_shardings=where),
        fetch=jit(fetch, out_shardings=whole),
        release=jit(release, donate_argnums=0, out_shardings=where),
        start=jit(start, static_argnums=0, out_shardings=where),
        slots=slots,
        answer=answer,
    )


def _placing(layout: Layout) -> Slots:
    """Where a mesh holds slots, as the head of their tree.

    The same behind every program: what lies elsewhere is another program's input, and an order of
    programs that nobody met before would compile one more.
    """
    config, mesh = layout.rollout_model, layout.mesh
    rows = sharding.batch_sharding(mesh)
    stacked = config.layers != "unroll"
    keys = sharding.cache_sharding(mesh, config.text.kv_heads, stacked=stacked, heads_first=True)
    held = Rows(k=keys, v=keys, place=rows, position=rows)
    names = [field.name for field in fields(Slots)]
    return Slots(**{name: held if name == "rows" else rows for name in names})


def make_decode(config: ModelConfig) -> Callable:
    """decode(params, slots, steps, enough) -> (slots, (done, place)): until enough have ended.

    steps   i32[]   tokens that a row draws at most; the rows have room for as many
    enough  i32[]   how many slots that were going must have ended
    """
    pick, stops = make_row_pick(config), jnp.asarray(config.eos_tokens)

    def decode(params: Params, slots: Slots, steps, enough):
        params, head, going = unrolled(params, config), unembed(params), ~slots.done

        def more(carry):
            slots, step = carry
            over = (going & slots.done).sum()
            return (step < steps) & (over < enough) & ~slots.done.all()

        def advance(carry):
            slots, step = carry
            token, logp = pick(slots.hidden, head, slots.how, slots.count)
            hidden, rows = read_token(params, config, slots.rows, token, ~slots.done)
            return _drawn(slots, rows, hidden, token, logp, stops), step + 1

        slots, _ = jax.lax.while_loop(more, advance, (slots, jnp.int32(0)))
        return slots, (slots.done, slots.rows.place)

    return decode


def _drawn(slots: Slots, rows: Rows, hidden, token, logp, stops: jax.Array) -> Slots:
    """The slots after every one that is going has drawn a token."""
    going = ~slots.done
    write = jax.vmap(lambda a, new, at: jax.lax.dynamic_update_slice(a, new[None], (at,)))
    count = slots.count + going
    ended = jnp.where(going, jnp.isin(token, stops), slots.ended)

    def put(old, new):
        return jnp.where(going[:, None], write(old, new, slots.count), old)

    return slots.replace(
        rows=rows,
        hidden=hidden,
        tokens=put(slots.tokens, token),
        logp=put(slots.logp, logp),
        count=count,
        ended=ended,
        done=slots.done | ended | (count >= slots.most),
    )


def _admit(params, config: ModelConfig, slots: Slots, prefix: PromptCache, new: Admission) -> Slots:
    suffix = read_suffix(params, config, prefix, new.take, new.tokens, new.count)
    rows = admit(slots.rows, config, prefix, suffix, new.take, new.count, new.source)
    comes, chosen = new.source >= 0, jnp.maximum(new.source, 0)

    def either(fresh, old):
        return jnp.where(comes.reshape(-1, *[1] * (old.ndim - 1)), fresh, old)

    return slots.replace(
        rows=rows,
        how=jax.tree.map(lambda a, old: either(a[chosen], old), new.how, slots.how),
        hidden=either(suffix.hidden[chosen].astype(slots.hidden.dtype), slots.hidden),
        tokens=either(config.pad_token, slots.tokens),
        logp=either(0.0, slots.logp),
        count=either(0, slots.count),
        most=either(new.most[chosen], slots.most),
        ended=either(False, slots.ended),
        done=either(False, slots.done),
    )


def _nobody(config: ModelConfig, slots: int, answer: int, room: int) -> Slots:
    return Slots(
        rows=empty_rows(config, slots, room),
        how=RowDecoding(
            temperature=jnp.zeros(slots),
            top_k=jnp.zeros(slots, jnp.int32),
            top_p=jnp.ones(slots),
            min_p=jnp.zeros(slots),
            seed=jnp.zeros((slots, 2), jnp.uint32),
        ),
        hidden=jnp.zeros((slots, config.text.width), jnp.dtype(config.compute_dtype)),
        tokens=jnp.full((slots, answer), config.pad_token, jnp.int32),
        logp=jnp.zeros((slots, answer)),
        count=jnp.zeros(slots, jnp.int32),
        most=jnp.zeros(slots, jnp.int32),
        ended=jnp.zeros(slots, bool),
        done=jnp.ones(slots, bool),
    )
