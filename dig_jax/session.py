"""What every entry point needs before it can run: model, prompt, weights, on one mesh.

Everything that can be wrong with a configuration, a checkpoint folder or the data is found
here, before anything is compiled.
"""

from dataclasses import dataclass, replace

import numpy as np
from jax.sharding import Mesh

from dig_jax import checkpoint, sharding
from dig_jax import prompt as prompts
from dig_jax.config import Config
from dig_jax.data.pipeline import check_data
from dig_jax.model import hf
from dig_jax.model.hf_files import local_companions
from dig_jax.model.params import ModelConfig, Params, model_specs, placed_shapes
from dig_jax.runlog import progress


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

    def texts(self, tokens: np.ndarray, lengths: np.ndarray) -> list:
        return prompts.decode_answers(self.processor, tokens, lengths)


def open_session(cfg: Config, *, source: str | None = None) -> Session:
    """Check and bind everything static.

    source  checkpoint folder to use instead of cfg.model.source

    Raises FileNotFoundError or ValueError naming the field or file.
    """
    source = source or cfg.model.source
    mesh = sharding.make_mesh(cfg.mesh)
    model = replace(
        hf.read_model_config(source),
        compute_dtype=cfg.model.compute_dtype,
        remat=cfg.model.remat,
    )
    size = (cfg.data.image_height, cfg.data.image_width)
    model.check_image(*size)
    check_data(cfg)
    processor = prompts.load_processor(local_companions(source))
    prompt = prompts.make_prompt(cfg.prompt, processor, model, [[size, size]])
    return Session(cfg, mesh, model, processor, prompt)


def load_weights(session: Session, source: str | None = None) -> Params:
    """The checkpoint folder's weights f32, each placed on the mesh as it arrives.

    A folder made by `convert import` is read by Orbax: every process reads its shards alone.
    """
    source = source or session.cfg.model.source
    if checkpoint.has_params(source):
        return checkpoint.load_params(source, placed_shapes(session.model, session.shardings))
    return hf.load_params(
        source,
        session.model,
        shardings=session.shardings,
        progress=progress,
    )
