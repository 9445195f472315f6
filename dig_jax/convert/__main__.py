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
import sys
from collections.abc import Callable
from functools import partial
from pathlib import Path

import jax

from dig_jax.common.commandline import place_of, within
from dig_jax.convert.compare import compare, folder_side
from dig_jax.convert.folders import export, import_folder, run_side
from dig_jax.hf import weights
from dig_jax.run.trained import open_run


def parse_args(argv: list[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    commands = parser.add_subparsers(dest="command", required=True)
    out = commands.add_parser("export", help="write a run's checkpoint as a Hugging Face folder")
    out.add_argument(
        "--run", type=place_of, required=True, metavar="RUN_DIR", help="or its checkpoint.root"
    )
    out.add_argument("--dtype", default="float32", choices=("float32", "bfloat16", "float16"))
    out.add_argument(
        "--shard-gb",
        type=within(float, 1e-6, 1e6),
        default=weights.SHARD_BYTES / 1e9,
        help="of a file, at most",
    )
    into = commands.add_parser("import", help="write a Hugging Face folder's weights by Orbax")
    into.add_argument(
        "--source", type=place_of, required=True, help="Hugging Face folder, or a gs:// address"
    )
    into.add_argument("--dtype", default="float32", choices=("float32", "bfloat16"))
    for command in (out, into):
        command.add_argument("--out", type=place_of, required=True, metavar="FOLDER")
        command.add_argument("--overwrite", action="store_true", help="replace an earlier one")
    back = commands.add_parser("check", help="compare a folder with a run or another folder")
    back.add_argument("folder", type=place_of, metavar="FOLDER")
    back.add_argument(
        "--run", type=place_of, metavar="RUN_DIR", help="whose checkpoint it should be"
    )
    for command in (out, back):
        which = command.add_mutually_exclusive_group()
        which.add_argument(
            "--step", type=within(int, 0, 10**6), help="of the checkpoint; default: the newest"
        )
        which.add_argument(
            "--from-best", action="store_true", help="the weights that validated best in the run"
        )
        command.add_argument(
            "--source",
            type=place_of,
            help="tokenizer folder instead of the run's; without --run, the other side",
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
    except (OSError, ValueError) as error:
        print(f"convert: {error}", file=sys.stderr)
        return 1
    return 0


def _megabytes(folder: str) -> str:
    size = sum(path.stat().st_size for path in Path(folder).rglob("*") if path.is_file())
    return f"{size / 1e6:.1f} MB"


if __name__ == "__main__":
    sys.exit(main())
