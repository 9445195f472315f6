"""A run as a Hugging Face folder, and such a folder as Orbax arrays."""

import dataclasses
import json
from dataclasses import dataclass
from pathlib import Path

from dig_jax.common.addresses import check_plain, is_remote
from dig_jax.common.files import write_json
from dig_jax.common.typed import to_plain
from dig_jax.config import Config, config_hash, from_json
from dig_jax.convert.card import card_text
from dig_jax.convert.compare import Side, read_one, restored
from dig_jax.hf import settings, weights
from dig_jax.hf.export import check_target, copy_companions, new_folder
from dig_jax.model import lora
from dig_jax.model.config import ModelConfig
from dig_jax.model.params import Params
from dig_jax.model.specs import model_specs, named_specs
from dig_jax.run import arrays, best, checkpoint
from dig_jax.run.runlog import progress
from dig_jax.run.session import with_adapters

ORIGIN = "dig_jax.json"  # in a folder we made: from which checkpoint


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


def export(
    trained: Trained,
    out: str | Path,
    *,
    dtype: str,
    overwrite: bool,
    shard_bytes: int = weights.SHARD_BYTES,
) -> None:
    """Writes a Hugging Face folder with the source's tokenizer, template and processor files.

    Raises FileExistsError where `out` is taken (with `overwrite`: by anything but a checkpoint
    folder) or is the folder the run started from.
    """
    check_out(out, trained.source, overwrite=overwrite)
    origin = {"run": trained.cfg.name, "step": trained.step, "source": trained.source}
    origin |= {"dtype": dtype, "config_hash": config_hash(trained.cfg)}
    origin |= {"config": to_plain(trained.cfg)}
    card = card_text(trained.cfg, trained.step, source=trained.source, dtype=dtype)
    specs = dict(named_specs(model_specs(trained.model)))
    weights.save_hf(
        out,
        lambda name: read_one(trained.read, name, specs[name]),
        trained.model,
        source_folder=trained.source,
        dtype=dtype,
        shard_bytes=shard_bytes,
        # the source's own card would speak for these weights
        files={ORIGIN: json.dumps(origin, indent=2) + "\n", "README.md": card},
        progress=progress,
    )


def import_folder(source: str, out: str | Path, *, dtype: str, overwrite: bool) -> None:
    """Writes a Hugging Face folder's weights by Orbax in our layout, with its companions.

    Every `model.source` may name the result. It appears only when it is whole.
    """
    check_out(out, source, overwrite=overwrite)
    check_plain("--out", out)
    model = weights.read_model_config(source)
    with new_folder(Path(out)) as partial_folder:
        params = weights.load_params(source, model, dtype=dtype, progress=progress)
        arrays.save_params(partial_folder, params)
        base = copy_companions(source, partial_folder)
        # written anew: a tie flag that the weights had to settle is settled
        write_json(
            partial_folder / "config.json", settings.to_json(model, dtype, base=base), indent=2
        )
        write_json(partial_folder / ORIGIN, {"imported": source, "dtype": dtype}, indent=2)


def check_out(out: str | Path, source: str, *, overwrite: bool) -> None:
    """Raises FileExistsError unless `out` is free or may be replaced, and is not the source.

    Raises ValueError for an address: what is written must appear whole, by a rename.
    """
    if is_remote(out):
        raise ValueError(
            f"--out {out} is an address; write to a folder of this machine, and copy that by "
            f"`gcloud storage rsync --recursive FOLDER {out}`"
        )
    out = Path(out)
    if not is_remote(source) and out.resolve() == Path(source).resolve():
        raise FileExistsError(f"{out} is the folder the run started from; name another --out")
    check_target(out)
    if out.is_dir() and any(out.iterdir()) and not overwrite:
        raise FileExistsError(f"{out} exists; name another --out, or add --overwrite")


def run_side(trained: Trained) -> Side:
    """A run's checkpoint, to be compared with a folder."""
    each = restored(trained.read, trained.model)
    return Side(f"step {trained.step}", trained.source, trained.model, each)
