"""A run's weights where there is no run: for exports, benchmarks and servers."""

import dataclasses
from dataclasses import dataclass
from pathlib import Path

from dig_jax.common.addresses import is_remote
from dig_jax.config import Config, from_json
from dig_jax.hf import weights
from dig_jax.model import lora
from dig_jax.model.config import ModelConfig
from dig_jax.model.params import Params
from dig_jax.run import best, checkpoint
from dig_jax.run.session import with_adapters


@dataclass(frozen=True)
class Trained:
    """A run's checkpoint as its files hold it."""

    cfg: Config
    step: int
    source: str  # the folder the run started from: configuration, tokenizer, template
    model: ModelConfig
    best: bool = False  # the weights that validated best instead of a checkpoint's

    def read(self, like: Params) -> Params:
        """The part of the parameters that `like` names, placed as it says; adapters merged."""
        adapted = with_adapters(self.cfg, self.model)
        wanted = like | lora.adapters_of(like, adapted)
        if self.best:
            return lora.merge(best.load_best(checkpoint.root_of(self.cfg), wanted), adapted)
        return lora.merge(checkpoint.restore_params(self.cfg, wanted, self.step), adapted)


def open_run(
    run: str | Path,
    *,
    step: int | None = None,
    source: str | None = None,
    from_best: bool = False,
) -> Trained:
    """A checkpoint of a run, the newest unless `step` is given; weights are not read yet.

    run         its folder, or the folder or gs:// address that checkpoint.root named
    from_best   the weights that validated best, instead of a checkpoint
    source      folder with config.json and tokenizer, instead of the run's model.source

    Raises FileNotFoundError when there is no checkpoint or no source folder.
    """
    root = checkpoint.find_root(run)
    if from_best:
        cfg, step = from_json(best.best_config(root)), best.read_best(root)["step"]
    else:
        cfg = checkpoint.saved_config(root, step)
        step = checkpoint.latest_step(root) if step is None else step
    keeping = dataclasses.replace(cfg.checkpoint, root="" if root == str(run) else root)
    if is_remote(run):
        keeping, run = dataclasses.replace(cfg.checkpoint, root=root), cfg.run_dir
    cfg = dataclasses.replace(cfg, run_dir=str(run), checkpoint=keeping)
    folder = source or cfg.model.source
    if not is_remote(folder) and not Path(folder).is_dir():
        raise FileNotFoundError(
            f"{folder}, which the run started from, does not exist here; give --source FOLDER with "
            f"its config.json and tokenizer files"
        )
    return Trained(cfg, step, folder, weights.read_model_config(folder), from_best)
