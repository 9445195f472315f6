"""Does a run fit a slice? Compiles its programs for devices that are not there, and adds up.

    python -m tpu.preflight --slice v5e-16 --model 8B --config configs/pod_8b.py [--fast]

Compiles the update, rollout, reshard and vision programs of `dig_jax.mesh.programs` for the slice
and adds what else lives on a device meanwhile. Exits with 1 where a phase does not fit. A compile
says that a program exists and what memory it takes, not that it runs, nor how fast.
"""

import argparse
import importlib.util
import json
import math
import os
import subprocess
import sys
from dataclasses import asdict

from dig_jax.common import typed
from dig_jax.common.commandline import clear_errors, place_of
from dig_jax.config import Config, load_config, to_json
from dig_jax.config.commandline import add_config_arguments
from dig_jax.hf import weights
from dig_jax.mesh.layout import Layout
from dig_jax.model.config import ModelConfig
from dig_jax.model.sizes import released
from dig_jax.run.session import with_adapters
from tpu import gpu_target, slices
from tpu.compile_phase import MARK, Request, Result
from tpu.phases import NAMES, PromptShape, names_of
from tpu.prompt_shape import prompt_shape
from tpu.table import HEADING, explain, fits, row

LIBTPU = "libtpu is not installed here; install it with: pip install -c constraints.txt -e '.[tpu]'"
CUDA = "JAX's CUDA plugin is not installed here; install it with: pip install -e '.[cuda]'"


def parse(argv: list[str] | None = None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--slice", required=True, help=", ".join(slices.names()))
    parser.add_argument("--model", default="", help="2B, 4B, 8B or 32B; else the config's folder")
    add_config_arguments(parser)
    parser.add_argument("--phase", action="append", choices=NAMES, help="repeatable; all if none")
    parser.add_argument("--fast", action="store_true", help="without XLA's optimiser")
    parser.add_argument("--keep", type=place_of, metavar="D", help="folder for the programs' texts")
    return parser.parse_args(argv)


def fit_config(cfg: Config, on: slices.Slice, settings: list[str]) -> tuple[Config, list[str]]:
    """The config on a slice's mesh with `settings`, and what took it there beside those.

    A mesh that already has the slice's devices, or that `settings` name, stays. Pairs are raised
    to one per device and gradient slice where they are fewer and `settings` do not name them.
    All at once: with settings alone it may be no valid config of the mesh it came with.
    """
    named = {name: value for name, _, value in (one.partition("=") for one in settings)}
    shape = (cfg.mesh.fsdp, cfg.mesh.tensor)
    changes = []
    if shape[0] * shape[1] != on.devices and not named.keys() & {"mesh.fsdp", "mesh.tensor"}:
        shape = on.mesh
        changes += [f"mesh.fsdp={shape[0]}", f"mesh.tensor={shape[1]}"]
    slices_of = {"minibatches": cfg.grpo.minibatches, "accumulate": cfg.grpo.accumulate}
    found = {name: named.get(f"grpo.{name}", str(number)) for name, number in slices_of.items()}
    parts = math.prod(int(number) for number in found.values() if number.isdigit())
    if cfg.pairs_per_step < on.devices * parts and "pairs_per_step" not in named:
        changes.append(f"pairs_per_step={on.devices * parts}")
    if cfg.eval.batch % shape[0] and "eval.batch" not in named:
        changes.append(f"eval.batch={shape[0]}")
    return typed.override(cfg, [*changes, *settings]), changes


def model_of(cfg: Config, size: str) -> ModelConfig:
    """The released model of a size, or that of cfg.model.source, with the config's adapters."""
    model = released(size.lower()) if size else weights.read_model_config(cfg.model.source)
    return with_adapters(cfg, model)


def request_of(args, cfg: Config, on: slices.Slice, phase: str, shape: PromptShape) -> Request:
    keep = os.path.join(args.keep, f"{on.name}_{phase}.txt") if args.keep else ""
    size = args.model.lower()
    return Request(on.name, phase, size, to_json(cfg), shape.tokens, shape.image, keep)


def run_compile(request: Request, *, fast: bool, seconds: float | None = None) -> Result:
    """`compile_phase` in a child; what ends the child, after `seconds` too, is the problem."""
    # JAX's own backend stays the CPU; libtpu is neither to look for a pod nor to lock itself
    extra = {"JAX_PLATFORMS": "cpu", "TPU_SKIP_MDS_QUERY": "1", "ALLOW_MULTIPLE_LIBTPU_LOAD": "1"}
    extra |= {"TF_CPP_MIN_LOG_LEVEL": "1"}  # warnings are counted
    if fast:
        extra["JAX_OPTIMIZATION_LEVEL"] = "O0"
    if slices.find(request.slice).gpu:
        extra["XLA_FLAGS"] = "--xla_gpu_autotune_level=0"  # there is no GPU to time kernels on
    try:
        done = subprocess.run(
            [sys.executable, "-m", "tpu.compile_phase"],
            input=json.dumps(asdict(request)),
            env={**os.environ, **extra},
            capture_output=True,
            text=True,
            timeout=seconds,
        )
    except subprocess.TimeoutExpired:
        return Result(request.phase, problem=f"no program after {seconds:.0f} s")
    lines = [line for line in done.stdout.splitlines() if line.startswith(MARK)]
    if lines:
        result = Result(**json.loads(lines[-1].removeprefix(MARK)))
        result.warnings = done.stderr.count("Involuntary full rematerialization")
        return result
    tail = "\n".join(done.stderr.splitlines()[-15:])
    return Result(
        request.phase, problem=f"the compiler's process ended with {done.returncode}:\n{tail}"
    )


def main(argv: list[str] | None = None) -> int:
    args = parse(argv)
    with clear_errors():
        on = slices.find(args.slice)
        cfg, changes = fit_config(load_config(args.config, []), on, args.settings)
        model, shape = model_of(cfg, args.model), prompt_shape(cfg, args.model)
        pairs = slice_rows(cfg)
        slices.check_mesh(on, (cfg.mesh.fsdp, cfg.mesh.tensor), model, pairs)
        check_compiler(on)
        if args.keep:
            os.makedirs(args.keep, exist_ok=True)
    seen = Layout(cfg, mesh=None, model=model).tower_frozen
    names = [n for n in names_of(cfg, seen=seen) if n in (args.phase or NAMES)]
    mesh = f"mesh {cfg.mesh.fsdp} x {cfg.mesh.tensor}, {rows_text(cfg)} a step"
    print(f"{args.model or cfg.model.source} on {on.name}: {on.devices} devices, {mesh}")
    if changes:
        print("train with", " ".join(f"--set {change}" for change in changes))
    print(HEADING, flush=True)
    results = []
    for name in names:
        results.append(run_compile(request_of(args, cfg, on, name, shape), fast=args.fast))
        print(row(results[-1], on), flush=True)
    over = [result for result in results if not fits(result, on)]
    for result in over:
        print(explain(result, cfg))
    return 1 if over else 0


def rows_text(cfg: Config) -> str:
    """ "16 pairs and 8 questions": what a step learns from."""
    if cfg.learner != "sft":
        return f"{cfg.pairs_per_step} pairs"
    counts = {"pairs": cfg.pairs_per_step if cfg.sft.pairs_weight else 0}
    counts["questions"] = cfg.sft.questions_per_step
    return " and ".join(f"{count} {name}" for name, count in counts.items() if count)


def slice_rows(cfg: Config) -> int:
    """Rows of a gradient slice, which the mesh has to divide."""
    if cfg.learner != "sft":
        return cfg.pairs_per_step // (cfg.grpo.minibatches * cfg.grpo.accumulate)
    rows = cfg.pairs_per_step if cfg.sft.pairs_weight else cfg.sft.questions_per_step
    return rows // cfg.sft.accumulate


def check_compiler(on: slices.Slice) -> None:
    """Raises ValueError, with the command to install it, where the slice's compiler is missing."""
    if on.gpu:
        if not gpu_target.plugin_installed():
            raise ValueError(CUDA)
    elif importlib.util.find_spec("libtpu") is None:
        raise ValueError(LIBTPU)


if __name__ == "__main__":
    sys.exit(main())
