"""Sampling in stages: several programs that draw, token for token, what `make_sampler` draws.

`stages` says which shapes follow one another and why. The programs that compute them:

    start     prompts -> PromptCache, DecodeState of stage 0
    decode_i  draws until all have ended, the caches of stage i are full, or the unfinished
              answers fit the next packed stage; the state that it is given is used up
    grow_i    the caches of stage i, with the room of stage i + 1
    pack_i    the unfinished answers of stage i, in the slots of the next packed stage
    settle_i  the answers of packed stage i, in their places among all
    finish    all answers -> Rollout

Between two of them the host learns which answers have ended and chooses the next; within one it
waits for nothing. All are compiled at the first call, so a later one never compiles.
"""

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from dig_jax.model.qwen3vl import AnswerCache, PromptCache
from dig_jax.sampler.rollout import Decoder, DecodeState, Drawn, Rollout
from dig_jax.sampler.stages import Plan


@dataclass(frozen=True)
class Places:
    """Where arrays live: shardings, or trees or prefixes of trees of them.

    cache, state  of PromptCache and DecodeState
    rows          of what is [E, ...] or [B, ...]
    answers       of the Rollout
    whole         of what every device, and the host, has all of
    """

    cache: Any
    state: Any
    rows: Any
    answers: Any
    whole: Any


@dataclass(frozen=True)
class Program:
    """A jitted function, and what it is called with: shapes with shardings."""

    function: Callable
    given: tuple

    def lower(self):
        return self.function.lower(*self.given)


def make_staged(programs_of: Callable[..., dict[str, Program]], plan_of: Callable[[int], Plan]):
    """Bind the statics; returns sample(params, prompt, images, key, first_row=0) -> Rollout.

    programs_of  (params, prompt, images, key), as shapes -> `make_programs`'
    plan_of      number of pairs -> the plan of those programs
    """
    compiled: dict[tuple, dict[str, Callable]] = {}

    def ready(given: tuple) -> dict[str, Callable]:
        shapes, tree = jax.tree.flatten(jax.tree.map(_shape_of, given))
        kind = (tree, *((s.shape, s.dtype, s.sharding) for s in shapes))
        if kind not in compiled:
            found = programs_of(*jax.tree.unflatten(tree, shapes))
            compiled[kind] = {name: program.lower().compile() for name, program in found.items()}
        return compiled[kind]

    def sample(params, prompt, images, key, first_row=0) -> Rollout:
        run, plan = ready((params, prompt, images, key)), plan_of(len(prompt.tokens))
        cache, state = run["start"](params, prompt, images)
        rows, number, settled = np.arange(plan.pairs * plan.group).reshape(-1, plan.group), 0, None
        while True:
            decode = run[f"decode_{number}"]
            state, told = decode(params, cache, state, key, np.int32(first_row))
            step, done = jax.device_get(told)
            if done.all() or step >= plan.stages[-1].length:
                break
            while (later := plan.after(number, step, plan.counts(rows, done))) is not None:
                if later < plan.full:
                    state = state.replace(answers=run[f"grow_{number}"](state.answers))
                else:
                    take, source = plan.pack(rows, done, later)
                    settled = _settled(run, plan, number, settled, state)
                    cache, state = run[f"pack_{number}"](cache, state, take, source)
                    rows, done = _packed_rows(plan, rows, take), take < 0
                number = later
        return run["finish"](_settled(run, plan, number, settled, state))

    return sample


def _settled(run, plan: Plan, number: int, settled: Drawn | None, state: DecodeState) -> Drawn:
    """All answers [B, G] as far as they are drawn; the slots of a full stage are just that."""
    if number < plan.full:
        return state.drawn
    return run[f"settle_{number}"](settled, state.rows, state.drawn)


def _packed_rows(plan: Plan, rows: np.ndarray, take: np.ndarray) -> np.ndarray:
    """DecodeState.rows after `pack_i`, on the host."""
    parts = zip(np.split(rows, plan.shards), np.split(take, plan.shards), strict=True)
    found = np.concatenate([part.ravel()[slots] for part, slots in parts])
    return np.where(take < 0, plan.pairs * plan.group, found)


def _shape_of(a) -> jax.ShapeDtypeStruct:
    at = a.sharding if isinstance(a, jax.Array) and a.committed else None
    return jax.ShapeDtypeStruct(a.shape, a.dtype, sharding=at)


def make_programs(
    decoder: Decoder, plan: Plan, shapes: tuple, *, jit: Callable, places: Places, name: str
) -> dict[str, Program]:
    """Every program of a rollout, by the names at the head of this file.

    shapes  of params, prompt, images and key: trees of `jax.ShapeDtypeStruct` with shardings
    jit     `jax.jit` or a function like it
    name    that precedes each program's own in JAX's log of compilations and in profiles
    """
    params, prompt, images, key = shapes
    found: dict[str, Program] = {}

    def add(label: str, function: Callable, out, *given, **options):
        def program(*args):
            return function(*args)

        program.__name__ = f"{name}_{label}"
        found[label] = Program(jit(program, out_shardings=out, **options), given)
        return _placed(found[label].function.eval_shape(*given), out)

    def numbers(*shape: int):
        return jax.ShapeDtypeStruct(shape, jnp.int32, sharding=places.whole)

    def start(*given):
        return decoder.start(*given, plan.stages[0].length)

    both = (places.cache, places.state)
    cache, state = add("start", start, both, params, prompt, images)
    answers = state.drawn
    for at in range(len(plan.stages)):
        given, out = (params, cache, state, key, numbers()), (places.state, places.whole)
        add(f"decode_{at}", _decode(decoder, plan, at), out, *given, donate_argnums=2)
        if at >= plan.full:
            given = (answers, state.rows, state.drawn)
            add(f"settle_{at}", _settle(plan), places.rows, *given, donate_argnums=0)
        packed = plan.packed_after(at)
        if packed is not None:
            into = plan.stages[packed]
            given = (cache, state, numbers(into.entries, into.slots), numbers(into.entries))
            after = add(f"pack_{at}", _pack(plan, packed), both, *given)
        if at + 1 < plan.full:
            grow = partial(AnswerCache.with_room, length=plan.stages[at + 1].length)
            grown = add(f"grow_{at}", grow, places.state.answers, state.answers)
            state = state.replace(answers=grown)
        elif packed is not None:
            cache, state = after
    add("finish", decoder.finish, places.answers, answers)
    return found


def _placed(shapes, where):
    """Shapes with shardings; `where` is a tree of those or a prefix of one."""

    def place(at, part):
        return jax.tree.map(lambda s: jax.ShapeDtypeStruct(s.shape, s.dtype, sharding=at), part)

    return jax.tree.map(place, where, shapes)


def _decode(decoder: Decoder, plan: Plan, number: int) -> Callable:
    """-> state, (tokens decoded, which answers have ended)"""
    packed = plan.packed_after(number)

    def fits(rows, done):
        return plan.fits(plan.counts(rows, done), packed)

    def decode(params, cache, state, key, first_row):
        until = None if packed is None else fits
        state = decoder.run(params, cache, state, key, first_row, until)
        return state, (state.step, state.drawn.done)

    return decode


def _pack(plan: Plan, number: int) -> Callable:
    """(cache, state, take, source) of the stage before -> cache, state; see `Plan.pack`."""

    def pack(cache: PromptCache, state: DecodeState, take: jax.Array, source: jax.Array):
        def slots(a, at=0):
            flat = a.reshape(*a.shape[:at], -1, *a.shape[at + 2 :])
            found = _within_shards(flat, take.reshape(-1), plan.shards, at)
            return found.reshape(*a.shape[:at], *take.shape, *a.shape[at + 2 :])

        def entries(a, at=0):
            return _within_shards(a, source, plan.shards, at)

        empty = take < 0
        drawn = jax.tree.map(slots, state.drawn)
        answers = jax.tree.map(lambda a: slots(a, at=a.ndim - 5), state.answers)
        state = DecodeState(
            step=state.step,
            hidden=slots(state.hidden),
            answers=answers.with_room(plan.stages[number].length),
            rows=jnp.where(empty, plan.pairs * plan.group, slots(state.rows)),
            drawn=drawn.replace(done=empty),
        )
        at = PromptCache(k=1, v=1, length=0, next_position=0, hidden=0)
        return jax.tree.map(entries, cache, at), state

    return pack


def _settle(plan: Plan) -> Callable:
    """(all answers, rows, answers in slots) -> all answers with those in their places."""
    owned = plan.pairs * plan.group // plan.shards  # answers of a shard

    def settle(answers: Drawn, rows: jax.Array, drawn: Drawn) -> Drawn:
        # nobody's number lies beyond every shard's answers, so it is dropped
        places = rows.reshape(plan.shards, -1) - owned * jnp.arange(plan.shards)[:, None]

        def write(old, new):
            def shard(old, new, places):
                return old.at[places].set(new, mode="drop")

            parts = (a.reshape(plan.shards, -1, *a.shape[2:]) for a in (old, new))
            return jax.vmap(shard)(*parts, places).reshape(old.shape)

        return jax.tree.map(write, answers, drawn)

    return settle


def _within_shards(a: jax.Array, take: jax.Array, shards: int, at: int) -> jax.Array:
    """Entries of dimension `at`, which the shards split evenly, by numbers within the shard.

    take  i32[n], the same number for each shard, one shard after the other; below 0: any entry
    """
    parts = a.reshape(*a.shape[:at], shards, -1, *a.shape[at + 1 :])
    pick = jax.vmap(lambda part, one: part.take(one, axis=at, mode="clip"), (at, 0), at)
    return pick(parts, take.reshape(shards, -1)).reshape(*a.shape[:at], -1, *a.shape[at + 1 :])
