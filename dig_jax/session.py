"""What every entry point needs before it can run: model, prompt, weights, on one mesh.

Everything that can be wrong with a configuration, a checkpoint folder or the data is found
here, before anything is compiled.
"""

from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import partial, wraps

import jax
import numpy as np
from jax.sharding import Mesh

from dig_jax import prompt as prompts
from dig_jax import sharding
from dig_jax.config import Config
from dig_jax.data.pipeline import check_data
from dig_jax.model import attention, hf
from dig_jax.model.params import ModelConfig, Params, model_specs


@dataclass(frozen=True)
class Session:
    """The statics of a run."""

    cfg: Config
    mesh: Mesh
    model: ModelConfig
    processor: prompts.Processor
    prompt: prompts.PromptInputs  # one row: all pairs share size and question

    def prompt_rows(self, pairs: int) -> prompts.PromptInputs:
        """The prompt repeated for a batch, spread over the mesh like the pairs."""
        return sharding.shard_global(prompts.repeat_prompt(self.prompt, pairs), self.mesh)

    @property
    def shardings(self) -> dict:
        return sharding.param_shardings(model_specs(self.model), self.mesh)

    def traced(self, function: Callable) -> Callable:
        """`function` for `jax.jit`, such that kernels that XLA cannot partition see the mesh."""
        if self.mesh.size == 1:
            return function

        @wraps(function)
        def on_mesh(*args, **kwargs):
            with jax.sharding.use_abstract_mesh(self.mesh.abstract_mesh):
                return function(*args, **kwargs)

        return on_mesh

    def texts(self, tokens: np.ndarray, lengths: np.ndarray) -> list:
        return prompts.decode_answers(self.processor, tokens, lengths)


def open_session(cfg: Config, *, source: str | None = None) -> Session:
    """Check and bind everything static.

    source  checkpoint folder to use instead of cfg.model.source

    Raises FileNotFoundError or ValueError naming the field or file.
    """
    source = source or cfg.model.source
    mesh = sharding.make_mesh(cfg.mesh)
    model = _computed_as(cfg, hf.read_model_config(source), mesh)
    size = (cfg.data.image_height, cfg.data.image_width)
    model.check_image(*size)
    check_data(cfg)
    processor = prompts.load_processor(source)
    prompt = prompts.make_prompt(cfg.prompt, processor, model, [[size, size]])
    return Session(cfg, mesh, model, processor, prompt)


def _computed_as(cfg: Config, model: ModelConfig, mesh: Mesh) -> ModelConfig:
    """The model with how to compute it on these devices."""
    chosen = attention.choose(
        cfg.model.attention,
        platform=mesh.devices.flat[0].platform,
        dtype=cfg.model.compute_dtype,
        head_dims=(model.text.head_dim, model.vision.head_dim),
    )
    return replace(
        model,
        compute_dtype=cfg.model.compute_dtype,
        attention=chosen,
        remat=cfg.model.remat,
        layers=cfg.model.layers,
    )


def load_weights(session: Session, source: str | None = None) -> Params:
    """The checkpoint folder's weights, each placed on the mesh as it arrives."""
    shardings = session.shardings

    def place(path: str, array: np.ndarray) -> jax.Array:
        target = shardings
        for part in path.split("/"):
            target = target[part]
        return jax.make_array_from_callback(
            array.shape, target, partial(np.ndarray.__getitem__, array)
        )

    return hf.load_params(source or session.cfg.model.source, session.model, place=place)
