"""The compiled programs of a training step, and where what they take and give lives.

    reshard   train layout -> the weights that answer: cast, adapters merged, in rollout layout
    view      images -> what the vision tower makes of them, where it is frozen
    sample    rollout weights, prompt, images -> Rollout
    update    TrainState, Rollout, rewards -> TrainState

`train` runs them; `tpu/preflight.py` compiles the same ones ahead of time.
"""

from collections.abc import Callable

import jax

from dig_jax import sharding
from dig_jax.grpo import TrainState, make_update
from dig_jax.layout import Layout
from dig_jax.model import lora
from dig_jax.model.params import Params, answering, model_specs
from dig_jax.model.qwen3vl import see_images
from dig_jax.optim import Optimizer, make_optimizer, opt_shardings
from dig_jax.rollout import make_sampler
from dig_jax.trainable import split


def optimizer_of(layout: Layout) -> Optimizer:
    """The optimiser of the trained part."""
    return make_optimizer(
        layout.cfg.optim, layout.cfg.steps, split(layout.shapes, layout.trained)[0]
    )


def start_state(layout: Layout, params: Params) -> TrainState:
    """Step 0 (`TrainState.start`), traceable."""
    return TrainState.start(params, optimizer_of(layout), layout.cfg.grpo, layout.trained)


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
        reference=reference if cfg.grpo.kl_coef else None,
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
    """`grpo.make_update`; the state it is given is used up."""
    cfg, mesh = layout.cfg, layout.mesh
    update = make_update(
        cfg.grpo,
        layout.model,
        optimizer_of(layout),
        layout.trained,
        temperature=cfg.rollout.temperature,
    )

    def spread_update(state, *batch):
        return update(state, *sharding.spread(batch, mesh))

    spread_update.__name__ = "update"  # as JAX's log of compilations and profiles show it
    where = (state_shardings(layout), sharding.replicated(mesh), None)
    return layout.jit(spread_update, donate_argnums=0, out_shardings=where)


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


def jit_sampler(layout: Layout) -> Callable:
    """`rollout.make_sampler` at the rollout's settings, for `jit_reshard`'s weights."""
    cfg = layout.cfg.rollout
    sample = make_sampler(
        layout.rollout_model,
        group=cfg.group,
        max_tokens=cfg.max_tokens,
        temperature=cfg.temperature,
    )
    return layout.jit(sample, out_shardings=sharding.batch_sharding(layout.mesh))


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
