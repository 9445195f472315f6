"""Checkpoints between Hugging Face folders and ours, both ways, and whether two are the same.

    python -m dig_jax.convert export --run runs/tiny --out runs/tiny/hf [--dtype bfloat16]
    python -m dig_jax.convert check runs/tiny/hf --run runs/tiny
    python -m dig_jax.convert import --source FOLDER --out data/base [--dtype bfloat16]
    python -m dig_jax.convert check data/base --source FOLDER

An export is for transformers, vLLM, or the next run. An import is for pods: `model.source` takes
its folder too, and every process then reads its own shards instead of whole tensors. `check`
reads a folder back as any user of it would. All run on the CPU: a conversion needs memory (an
export's one parameter and one shard, an import's the whole model), no accelerator.
"""

import argparse
import dataclasses
import json
import sys
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import jax

from dig_jax import best, checkpoint
from dig_jax.addresses import is_remote
from dig_jax.card import card_text
from dig_jax.compare import Side, compare, folder_side, read_one, restored
from dig_jax.config import Config, config_hash, from_json
from dig_jax.model import hf, hf_config, lora
from dig_jax.model.hf_export import check_target, copy_companions, new_folder
from dig_jax.model.hf_files import write_json
from dig_jax.model.params import ModelConfig, Params, model_specs, named_specs
from dig_jax.runlog import progress
from dig_jax.session import with_adapters
from dig_jax.typed import to_plain

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
    return Trained(cfg, step, folder, hf.read_model_config(folder), from_best)


def export(
    trained: Trained,
    out: str | Path,
    *,
    dtype: str,
    overwrite: bool,
    shard_bytes: int = hf.SHARD_BYTES,
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
    hf.save_hf(
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
    check_target(Path(out))
    model = hf.read_model_config(source)
    with new_folder(Path(out)) as partial_folder:
        params = hf.load_params(source, model, dtype=dtype, progress=progress)
        checkpoint.save_params(partial_folder, params)
        base = copy_companions(source, partial_folder)
        # written anew: a tie flag that the weights had to settle is settled
        write_json(partial_folder / "config.json", hf_config.to_json(model, dtype, base=base))
        write_json(partial_folder / ORIGIN, {"imported": source, "dtype": dtype})


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
    if out.is_file() or (out.is_dir() and any(out.iterdir()) and not overwrite):
        raise FileExistsError(f"{out} exists; name another --out, or add --overwrite")


def run_side(trained: Trained) -> Side:
    """A run's checkpoint, to be compared with a folder."""
    each = restored(trained.read, trained.model)
    return Side(f"step {trained.step}", trained.source, trained.model, each)


def parse_args(argv: list[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    commands = parser.add_subparsers(dest="command", required=True)
    out = commands.add_parser("export", help="write a run's checkpoint as a Hugging Face folder")
    out.add_argument("--run", required=True, metavar="RUN_DIR", help="or its checkpoint.root")
    out.add_argument("--dtype", default="float32", choices=("float32", "bfloat16", "float16"))
    out.add_argument(
        "--shard-gb", type=float, default=hf.SHARD_BYTES / 1e9, help="of a file, at most"
    )
    into = commands.add_parser("import", help="write a Hugging Face folder's weights by Orbax")
    into.add_argument("--source", required=True, help="Hugging Face folder, or a gs:// address")
    into.add_argument("--dtype", default="float32", choices=("float32", "bfloat16"))
    for command in (out, into):
        command.add_argument("--out", required=True, metavar="FOLDER")
        command.add_argument("--overwrite", action="store_true", help="replace an earlier one")
    back = commands.add_parser("check", help="compare a folder with a run or another folder")
    back.add_argument("folder", metavar="FOLDER")
    back.add_argument("--run", metavar="RUN_DIR", help="whose checkpoint it should be")
    for command in (out, back):
        which = command.add_mutually_exclusive_group()
        which.add_argument("--step", type=int, help="of the checkpoint; default: the newest")
        which.add_argument(
            "--from-best", action="store_true", help="the weights that validated best in the run"
        )
        command.add_argument(
            "--source", help="tokenizer folder instead of the run's; without --run, the other side"
        )
    args = parser.parse_args(argv)
    if args.command == "check" and not (args.run or args.source):
        parser.error("check needs --run RUN_DIR or --source FOLDER: what should it equal?")
    return args


def run_check(args: argparse.Namespace) -> str:
    other = partial(folder_side, args.source)
    if args.run:
        trained = open_run(args.run, step=args.step, source=args.source, from_best=args.from_best)
        other = partial(run_side, trained)
    return f"{args.folder}: {compare(folder_side(args.folder), other())}"


def run_export(args: argparse.Namespace) -> str:
    trained = open_run(args.run, step=args.step, source=args.source, from_best=args.from_best)
    size = round(args.shard_gb * 1e9)
    export(trained, args.out, dtype=args.dtype, overwrite=args.overwrite, shard_bytes=size)
    return f"{args.out}: step {trained.step} in {args.dtype}, {_megabytes(args.out)}"


def run_import(args: argparse.Namespace) -> str:
    import_folder(args.source, args.out, dtype=args.dtype, overwrite=args.overwrite)
    return f"{args.out}: {args.source} in {args.dtype}, {_megabytes(args.out)}"


COMMANDS: dict[str, Callable[[argparse.Namespace], str]] = {
    "check": run_check,
    "export": run_export,
    "import": run_import,
}


def main(argv: list[str] | None = None) -> int:
    args = parse_args(argv)
    jax.config.update("jax_platforms", "cpu")
    try:
        print(COMMANDS[args.command](args))
    except (FileNotFoundError, FileExistsError, ValueError) as error:
        print(f"convert: {error}", file=sys.stderr)
        return 1
    return 0


def _megabytes(folder: str) -> str:
    size = sum(path.stat().st_size for path in Path(folder).rglob("*") if path.is_file())
    return f"{size / 1e6:.1f} MB"


if __name__ == "__main__":
    sys.exit(main())
