"""FLOPs: of a pair by formula, as MFU counts them, and of a traced program as it computes them.

A multiplication and an addition are two. Matrix products alone are counted: they are all but all
of the arithmetic, and what an accelerator's peak is quoted for.
"""

import math
from collections.abc import Callable
from typing import Any

import jax
from jax.extend import core

from dig_jax.model.config import ModelConfig
from dig_jax.model.params import count
from dig_jax.model.specs import model_specs


def forward_flops(model: ModelConfig, *, prompt: int, length: int, answers: int) -> float:
    """Of one pair through the text decoder: the prompt once, its answers beside one another.

    prompt   P tokens, images included
    length   R tokens of each answer
    answers  G

    2 x (block parameters) x (P + G R)  +  2 x vocabulary x width x G R
    +  2 L A (P^2 + G (2 P R + R^2)), where A is query heads x head size of the L blocks: half of
    all products of queries and keys, as causality leaves them.
    """
    c, tokens = model.text, prompt + answers * length
    attended = prompt**2 + answers * (2 * prompt * length + length**2)
    return (
        2 * block_parameters(model) * tokens
        + 2 * c.vocab * c.width * answers * length
        + 2 * c.layers * c.heads * c.head_dim * attended
    )


def tower_flops(model: ModelConfig, cells: int, images: int) -> float:
    """Of `images` through the vision tower, each of `cells` merged tokens; attention is full.

    2 x (parameters of a patch) x patches  +  2 x (those of the mergers) x cells
    +  4 x depth x width x patches^2  of each image. The position table's resampling is left out.
    """
    c, specs = model.vision, model_specs(model)["vision"]
    patches = cells * c.merge**2
    by_patch = count({name: specs[name] for name in ("patch", "blocks")})
    by_cell = count({name: specs[name] for name in ("merger", "deepstack") if name in specs})
    attended = 4 * c.depth * c.width * patches**2
    return images * (2 * by_patch * patches + 2 * by_cell * cells + attended)


def block_parameters(model: ModelConfig) -> int:
    """Of the text decoder's blocks alone."""
    return count(model_specs(model)["blocks"])


def traced_flops(function: Callable, *shapes: Any, turns: float | None = None) -> float:
    """Of all matrix products that a function computes, recomputation and masked parts included.

    shapes  trees of arrays or `jax.ShapeDtypeStruct`; nothing is computed
    turns   how often a loop runs whose end only the data know, such as that over packed answers

    Loops count as often as they run. Raises ValueError at a loop whose end is not known before it
    runs, unless `turns` says it, and at a kernel that is no matrix product of XLA's.
    """
    traced = (function if hasattr(function, "trace") else jax.jit(function)).trace(*shapes)
    return _of_program(traced.jaxpr.jaxpr, turns)


def _of_program(program: core.Jaxpr, turns: float | None) -> float:
    return sum(_of_equation(equation, turns) for equation in program.eqns)


def _of_equation(equation: core.JaxprEqn, turns: float | None) -> float:
    name, how = equation.primitive.name, equation.params
    if name == "dot_general":
        (contracted, _), _ = how["dimension_numbers"]
        inner = math.prod(equation.invars[0].aval.shape[axis] for axis in contracted)
        return 2.0 * math.prod(equation.outvars[0].aval.shape) * inner
    if name == "scan":
        return how["length"] * _of_program(how["jaxpr"].jaxpr, turns)
    if name == "cond":
        return max(_of_program(branch.jaxpr, turns) for branch in how["branches"])
    if name == "while" and turns is not None:
        return turns * _of_program(how["body_jaxpr"].jaxpr, turns)
    if name in ("while", "pallas_call", "conv_general_dilated"):
        raise ValueError(f"FLOPs of {name!r} are not known from its shapes; trace what has none")
    return sum(_of_program(inner, turns) for inner in _inside(how))


def _inside(how: dict) -> list[core.Jaxpr]:
    """Programs among an equation's parameters: of jit, remat, functions with own gradients."""
    found = [value for value in how.values() if isinstance(value, core.Jaxpr | core.ClosedJaxpr)]
    return [getattr(one, "jaxpr", one) for one in found]
