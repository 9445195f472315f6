"""Bytes per device of what a run holds at rest, in a rollout and in an update.

Counted from shapes and shardings, so nothing is compiled or allocated. A floor: activations and
XLA's own buffers come on top, which only the compiler knows.
"""

import math
from dataclasses import replace
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
from jax.sharding import NamedSharding, PartitionSpec

from dig_jax.common import typed
from dig_jax.config import Config, has_reference
from dig_jax.learner.trainable import split
from dig_jax.mesh import programs, sharding
from dig_jax.mesh.layout import Layout
from dig_jax.run.session import with_adapters

HOST = "pinned_host"
Parts = dict[str, int]  # what is held -> bytes per device, in order


def device_bytes(tree: Any, *, kind: str | None = None) -> int:
    """Bytes that one device holds of the arrays, or of shapes with a sharding each.

    kind  memory that counts: HOST alone, or all but that where absent
    """
    return sum(
        math.prod(leaf.sharding.shard_shape(leaf.shape)) * leaf.dtype.itemsize
        for leaf in jax.tree.leaves(tree)
        if (leaf.sharding.memory_kind == HOST) == (kind == HOST)
    )


def at_rest(layout: Layout) -> Parts:
    """What lives from step to step, in the devices' memory."""
    state = programs.state_shapes(layout)
    parts = {"parameters": state.params, "moments": state.opt_state, "reference": state.reference}
    return {name: device_bytes(tree) for name, tree in parts.items()}


def host_bytes(layout: Layout) -> int:
    """What `grpo.reference=host` keeps in the host's memory for each device."""
    return device_bytes(programs.state_shapes(layout), kind=HOST)


def rollout(layout: Layout, prompt_tokens: int) -> Parts:
    """What a rollout adds to `at_rest`.

    prompt_tokens  P
    """
    cfg = layout.cfg
    where = programs.rollout_shapes(layout)["blocks"]["wk"].sharding
    heads = where.spec[2]  # kv_heads: keys are split as the matrix that makes them
    cache = cache_shape(layout, cfg.pairs_per_step, prompt_tokens)
    answers = cache_shape(layout, cfg.pairs_per_step, cfg.rollout.group, cfg.rollout.max_tokens)
    copied, weights = programs.rollout_is_a_copy(layout), programs.rollout_shapes(layout)
    unrolled = layout.rollout_model.layers == "unroll"  # `qwen3vl.for_decoding` takes them apart
    return {
        "answering copy": device_bytes(weights) if copied else 0,
        "blocks apart": device_bytes(weights["blocks"]) if unrolled else 0,
        "prompt cache": 2 * _placed(layout, cache, PartitionSpec(None, "fsdp", None, heads)),
        "answer cache": 2
        * _placed(layout, answers, PartitionSpec(None, "fsdp", None, None, heads)),
    }


def update(layout: Layout, prompt_tokens: int) -> Parts:
    """What an update adds to `at_rest`: gradients, and the prompts of a slice of pairs."""
    cfg = layout.cfg
    state = programs.state_shapes(layout)
    trained = device_bytes(split(state.params, layout.trained)[0])
    sliced = cfg.grpo.accumulate * cfg.grpo.answer_slices > 1  # then summed up, slice by slice
    slices = cfg.grpo.minibatches * cfg.grpo.accumulate
    cache = cache_shape(layout, cfg.pairs_per_step // slices, prompt_tokens)
    both = PartitionSpec(None, sharding.MESH_AXES)
    return {
        "gradients": trained * (2 if sliced else 1),
        "prompt cache": 2 * _placed(layout, cache, both),
    }


def sft_update(layout: Layout) -> Parts:
    """What a supervised update adds to `at_rest`."""
    trained = device_bytes(split(programs.state_shapes(layout).params, layout.trained)[0])
    return {"gradients": trained * (2 if layout.cfg.sft.accumulate > 1 else 1)}


def check_fits(layout: Layout, prompt_tokens: int, limit: int | None = None) -> None:
    """Raises ValueError where even the floor is more than a device has, with what would fit.

    limit  bytes of a device; None: what the backend tells, and where it does not, nothing is asked

    Passing says little: activations come on top, which `tpu.preflight` knows.
    """
    limit = limit or device_limit(layout.mesh.local_devices[0])
    need = floor(layout, prompt_tokens) if limit else 0
    if need <= (limit or 0):
        return
    rest = sum(at_rest(layout).values())
    phases = _phases(layout, prompt_tokens)
    needs = {name: sum(parts.values()) for name, parts in phases.items()}
    told = ", ".join(f"{name} {bytes_text(size)}" for name, size in needs.items())
    fitting = (
        change
        for change in _smaller(layout.cfg)
        if floor(_changed(layout, change), prompt_tokens) <= limit
    )
    change = next(fitting, None)
    remedy = "use more devices, or a smaller model"
    if change:
        remedy = "nearest that may fit: " + " ".join(f"--set {setting}" for setting in change)
    raise ValueError(
        f"this run does not fit: a device has {bytes_text(limit)}, and at least "
        f"{bytes_text(need)} are needed before any activation "
        f"({bytes_text(rest)} at rest; beside it {told}); {remedy}"
    )


def floor(layout: Layout, prompt_tokens: int) -> int:
    """Bytes that a device holds at least in the larger of a step's phases."""
    beside = max(sum(parts.values()) for parts in _phases(layout, prompt_tokens).values())
    return sum(at_rest(layout).values()) + beside


def _phases(layout: Layout, prompt_tokens: int) -> dict[str, Parts]:
    """What each phase of a step adds to `at_rest`."""
    if layout.cfg.learner == "sft":
        return {"update": sft_update(layout)}
    return {"rollout": rollout(layout, prompt_tokens), "update": update(layout, prompt_tokens)}


def _smaller(cfg: Config) -> list[list[str]]:
    """Settings that need less, those that change the run least first."""
    devices = cfg.mesh.fsdp * cfg.mesh.tensor * cfg.grpo.minibatches * cfg.grpo.accumulate
    far = ["grpo.reference=host"] if has_reference(cfg) else []
    near = ["grpo.reference=bfloat16"] if far and cfg.grpo.reference == "float32" else far
    fewer = [f"pairs_per_step={devices}"] if cfg.pairs_per_step > devices else []
    adapters = [] if cfg.lora.rank else ["lora.rank=64", "optim.freeze=()"]
    ways = [near, far, fewer, near + fewer, far + fewer, adapters, adapters + fewer]
    return [way for way in ways if way]


def _changed(layout: Layout, settings: list[str]) -> Layout:
    cfg = typed.override(layout.cfg, settings)
    return Layout(cfg, layout.mesh, with_adapters(cfg, replace(layout.model, lora=None)))


def cache_shape(layout: Layout, pairs: int, *tokens: int) -> jax.ShapeDtypeStruct:
    """Keys (or values) [L, B, tokens.., K, H] in the dtype that the model computes in."""
    text = layout.model.text
    shape = (text.layers, pairs, *tokens, text.kv_heads, text.head_dim)
    return jax.ShapeDtypeStruct(shape, jnp.dtype(layout.model.compute_dtype))


def state_bytes(layout: Layout) -> tuple[int, int]:
    """(whole state, parameters alone) over all devices: what a checkpoint holds.

    The mesh of `layout` is not read and may be None.
    """
    state = jax.eval_shape(partial(programs.start_state, layout), layout.shapes)
    whole, params = (
        sum(math.prod(leaf.shape) * leaf.dtype.itemsize for leaf in jax.tree.leaves(tree))
        for tree in (state, state.params)
    )
    return whole, params


def device_limit(device: jax.Device) -> int | None:
    """Bytes that the backend lets a program use on a device; None where it does not tell."""
    stats = device.memory_stats() or {}
    return stats.get("bytes_limit")


def _placed(layout: Layout, shape: jax.ShapeDtypeStruct, spec: PartitionSpec) -> int:
    placed = jax.ShapeDtypeStruct(
        shape.shape, shape.dtype, sharding=NamedSharding(layout.mesh, spec)
    )
    return device_bytes(placed)


def bytes_text(size: float) -> str:
    """Three digits and a decimal unit: "27.9 MB"."""
    for unit in ("B", "kB", "MB", "GB", "TB"):
        if size < 999.5 or unit == "TB":
            break
        size /= 1000
    digits = 0 if unit == "B" or size >= 99.95 else 1 if size >= 9.995 else 2
    return f"{size:.{digits}f} {unit}"
