"""Checkpoints of a run as Hugging Face folders, for transformers, vLLM, or the next run.

    python -m dig_jax.convert export --run runs/tiny --out runs/tiny/hf [--dtype bfloat16]
    python -m dig_jax.convert check runs/tiny/hf --run runs/tiny

`check` reads the folder back as any user of it would and compares it with the checkpoint.
Both run on the CPU: a conversion needs memory, no accelerator.
"""

import argparse
import dataclasses
import json
import sys
from dataclasses import dataclass
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np

from dig_jax import checkpoint
from dig_jax.config import Config, config_hash
from dig_jax.model import hf
from dig_jax.model.params import ModelConfig, Params, model_specs, named_specs, param_shapes
from dig_jax.model.qwen3vl import full_logits
from dig_jax.prompt import load_processor, make_prompt
from dig_jax.runlog import write_whole
from dig_jax.session import image_size
from dig_jax.typed import to_plain

ORIGIN = "dig_jax.json"  # in an exported folder: which checkpoint it is


@dataclass(frozen=True)
class Trained:
    """A run's checkpoint as its files hold it."""

    cfg: Config
    step: int
    source: Path  # the folder the run started from: configuration, tokenizer, template
    model: ModelConfig


def open_run(run: str | Path, *, step: int | None = None, source: str | None = None) -> Trained:
    """A checkpoint of a run, the newest unless `step` is given; weights are not read yet.

    source   folder with config.json and tokenizer, instead of the run's model.source

    Raises FileNotFoundError when there is no checkpoint or no source folder.
    """
    cfg = checkpoint.saved_config(run, step)
    cfg = dataclasses.replace(cfg, run_dir=str(run))
    step = checkpoint.latest_step(run) if step is None else step
    folder = Path(source or cfg.model.source)
    if not folder.is_dir():
        raise FileNotFoundError(
            f"{folder}, which the run started from, does not exist here; give --source FOLDER with "
            f"its config.json and tokenizer files"
        )
    return Trained(cfg, step, folder, hf.read_model_config(folder))


def read_weights(trained: Trained) -> Params:
    """Parameters f32 of the checkpoint on one device."""
    where = jax.sharding.SingleDeviceSharding(jax.local_devices()[0])
    like = jax.tree.map(
        lambda s: jax.ShapeDtypeStruct(s.shape, s.dtype, sharding=where),
        param_shapes(model_specs(trained.model)),
    )
    return checkpoint.restore_params(trained.cfg, like, trained.step)


def export(trained: Trained, out: str | Path, *, dtype: str, overwrite: bool) -> None:
    """Writes a Hugging Face folder with the source's tokenizer, template and processor files.

    Raises FileExistsError where `out` is taken (with `overwrite`: by anything but a checkpoint
    folder) or is the folder the run started from.
    """
    out = Path(out)
    if out.resolve() == trained.source.resolve():
        raise FileExistsError(f"{out} is the folder the run started from; name another --out")
    if out.is_file() or (out.is_dir() and any(out.iterdir()) and not overwrite):
        raise FileExistsError(f"{out} exists; name another --out, or add --overwrite")
    weights = read_weights(trained)
    hf.save_hf(out, weights, trained.model, source_folder=trained.source, dtype=dtype)
    origin = {"run": trained.cfg.name, "step": trained.step, "source": str(trained.source)}
    origin |= {"dtype": dtype, "config_hash": config_hash(trained.cfg)}
    origin |= {"config": to_plain(trained.cfg)}
    write_whole(out / ORIGIN, json.dumps(origin, indent=2) + "\n")
    write_whole(out / "README.md", _card(origin))  # else the source's card would speak for it


def _card(origin: dict) -> str:
    return (
        f"# {origin['run']}, step {origin['step']}\n\n"
        f"A Qwen3-VL that boxes the differences between two images, trained from "
        f"`{origin['source']}` by GRPO with dig_jax. Weights in {origin['dtype']}; the run's "
        f"whole configuration (hash {origin['config_hash']}) is in `{ORIGIN}`. The question it was "
        f"trained to answer, after the two images:\n\n"
        f"    {origin['config']['prompt']['question']}\n\n"
        f"Coordinates are integers in thousandths of the image's sides.\n"
    )


def check(folder: str | Path, trained: Trained) -> str:
    """Reads an exported folder back and compares it with the checkpoint; returns what it found.

    Raises ValueError naming the first parameter that is not the checkpoint's, rounded to the
    folder's dtype, or the setting that differs.
    """
    folder = Path(folder)
    model = hf.read_model_config(folder)
    for field in dataclasses.fields(model):
        theirs, ours = getattr(model, field.name), getattr(trained.model, field.name)
        if theirs != ours:
            raise ValueError(f"{folder}: {field.name} is {theirs}, the run's model has {ours}")
    dtype = json.loads((folder / "config.json").read_text())["dtype"]
    weights, loaded = read_weights(trained), hf.load_params(folder, model)
    names = [name for name, _ in named_specs(model_specs(model))]
    pairs = zip(names, jax.tree.leaves(weights), jax.tree.leaves(loaded), strict=True)
    for name, ours, theirs in pairs:
        wrong = int((np.asarray(ours.astype(dtype)) != np.asarray(theirs.astype(dtype))).sum())
        if wrong:
            raise ValueError(
                f"{folder}: {name} differs from step {trained.step} in {wrong} of {ours.size} "
                f"numbers; is the folder of another step? export it again with --overwrite"
            )
    gap, agree = _compare_logits(trained, folder, weights, loaded)
    return (
        f"{len(names)} parameters equal step {trained.step} in {dtype}; logits on a noise pair "
        f"differ by at most {gap:.2g} and agree on {agree:.0%} of next tokens"
    )


def _compare_logits(
    trained: Trained, folder: Path, ours: Params, theirs: Params
) -> tuple[float, float]:
    """Largest logit difference and share of equal argmax over one prompt of two noise images.

    The prompt is made by the tokenizer and template of `folder`, as its users will make theirs.
    """
    model = trained.model
    size = image_size(trained.cfg.data, str(folder), model)
    prompt = make_prompt(trained.cfg.prompt, load_processor(folder), model, [[size, size]])
    rng = np.random.default_rng(0)
    images = rng.integers(0, 256, (1, 2, *size, 3), np.uint8)
    run = jax.jit(lambda params: full_logits(params, model, prompt, images))
    a, b = run(ours), run(theirs)
    return float(jnp.abs(a - b).max()), float((a.argmax(-1) == b.argmax(-1)).mean())


def parse_args(argv: list[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    commands = parser.add_subparsers(dest="command", required=True)
    out = commands.add_parser("export", help="write a Hugging Face folder")
    out.add_argument("--out", required=True, metavar="FOLDER")
    out.add_argument("--dtype", default="float32", choices=("float32", "bfloat16", "float16"))
    out.add_argument("--overwrite", action="store_true", help="replace an earlier export")
    back = commands.add_parser("check", help="read a folder back, compare with the checkpoint")
    back.add_argument("folder", metavar="FOLDER")
    for command in (out, back):
        command.add_argument("--run", required=True, metavar="RUN_DIR")
        command.add_argument("--step", type=int, help="of the checkpoint; default: the newest")
        command.add_argument("--source", help="tokenizer folder, instead of the run's model.source")
    return parser.parse_args(argv)


def main(argv: list[str] | None = None) -> int:
    args = parse_args(argv)
    jax.config.update("jax_platforms", "cpu")
    try:
        trained = open_run(args.run, step=args.step, source=args.source)
        if args.command == "check":
            print(f"{args.folder}: {check(args.folder, trained)}")
            return 0
        export(trained, args.out, dtype=args.dtype, overwrite=args.overwrite)
    except (FileNotFoundError, FileExistsError, ValueError) as error:
        print(f"convert: {error}", file=sys.stderr)
        return 1
    size = sum(path.stat().st_size for path in Path(args.out).iterdir())
    print(f"{args.out}: step {trained.step} in {args.dtype}, {size / 1e6:.1f} MB")
    return 0


if __name__ == "__main__":
    sys.exit(main())
