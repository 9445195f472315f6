"""A run as a Hugging Face folder, and such a folder as Orbax arrays."""

import json
from pathlib import Path

from dig_jax.common.addresses import check_plain, is_remote
from dig_jax.common.files import write_json
from dig_jax.common.typed import to_plain
from dig_jax.config import config_hash
from dig_jax.convert.card import card_text
from dig_jax.convert.compare import Side, read_one, restored
from dig_jax.hf import settings, weights
from dig_jax.hf.export import check_target, copy_companions, new_folder
from dig_jax.model.specs import model_specs, named_specs
from dig_jax.run import arrays
from dig_jax.run.runlog import progress
from dig_jax.run.trained import Trained

ORIGIN = "dig_jax.json"  # in a folder we made: from which checkpoint


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
