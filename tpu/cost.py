"""What a run would take in hours and money: arithmetic, before anything has been timed.

    python -m tpu.cost --slice v5e-16 --model 8B --pairs 4800 --group 8 --length 900 --price 1.2

Bounds from the chips' published peaks, with assumed shares of them:

    forward    `dig_jax.mesh.flops.forward_flops` of a pair
    token      (decoder weights in bfloat16 + keys and values of a rollout row's pairs)
               / (mesh.tensor x bandwidth), seconds; caches grow as `dig_jax.sampler.stages` has it
    rollout    pairs / pairs_per_step x (longest answer) x token, + forward of the prompts
    reference  forward
    update     4 forward: one, two for the backward pass, one recomputed (model.remat=full)

The prompt is encoded once per pair, as the program does it; images, redraws, validation,
checkpoints, compilation and start are left out.
"""

import argparse
import sys
from dataclasses import dataclass

import numpy as np

from dig_jax.common.commandline import clear_errors
from dig_jax.common.fields import number, require
from dig_jax.common.typed import check_fields
from dig_jax.config import RolloutConfig
from dig_jax.mesh.flops import block_parameters, forward_flops
from dig_jax.model.config import ModelConfig, TextConfig
from dig_jax.model.params import count
from dig_jax.model.sizes import released
from dig_jax.model.specs import model_specs
from dig_jax.sampler import stages
from tpu import slices
from tpu.slices import Slice

# Shares of the peaks that are taken for granted; nothing here has measured them.
UPDATE, FORWARD, DECODE = 0.45, 0.5, 0.5
PRACTICE = (1.5, 2.0)  # padding, stragglers, latency of collectives: times what is computed
CORES = {"tpu7x": 2}  # devices of a chip, where they are not one
BF16 = 2  # bytes
COLUMNS = ("model", "slice", "chips", "pairs a step", "rollout h", "reference h", "update h")
COLUMNS += ("total h", "chip-hours", "cost")
CLOSING = f"""
{{pairs}} pairs x {{group}} answers of {{length}} tokens, the longest of a batch {{longest}};
prompts of {{prompt}}. Shares of the peak: update {UPDATE}, forward {FORWARD}; of the
bandwidth: {DECODE}. In practice expect {PRACTICE[0]} to {PRACTICE[1]} times these hours.
Formulas: tpu/cost.py. Whether a run fits is another question: python -m tpu.preflight."""


@dataclass(frozen=True)
class Work:
    """What a run does.

    pairs    drawn in all
    group    answers per pair
    length   mean answer, tokens; the update and the reference compute these
    longest  answer of a batch, tokens: a rollout ends with it
    prompt   tokens, images included
    step     pairs of a rollout batch
    """

    pairs: int = number(least=1, most=10**12)
    group: int = number(least=1, most=10**6)
    length: int = number(least=1, most=10**7)
    longest: int = number(least=1, most=10**7)
    prompt: int = number(least=1, most=10**7)
    step: int = number(least=1, most=10**6)

    def __post_init__(self):
        check_fields(self, "")
        rule = f"is below the mean length={self.length}"
        require(self.longest >= self.length, "--longest", self.longest, rule, "raise it")


@dataclass(frozen=True)
class Hours:
    rollout: float
    reference: float
    update: float

    @property
    def total(self) -> float:
        return self.rollout + self.reference + self.update


def hours(model: ModelConfig, on: Slice, work: Work) -> Hours:
    """Hours of each part of a run on a slice with its usual mesh."""
    forward = work.pairs * forward_flops(
        model, prompt=work.prompt, length=work.length, answers=work.group
    )
    prompts = work.pairs * forward_flops(model, prompt=work.prompt, length=0, answers=0)
    steps = work.pairs / work.step * work.longest
    decoding = steps * token_seconds(model, on, work) / DECODE
    peak = on.devices * on.peak
    seconds = (
        decoding + prompts / (FORWARD * peak),
        forward / (FORWARD * peak),
        4 * forward / (UPDATE * peak),
    )
    return Hours(*(s / 3600 for s in seconds))


def token_seconds(model: ModelConfig, on: Slice, work: Work) -> float:
    """Of one decoding step at the full bandwidth, in the mean over an answer of `longest` tokens.

    A rollout row of the mesh holds the weights once, the prompts of its pairs once, and caches of
    their answers, which grow with `rollout.chunk` and of which a step reads all.
    """
    fsdp, tensor = on.mesh
    chunk, pairs = RolloutConfig().chunk, work.step // fsdp
    plan = stages.make_plan(pairs, work.group, work.longest, chunk=chunk, compact=0.0)
    lengths = np.full((pairs, work.group), work.longest)
    cached = stages.cost(lengths, plan, prompt=work.prompt).read / work.longest
    read = BF16 * decoder_parameters(model) + cached * cache_bytes(model.text)
    return read / (tensor * on.bandwidth)


def decoder_parameters(model: ModelConfig) -> int:
    """That every decoded token reads: blocks and head; of the embeddings it reads a row."""
    name = "embed" if model.text.tied else "head"
    return block_parameters(model) + count({name: model_specs(model)[name]})


def cache_bytes(text: TextConfig) -> int:
    """Keys and values of one token in bfloat16, all blocks."""
    return text.layers * 2 * text.kv_heads * text.head_dim * BF16


def chips(on: Slice) -> int:
    return on.devices // CORES.get(on.topology.partition(":")[0], 1)


def work_on(on: Slice, args: argparse.Namespace) -> Work:
    """The run that was asked for; without --step, a pair per device and 16 at least."""
    step = max(16, on.devices) if args.step is None else args.step
    rule = f"is not a multiple of the {on.devices} devices of {on.name}"
    remedy = f"use {on.devices * max(1, step // on.devices)}"
    require(step % on.devices == 0, "--step", step, rule, remedy)
    return Work(args.pairs, args.group, args.length, args.longest, args.prompt, step)


def row(size: str, on: Slice, work: Work, price: float | None) -> tuple[str, ...]:
    """Cells of the table.

    price   of a chip for an hour, in any currency; None leaves the money out
    """
    took, number = hours(released(size.lower()), on, work), chips(on)
    parts = (took.rollout, took.reference, took.update, took.total)
    money = "" if price is None else f"{took.total * number * price:.0f}"
    cells = (f"{part:.2f}" for part in parts)
    spent = f"{took.total * number:.0f}"
    return (size, on.name, f"{number}", f"{work.step}", *cells, spent, money)


def parse(argv: list[str] | None = None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--slice", required=True, nargs="+", help=", ".join(slices.names()))
    parser.add_argument("--model", required=True, help="2B, 4B, 8B or 32B")
    parser.add_argument("--pairs", type=int, required=True, help="of the run: steps x pairs a step")
    parser.add_argument("--group", type=int, required=True, help="answers per pair")
    parser.add_argument("--length", type=int, required=True, help="mean answer, tokens")
    parser.add_argument("--longest", type=int, default=2048, help="answer of a batch; 2048")
    parser.add_argument("--prompt", type=int, default=1536, help="tokens with two images; 1536")
    parser.add_argument("--step", type=int, help="pairs of a rollout batch; one per device")
    parser.add_argument("--price", type=float, help="of a chip for an hour, as you pay it")
    return parser.parse_args(argv)


def main(argv: list[str] | None = None) -> int:
    args = parse(argv)
    with clear_errors():
        ok = args.price is None or args.price > 0
        require(ok, "--price", args.price, "is not above 0", "say what a chip costs an hour")
        found = [slices.find(name) for name in args.slice]
        rows = [row(args.model, on, work_on(on, args), args.price) for on in found]
    print("ESTIMATE by arithmetic: none of this has been timed on any of these chips.\n")
    for cells in (COLUMNS, ("---",) * len(COLUMNS), *rows):
        print(f"| {' | '.join(cells)} |")
    print(CLOSING.format(**vars(args)))
    return 0


if __name__ == "__main__":
    sys.exit(main())
