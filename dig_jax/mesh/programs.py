"""The compiled programs of a training step, and where what they take and give lives.

    reshard   train layout -> the weights that answer: cast, adapters merged, in rollout layout
    view      images -> what the vision tower makes of them, where it is frozen
    sample    rollout weights, prompt, images -> Rollout; several programs with rollout.chunk
    update    TrainState, Rollout, rewards, how answers are packed -> TrainState
    sft_update  TrainState, rows with true answers -> TrainState

`train` runs them; `tpu/preflight.py` compiles the same ones ahead of time. `sampler_programs` has
the programs of `sample` one by one.
"""

from collections.abc import Callable, Sequence
from functools import partial

import jax
import numpy as np
from jax.sharding import NamedSharding, PartitionSpec

from dig_jax.config import has_reference
from dig_jax.inputs.decoding import Decoding
from dig_jax.learner.grpo import make_update
from dig_jax.learner.optim import Optimizer, make_optimizer, opt_shardings
from dig_jax.learner.packing import Packing, Plan, make_packing, make_plan, used
from dig_jax.learner.sft import make_sft_update
from dig_jax.learner.state import TrainState
from dig_jax.learner.trainable import split
from dig_jax.mesh import sharding
from dig_jax.mesh.layout import Layout
from dig_jax.model import lora
from dig_jax.model.params import Params, answering
from dig_jax.model.qwen3vl import AnswerCache, PromptCache, see_images
from dig_jax.model.specs import model_specs
from dig_jax.sampler import stages
from dig_jax.sampler.rollout import DecodeState, Rollout, make_decoder, make_sampler
from dig_jax.sampler.staged import Places, Program, make_programs, make_staged


def optimizer_of(layout: Layout) -> Optimizer:
    """The optimiser of the trained part."""
    return make_optimizer(
        layout.cfg.optim, layout.cfg.steps, split(layout.shapes, layout.trained)[0]
    )


def start_state(layout: Layout, params: Params) -> TrainState:
    """Step 0 (`TrainState.start`), traceable."""
    reference = layout.cfg.grpo if has_reference(layout.cfg) else None
    return TrainState.start(params, optimizer_of(layout), reference, layout.trained)


def state_shardings(layout: Layout) -> TrainState:
    """Where every leaf of the state lives: moments and reference beside their parameter."""
    cfg, whole = layout.cfg, sharding.replicated(layout.mesh)
    shapes, where = (split(t, layout.trained)[0] for t in (layout.shapes, layout.shardings))
    reference = where
    if cfg.grpo.reference == "host":
        reference = jax.tree.map(lambda at: at.with_memory_kind("pinned_host"), where)
    return TrainState(
        params=layout.shardings,
        opt_state=opt_shardings(optimizer_of(layout), shapes, where, whole),
        reference=reference if has_reference(cfg) else None,
        step=whole,
    )


def state_shapes(layout: Layout) -> TrainState:
    """`jax.ShapeDtypeStruct` of every leaf of the state, with its sharding."""
    shapes = jax.eval_shape(lambda params: start_state(layout, params), layout.shapes)
    return jax.tree.map(
        lambda s, at: jax.ShapeDtypeStruct(s.shape, s.dtype, sharding=at),
        shapes,
        state_shardings(layout),
    )


def jit_update(layout: Layout) -> Callable:
    """`grpo.make_update`, its last argument a Plan or None; the state it is given is used up."""
    cfg, mesh = layout.cfg, layout.mesh
    update = make_update(
        cfg.grpo,
        layout.model,
        optimizer_of(layout),
        layout.trained,
        temperature=cfg.rollout.temperature,
        part_weights=tuple(cfg.reward.parts.values()),
    )

    def spread_update(state, prompt, images, rollout, reward, plan):
        batch = sharding.spread((prompt, images, rollout, reward), mesh)
        return update(state, *batch, plan)

    spread_update.__name__ = "update"  # as JAX's log of compilations and profiles show it
    where = (state_shardings(layout), sharding.replicated(mesh), None)
    return layout.jit(spread_update, donate_argnums=0, out_shardings=where)


def jit_sft_update(layout: Layout, slots: Sequence[np.ndarray]) -> Callable:
    """`sft.make_sft_update`, whose `slots` these are; the state that it is given is used up.

    Compiled once per shape of rows.
    """
    cfg, mesh = layout.cfg, layout.mesh
    update = make_sft_update(cfg.sft, layout.model, optimizer_of(layout), layout.trained, slots)

    def spread_update(state, lessons):
        return update(state, sharding.spread(lessons, mesh))

    spread_update.__name__ = "sft_update"
    where = (state_shardings(layout), sharding.replicated(mesh))
    return layout.jit(spread_update, donate_argnums=0, out_shardings=where)


def update_packing(layout: Layout) -> Packing | None:
    """The shapes in which an update computes its answers; None: padded."""
    cfg = layout.cfg
    if not cfg.grpo.packed:
        return None
    names = ("minibatches", "accumulate", "answer_slices")
    how = {name: getattr(cfg.grpo, name) for name in names} | {"devices": layout.mesh.size}
    return make_packing(cfg.pairs_per_step, cfg.rollout.group, cfg.rollout.max_tokens, **how)


def plan_update(layout: Layout, rollout: Rollout) -> tuple[Plan | None, float]:
    """The Plan of an update where it is computed, and the share of what is that is real tokens.

    rollout  in NumPy, the same on every process
    """
    packing, cfg = update_packing(layout), layout.cfg.grpo
    lengths = np.asarray(rollout.lengths)
    if packing is None:
        return None, float(lengths.sum() / rollout.valid.size)
    if cfg.truncated == "mask" and cfg.kl_in == "loss":  # nothing reads what is cut off
        lengths = np.where(rollout.ended, lengths, 0)
    plan = make_plan(packing, lengths)
    return sharding.place_global(plan, _plan_at(layout)), used(packing, plan, lengths)


def plan_shapes(layout: Layout) -> Plan | None:
    """`jax.ShapeDtypeStruct` of `plan_update`'s, with shardings."""
    packing = update_packing(layout)
    return packing and jax.tree.map(
        lambda shape, at: jax.ShapeDtypeStruct(shape, np.int32, sharding=at),
        packing.shapes,
        _plan_at(layout),
        is_leaf=lambda leaf: isinstance(leaf, tuple),
    )


def _plan_at(layout: Layout) -> Plan:
    every = sharding.replicated(layout.mesh)
    streams = NamedSharding(layout.mesh, PartitionSpec(None, None, None, sharding.MESH_AXES))
    return Plan(order=every, take=streams, turns=every)


def rollout_shapes(layout: Layout) -> Params:
    """`jax.ShapeDtypeStruct` of the weights that answer, with their shardings."""
    specs = model_specs(layout.rollout_model)
    where = sharding.param_shardings(specs, layout.mesh, "rollout")
    shapes = jax.eval_shape(lambda p: _rollout_weights(layout, p), layout.shapes)
    return jax.tree.map(
        lambda s, at: jax.ShapeDtypeStruct(s.shape, s.dtype, sharding=at), shapes, where
    )


def rollout_is_a_copy(layout: Layout) -> bool:
    """Whether what answers is a copy of the weights, not the weights themselves."""
    plain = layout.model.compute_dtype == "float32" and not layout.model.lora
    return layout.mesh.size > 1 or not plain


def jit_reshard(layout: Layout) -> Callable[[Params], Params]:
    """The copy of the weights that answers, to be dropped before the update.

    On one device with float32 weights and no adapters these are the weights themselves.
    """
    if not rollout_is_a_copy(layout):
        return lambda params: params
    where = jax.tree.map(lambda s: s.sharding, rollout_shapes(layout))

    def reshard(params):
        return _rollout_weights(layout, params)

    return layout.jit(reshard, out_shardings=where)


def _rollout_weights(layout: Layout, params: Params) -> Params:
    return answering(lora.merge(params, layout.model), layout.rollout_model)


def jit_sampler(
    layout: Layout,
    *,
    group: int = 0,
    decoding: Decoding | None = None,
    name: str = "sample",
    whole: bool = False,
) -> Callable:
    """sample(params, prompt, images, key, first_row=0) -> Rollout, for `jit_reshard`'s weights.

    group     answers per pair; 0: rollout.group
    decoding  how tokens are chosen; None: drawn at rollout.temperature
    name      of the program, or before those of several, in JAX's log of compilations
    whole     every device gets all answers; else they are spread as the pairs are

    One program where rollout.chunk and rollout.compact ask for no stages, else those of
    `sampler_programs`, compiled at the first call.
    """
    how = {"group": group, "decoding": decoding, "name": name, "whole": whole}
    if _in_stages(layout):
        plan_of = partial(rollout_plan, layout, group=group)
        return make_staged(partial(sampler_programs, layout, **how), plan_of)
    sampler = make_sampler(layout.rollout_model, **_sampling(layout, group, decoding))

    def sample(*args):
        return sampler(*args)

    sample.__name__ = name
    return layout.jit(sample, out_shardings=_answers_at(layout, whole))


def sampler_programs(
    layout: Layout,
    params: Params,
    prompt,
    images,
    key,
    *,
    group: int = 0,
    decoding: Decoding | None = None,
    name: str = "sample",
    whole: bool = False,
) -> dict[str, Program]:
    """What `jit_sampler` runs, each with the shapes that it is called with.

    params, prompt, images, key  trees of `jax.ShapeDtypeStruct` with shardings

    {"sample": ...} where it is one program, else those that `staged` names. Of those the last
    decode_i with all rows has the largest caches.
    """
    given, how = (params, prompt, images, key), {"group": group, "decoding": decoding}
    if not _in_stages(layout):
        return {"sample": Program(jit_sampler(layout, **how, name=name, whole=whole), given)}
    decoder = make_decoder(layout.rollout_model, **_sampling(layout, group, decoding))
    plan, places = rollout_plan(layout, len(prompt.tokens), group=group), _places(layout, whole)
    return make_programs(decoder, plan, given, jit=layout.jit, places=places, name=name)


def _in_stages(layout: Layout) -> bool:
    cfg = layout.cfg.rollout
    return bool(cfg.compact) or 0 < cfg.chunk < cfg.max_tokens


def _sampling(layout: Layout, group: int, decoding: Decoding | None) -> dict:
    """Arguments of `rollout.make_sampler`."""
    cfg = layout.cfg.rollout
    how = vars(decoding or Decoding(cfg.temperature))
    return {"group": group or cfg.group, "max_tokens": cfg.max_tokens, **how}


def rollout_plan(layout: Layout, pairs: int, *, group: int = 0) -> stages.Plan:
    """In which shapes `group` (0: rollout.group) answers to each of `pairs` are drawn."""
    cfg = layout.cfg.rollout
    how = {"chunk": cfg.chunk, "compact": cfg.compact, "shards": layout.mesh.shape["fsdp"]}
    return stages.make_plan(pairs, group or cfg.group, cfg.max_tokens, **how)


def _answers_at(layout: Layout, whole: bool) -> NamedSharding:
    return (sharding.replicated if whole else sharding.batch_sharding)(layout.mesh)


def _places(layout: Layout, whole: bool) -> Places:
    """Caches are split over heads too: what reads them is."""
    mesh, rows = layout.mesh, sharding.batch_sharding(layout.mesh)
    keys, every = (
        sharding.cache_sharding(mesh, layout.model.text.kv_heads),
        sharding.replicated(mesh),
    )
    own = keys
    if layout.rollout_model.layers == "unroll":
        own = sharding.cache_sharding(mesh, layout.model.text.kv_heads, stacked=False)
    answers = AnswerCache(k=own, v=own)
    return Places(
        cache=PromptCache(k=keys, v=keys, length=rows, next_position=rows, hidden=rows),
        state=DecodeState(step=every, hidden=rows, answers=answers, rows=rows, drawn=rows),
        rows=rows,
        answers=_answers_at(layout, whole),
        whole=every,
    )


def jit_viewer(layout: Layout) -> Callable:
    """view(weights, prompt, images): what stands for the images in a step.

    With the whole vision tower frozen, its tokens: encoded once for the rollout, the
    reference and every update. Else the images themselves.
    """
    if not layout.tower_frozen:
        return lambda params, prompt, images: images

    def view(params, prompt, images):
        return see_images(params, layout.rollout_model, prompt, images)

    return layout.jit(view, out_shardings=sharding.batch_sharding(layout.mesh))
