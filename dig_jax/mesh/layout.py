"""A model on a mesh: what its arrays are, and where they live while training and answering."""

from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import cached_property, wraps
from typing import Any

import jax
from jax.sharding import Mesh

from dig_jax.config import Config
from dig_jax.learner.trainable import is_below, trained_names
from dig_jax.mesh import sharding
from dig_jax.model.config import ModelConfig
from dig_jax.model.params import Params, param_shapes
from dig_jax.model.specs import model_specs

# Weights are gathered whole for a layer, not matrix by matrix in as many small products as there
# are devices.
TPU_OPTIONS = {"xla_jf_spmd_threshold_for_windowed_einsum_mib": 1_000_000}


@dataclass(frozen=True)
class Layout:
    """The statics of every compiled program of a run."""

    cfg: Config
    mesh: Mesh
    model: ModelConfig

    @cached_property
    def shapes(self) -> Params:
        """Of all parameters, adapters included."""
        return param_shapes(model_specs(self.model))

    @cached_property
    def shardings(self) -> dict:
        """Where parameters live at rest and in the update."""
        return sharding.param_shardings(model_specs(self.model), self.mesh)

    @cached_property
    def trained(self) -> frozenset[str]:
        """Paths of the parameters that move."""
        return trained_names(self.cfg, self.shapes)

    @property
    def rollout_model(self) -> ModelConfig:
        """The model that answers: adapters are in its weights, which stay where they are."""
        layers, gpu = self.cfg.rollout.layers, self.mesh.devices.flat[0].platform == "gpu"
        unroll = layers == "unroll" or (layers == "auto" and gpu)
        layers = "unroll" if unroll else self.model.layers
        return replace(self.model, lora=None, split="heads", layers=layers)

    @property
    def tower_frozen(self) -> bool:
        """Whether all of the vision tower is: a step then sees its images once."""
        return not any(is_below(name, "vision") for name in self.trained)

    def jit(self, function: Callable, **options: Any) -> Callable:
        """`jax.jit`, such that kernels that XLA cannot partition see the mesh."""
        if self.mesh.devices.flat[0].platform == "tpu":
            options["compiler_options"] = TPU_OPTIONS
        return jax.jit(self.traced(function), **options)

    def traced(self, function: Callable) -> Callable:
        """`function` for `jax.jit`; see `jit`."""
        if self.mesh.size == 1:
            return function

        @wraps(function)
        def on_mesh(*args, **kwargs):
            with jax.sharding.use_abstract_mesh(self.mesh.abstract_mesh):
                return function(*args, **kwargs)

        return on_mesh
