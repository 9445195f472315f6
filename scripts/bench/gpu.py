"""What one GPU makes of a training step, in one call: speed against its peaks, memory against plan.

    python3 -m scripts.bench.gpu --out OUT [--size 4B] [--seconds 540] [--parts update sample ...]

A released size with random weights (bfloat16 compute, float32 master weights and moments), every
phase of a step in a process of its own with what lives beside it: seconds, tokens a second, share
of the card's bandwidth and arithmetic, peak bytes. Beside them, on the host's other cores, runs
`tpu.preflight`'s compile for the same card, whose bytes the table compares; and a checkpoint of
the same shape is written, from which our sampler and Hugging Face's `generate` answer the same
prompts. Needs the package with jax[cuda13] (not bpy) and, for the last, torch.

Rows are printed as they come and kept in OUT/bench_gpu.json. A part that would begin after
--seconds is named as not run. It has never run on a GPU: docs/gpu.md.
"""

import argparse
import json
import os
import subprocess
import sys
import time
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np

from dig_jax.common import typed
from dig_jax.common.commandline import add_settings, clear_errors, place_of
from dig_jax.config import Config, load_config, to_json
from scripts.bench.gpu_parts.parts import MARK, Request, Result
from scripts.make.random_checkpoint import write_random
from tpu import compile_phase, preflight, slices
from tpu.phases import NAMES
from tpu.prompt_shape import prompt_shape

PLAIN = ("mesh.fsdp=1", "mesh.tensor=1", "rollout.compact=0", "grpo.minibatches=1",
         "grpo.accumulate=1", "grpo.answer_slices=1")  # fmt: skip
ROLLOUT = ("pairs_per_step=16", "eval.batch=16", "rollout.max_tokens=512", "rollout.chunk=256")
UPDATE = ("pairs_per_step=4", "eval.batch=4", "rollout.max_tokens=1024", "grpo.accumulate=4",
          "grpo.answer_slices=2")  # fmt: skip
GENERATE = ("pairs_per_step=8", "eval.batch=8", "rollout.max_tokens=256", "rollout.chunk=128")
SETTINGS = dict.fromkeys(("machine", "sample_scanned", *NAMES), ROLLOUT) | {
    "update": (*UPDATE, "grpo.packed=false"),
    "update_packed": UPDATE,
    "generate": GENERATE,
}
PARTS = ("machine", "update", "update_packed", "sample", "reshard", "view", "generate",
         "sample_scanned")  # fmt: skip
WHERE = Path(__file__).parents[2]
GIB = 2**30
HEADING = ("part", "s", "first call, s", "peak GiB", "preflight GiB", "off by", "figures")


@dataclass(frozen=True)
class Plan:
    """config of each part by its name; the card's name in `tpu.slices`, or "" for another"""

    size: str
    configs: dict[str, Config]
    card: str
    rounds: int
    ends: float  # time.monotonic
    work: Path

    def request(self, part: str) -> Request:
        cfg = self.configs[part]
        shape = prompt_shape(cfg, self.size)
        name = self.size.lower()
        return Request(part, name, to_json(cfg), shape.tokens, shape.image, self.rounds)

    @property
    def left(self) -> float:
        return self.ends - time.monotonic()


def make_plan(args: argparse.Namespace) -> Plan:
    cfg = load_config(args.config, [])
    configs = {
        part: typed.override(cfg, [*PLAIN, *settings, *args.settings])
        for part, settings in SETTINGS.items()
    }
    ends, work = time.monotonic() + args.seconds, Path(args.work or args.out)
    return Plan(args.size, configs, args.card or card(), args.rounds, ends, work)


def card() -> str:
    """What `nvidia-smi` calls this machine's GPU, as `tpu.slices` has it."""
    try:
        done = subprocess.run(["nvidia-smi", "-L"], capture_output=True, text=True, check=False)
    except FileNotFoundError:
        return ""
    found = [name for name in ("h100", "h200") if name in done.stdout.lower()]
    return found[0] if found else ""


def run_part(plan: Plan, part: str, module: tuple[str, ...]) -> Result | str:
    """What a child found, or why it did not."""
    if plan.left < 5:
        return "not run: no time was left"
    env = os.environ | {"XLA_PYTHON_CLIENT_MEM_FRACTION": "0.95", "HF_HUB_OFFLINE": "1"}
    try:
        done = subprocess.run(
            [sys.executable, "-m", *module],
            input=json.dumps(asdict(plan.request(part))),
            env=env, cwd=WHERE, capture_output=True, text=True, timeout=plan.left, check=False,
        )  # fmt: skip
    except subprocess.TimeoutExpired:
        return "stopped: it ran past --seconds"
    lines = [line for line in done.stdout.splitlines() if line.startswith(MARK)]
    if lines:
        return Result(**json.loads(lines[-1].removeprefix(MARK)))
    return f"failed with {done.returncode}: " + " | ".join(done.stderr.splitlines()[-4:])


def predict(plan: Plan, part: str) -> compile_phase.Result:
    """`tpu.preflight`'s compile of a phase for this card, on the host's cores."""
    asked = plan.request(part)
    request = compile_phase.Request(
        plan.card, part, asked.size, asked.config, asked.prompt_tokens, asked.image
    )
    return preflight.run_compile(request, fast=False, seconds=max(1.0, plan.left))


def write_checkpoint(plan: Plan) -> Path:
    """A folder of random weights of the plan's model, in the dtype that it computes in."""
    folder, cfg = plan.work / "checkpoint", plan.configs["generate"]
    if not (folder / "model.safetensors.index.json").exists():
        model = preflight.model_of(cfg, plan.size)
        write_random(folder, model, seed=0, dtype=cfg.model.compute_dtype)
    return folder


def row(part: str, result: Result | str, planned: compile_phase.Result | None = None) -> tuple:
    """Cells of the table."""
    if isinstance(result, str):
        return (part, *[""] * (len(HEADING) - 2), result)
    peak, asked = result.peak / GIB, 0.0
    if planned and planned.peak:
        asked = (planned.peak + planned.beside) / GIB
    off = f"{peak / asked - 1:+.1%}" if peak and asked else ""
    figures = ", ".join(f"{name} {value:.4g}" for name, value in result.figures.items())
    bytes_of = (f"{one:.2f}" if one else "" for one in (peak, asked))
    return (part, f"{result.seconds:.3f}", f"{result.compile_s:.1f}", *bytes_of, off, figures)


def generate(plan: Plan, folder: Future) -> dict[str, Result | str]:
    """Both sides, and the share of their tokens that are equal."""
    try:
        where = folder.result(timeout=max(1.0, plan.left))
    except Exception as error:  # whatever it was, the other rows are worth having
        return {"generate": f"not run: no checkpoint ({error!r})"}
    found = {
        side: run_part(plan, "generate", ("scripts.bench.gpu_parts.generate", side, str(where)))
        for side in ("ours", "hf")
    }
    if all(isinstance(result, Result) for result in found.values()):
        a, b = (np.load(where / f"tokens_{side}.npy") for side in found)
        ours, theirs = found["ours"], found["hf"]
        ours.figures["of HF's speed"] = theirs.seconds / ours.seconds
        ours.figures["equal first tokens"] = float((a[..., 0] == b[..., 0]).mean())
        ours.figures["equal tokens"] = float((a == b).mean())
    return {f"generate {side}": result for side, result in found.items()}


def main(argv: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    add_settings(parser, "one field of every part's config")
    parser.add_argument("--config", type=place_of, default="configs/pod_4b.py")
    parser.add_argument("--size", default="4B", help="released size; '' for the config's folder")
    parser.add_argument("--parts", nargs="+", choices=PARTS, default=PARTS)
    parser.add_argument("--out", type=place_of, required=True, help="folder for bench_gpu.json")
    parser.add_argument(
        "--work", type=place_of, help="folder for the checkpoint; that of --out if none"
    )
    parser.add_argument("--card", choices=slices.names(), help="to predict for; else this one")
    parser.add_argument("--seconds", type=float, default=540, help="no part begins after these")
    parser.add_argument("--rounds", type=int, default=3)
    args = parser.parse_args(argv)
    with clear_errors():
        plan = make_plan(args)
    out = Path(args.out)
    for folder in (out, plan.work):
        folder.mkdir(parents=True, exist_ok=True)
    print(f"{plan.size or args.config} on {plan.card or 'a card that preflight does not know'}")
    failed = run_all(plan, args.parts, out / "bench_gpu.json")
    return 1 if failed else 0


def run_all(plan: Plan, parts: tuple[str, ...], kept: Path) -> bool:
    """Prints and keeps every part's row; whether one is missing."""
    print_rows(HEADING, ("---",) * len(HEADING))
    found: dict[str, Result | str] = {}
    with ThreadPoolExecutor(2) as pool:
        folder = pool.submit(write_checkpoint, plan) if "generate" in parts else None
        compiled = [part for part in parts if part in NAMES and plan.card]
        predicted = {part: pool.submit(predict, plan, part) for part in compiled}
        for part in parts:
            if part == "generate":
                new = generate(plan, folder)
            else:
                new = {part: run_part(plan, part, ("scripts.bench.gpu_parts.parts",))}
            found |= new
            print_rows(*(row(part, result) for part, result in new.items()))
            keep(kept, found, {})
    planned = {part: one.result() for part, one in predicted.items()}
    keep(kept, found, planned)
    if planned:
        print("\nwith the bytes that preflight's compile asks for:\n")
        print_rows(HEADING, ("---",) * len(HEADING))
        print_rows(*(row(part, result, planned.get(part)) for part, result in found.items()))
    return any(isinstance(result, str) for result in found.values())


def print_rows(*rows: tuple[str, ...]) -> None:
    for cells in rows:
        print(f"| {' | '.join(cells)} |", flush=True)


def keep(path: Path, found: dict, planned: dict[str, compile_phase.Result]) -> None:
    """Everything that is known, as JSON; a part without a result has its reason."""
    rows = {
        part: {
            "found": asdict(result) if isinstance(result, Result) else result,
            "preflight": asdict(planned[part]) if part in planned else None,
        }
        for part, result in found.items()
    }
    path.write_text(json.dumps(rows, indent=1) + "\n")


if __name__ == "__main__":
    sys.exit(main())
