"""Parameters as a nested dict with the structure of the table: shapes, casts, fresh ones."""

import math

import jax
import jax.numpy as jnp

from dig_jax.model.config import ModelConfig
from dig_jax.model.specs import Spec, is_spec, model_specs, named_specs

Params = dict  # nested dict of arrays with the structure of `model_specs`


def param_shapes(specs: dict) -> Params:
    """`jax.ShapeDtypeStruct` f32 of every parameter."""
    return jax.tree.map(
        lambda s: jax.ShapeDtypeStruct(s.shape, jnp.float32), specs, is_leaf=is_spec
    )


def placed_shapes(c: ModelConfig, shardings: dict) -> Params:
    """`param_shapes` with a jax Sharding each: what a checkpoint is restored like."""
    return jax.tree.map(
        lambda s, where: jax.ShapeDtypeStruct(s.shape, s.dtype, sharding=where),
        param_shapes(model_specs(c)),
        shardings,
    )


def answering(params: Params, c: ModelConfig) -> Params:
    """The parameters in `c.compute_dtype` wherever the model casts them before it uses them.

    It computes the same numbers to the bit, and reads half the bytes in bfloat16. Norms and the
    table of positions are used in float32 and stay.
    """

    def cast(spec: Spec, leaf: jax.Array) -> jax.Array:
        wide = not {"norm", "positions"}.isdisjoint(spec.axes)
        return leaf if wide else leaf.astype(c.compute_dtype)

    return jax.tree.map(cast, model_specs(c), params, is_leaf=is_spec)


def init_params(specs: dict, *, key: jax.Array, scale: float = 0.02) -> Params:
    """Fresh float32 parameters: normal(0, scale), zeros or ones as each row says.

    The key of a row is folded from its place in the table, so adding a row at the end
    leaves the others as they were.
    """
    rows = list(named_specs(specs))
    leaves = []
    for i, (name, spec) in enumerate(rows):
        if spec.init == "normal":
            leaves.append(scale * jax.random.normal(jax.random.fold_in(key, i), spec.shape))
        elif spec.init in ("ones", "zeros"):
            leaves.append(getattr(jnp, spec.init)(spec.shape, jnp.float32))
        else:
            raise ValueError(f"{name}: unknown init {spec.init!r}; use normal, ones or zeros")
    return jax.tree.unflatten(jax.tree.structure(specs, is_leaf=is_spec), leaves)


def count(specs: dict) -> int:
    """Number of parameters; a tied head counts once."""
    return sum(math.prod(spec.shape) for _, spec in named_specs(specs))
