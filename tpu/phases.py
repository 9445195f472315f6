"""The phases of a training step as programs to compile, and what each leaves on a device.

The programs are `dig_jax.mesh.programs`', with shapes for arguments: what is compiled is what
trains. What lives beside a program while it runs is what `dig_jax.run.experience` and `train`
hold on to.
"""

import math
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from dig_jax.config import Config
from dig_jax.learner.sft import Lesson, Lessons
from dig_jax.mesh import programs, sharding
from dig_jax.mesh.layout import Layout
from dig_jax.model.inputs import PromptInputs
from dig_jax.model.qwen3vl import SeenImages
from dig_jax.sampler.rollout import Rollout

NAMES = ("reshard", "view", "sample", "update", "sft_update")


@dataclass(frozen=True)
class Phase:
    """program  jitted
    given       its arguments, trees of `jax.ShapeDtypeStruct` with shardings
    beside      trees that stay on the devices and are no argument
    """

    program: Callable
    given: tuple
    beside: tuple


@dataclass(frozen=True)
class PromptShape:
    """tokens  of a prompt, images included; image  (height, width) in pixels of each of two"""

    tokens: int
    image: tuple[int, int]


def names_of(cfg: Config, *, seen: bool) -> list[str]:
    """The phases of a step, in order.

    seen  the vision tower is frozen, so that a step sees its images once
    """
    if cfg.learner == "sft":
        return ["sft_update"]
    return [name for name in NAMES[:-1] if seen or name != "view"]


def phases(layout: Layout, shape: PromptShape) -> dict[str, Phase]:
    """Every phase of `names_of`."""
    if layout.cfg.learner == "sft":
        return {"sft_update": _supervised(layout, shape)}
    state, weights = programs.state_shapes(layout), programs.rollout_shapes(layout)
    prompt, pixels = prompt_shapes(layout, shape), pixel_shapes(layout, shape)
    images = seen_shapes(layout, shape) if layout.tower_frozen else pixels
    rollout, reward = answer_shapes(layout)
    found = {
        "reshard": Phase(
            programs.jit_reshard(layout),
            (state.params,),
            (state.opt_state, state.reference, prompt),
        ),
        "view": Phase(programs.jit_viewer(layout), (weights, prompt, pixels), (state,)),
        "sample": _sample(layout, (weights, prompt, images, _key(layout)), state),
        "update": Phase(
            programs.jit_update(layout),
            (state, prompt, images, rollout, reward, programs.plan_shapes(layout)),
            (),
        ),
    }
    if not layout.tower_frozen:
        del found["view"]
    return found


def _supervised(layout: Layout, shape: PromptShape) -> Phase:
    """The update of a supervised step: its questions have one picture of the pairs' size."""
    cfg, cells = layout.cfg, layout.model.cells(*shape.image)
    pairs = questions = None
    if cfg.sft.pairs_weight:
        pairs = _lesson(layout, cfg.pairs_per_step, shape.tokens, shape.image, 2)
    if cfg.sft.questions_per_step:
        tokens = shape.tokens - cells
        questions = _lesson(layout, cfg.sft.questions_per_step, tokens, shape.image, 1)
    slots = np.arange(cells), cells + np.arange(cells)
    program = programs.jit_sft_update(layout, slots)
    return Phase(program, (programs.state_shapes(layout), Lessons(pairs, questions)), ())


def _lesson(layout: Layout, rows: int, tokens: int, image: tuple[int, int], images: int) -> Lesson:
    """Rows without labels of cells, as a released model is tuned."""
    row = partial(_rows, layout, rows=rows)
    ids, answer = row(jnp.int32), layout.cfg.rollout.max_tokens
    return Lesson(
        prompt=_prompt(ids, tokens, images),
        images=row(jnp.uint8)(images, *image, 3),
        tokens=ids(answer),
        weight=row(jnp.float32)(answer),
    )


def _sample(layout: Layout, given: tuple, state: Any) -> Phase:
    """The rollout's program; of several the one that decodes with the largest caches."""
    found = programs.sampler_programs(layout, *given)
    decoding = [one for name, one in found.items() if name.startswith(("sample", "decode_"))]
    largest = max(decoding, key=lambda one: bytes_per_device(one.given))
    return Phase(largest.function, largest.given, (state,))


def bytes_per_device(tree: Any) -> int:
    """Of arrays or shapes with shardings, in a device's own memory: the host's is not counted."""
    return sum(
        math.prod(leaf.sharding.shard_shape(leaf.shape)) * leaf.dtype.itemsize
        for leaf in jax.tree.leaves(tree)
        if leaf.sharding.memory_kind != "pinned_host"
    )


def prompt_shapes(layout: Layout, shape: PromptShape) -> PromptInputs:
    """`Session.prompt_rows` of a step."""
    return _prompt(_rows(layout, jnp.int32), shape.tokens, 2)


def _prompt(row: Callable, tokens: int, images: int) -> PromptInputs:
    return PromptInputs(
        tokens=row(tokens),
        slot=row(tokens),
        positions=row(3, tokens),
        length=row(),
        next_position=row(),
        grids=row(images, 2),
    )


def pixel_shapes(layout: Layout, shape: PromptShape) -> jax.ShapeDtypeStruct:
    """Both images of every pair."""
    return _rows(layout, jnp.uint8)(2, *shape.image, 3)


def seen_shapes(layout: Layout, shape: PromptShape) -> SeenImages:
    """`jit_viewer`'s result."""
    text, vision = layout.model.text, layout.model.vision
    cells = 2 * layout.model.cells(*shape.image)
    row = _rows(layout, jnp.dtype(layout.model.compute_dtype))
    return SeenImages(
        tokens=row(cells, text.width), deepstack=row(len(vision.deepstack), cells, text.width)
    )


def answer_shapes(layout: Layout) -> tuple[Rollout, jax.ShapeDtypeStruct]:
    """`jit_sampler`'s result, and the rewards as `experience.learned_reward` gives them."""
    group, length = layout.cfg.rollout.group, layout.cfg.rollout.max_tokens
    numbers, flags = _rows(layout, jnp.int32), _rows(layout, jnp.bool_)
    floats = _rows(layout, jnp.float32)
    rollout = Rollout(
        tokens=numbers(group, length),
        valid=flags(group, length),
        ended=flags(group),
        logp=floats(group, length),
    )
    parts = (len(layout.cfg.reward.parts),) if layout.cfg.grpo.advantage == "parts" else ()
    return rollout, floats(group, *parts)


def _rows(layout: Layout, dtype, *, rows: int = 0) -> Callable[..., jax.ShapeDtypeStruct]:
    """Shapes [B, ...] of a step's rows (0: its pairs), spread as they come."""
    pairs, where = rows or layout.cfg.pairs_per_step, sharding.batch_sharding(layout.mesh)
    return lambda *shape: jax.ShapeDtypeStruct((pairs, *shape), dtype, sharding=where)


def _key(layout: Layout) -> jax.ShapeDtypeStruct:
    key = jax.eval_shape(lambda: jax.random.key(0))
    return jax.ShapeDtypeStruct(key.shape, key.dtype, sharding=sharding.replicated(layout.mesh))
