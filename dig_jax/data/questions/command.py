"""The verb questions: from rendered pairs to the formats of the benchmarks of single pictures.

    python -m dig_jax.data questions --root data/tiny --out data/questions
    python -m dig_jax.data questions --check data/questions --apart data/tiny

What is written is read as POPE, RefCOCO val, CV-Bench, VSR, V* and MMVP are.
"""

from __future__ import annotations

import argparse

from dig_jax.common import typed
from dig_jax.common.commandline import path_of, seed_of, within
from dig_jax.data.questions import apart, suite


def add_arguments(parser: argparse.ArgumentParser, verb: str) -> None:
    """What is asked about, where the questions go, what they must be apart from."""
    parser.description = "Questions about single pictures, in the formats of known benchmarks."
    parser.add_argument("--root", type=path_of, help="folder that holds the splits")
    parser.add_argument("--out", type=path_of, help="folder to make")
    parser.add_argument(
        "--splits", help="only these, separated by commas; default: all held-out ones in root"
    )
    parser.add_argument(
        "--pairs", type=within(int, 1, 10**7), help="of each split at most; default: all"
    )
    parser.add_argument("--seed", type=seed_of, default=0, help="of the choice; default: 0")
    parser.add_argument(
        "--apart",
        type=path_of,
        action="append",
        default=[],
        metavar="ROOT",
        help="a root that was trained on: refuse questions about its scenes; repeatable",
    )
    parser.add_argument(
        "--allow-training", action="store_true", help="also splits of --splits that are trained on"
    )
    parser.add_argument("--overwrite", action="store_true", help="replace earlier questions")
    parser.add_argument(
        "--check", type=path_of, metavar="OUT", help="instead: whether OUT is whole, and apart"
    )


def run(args: argparse.Namespace, verb: str) -> int:
    """Make questions and say how many, or check some; 1 where these are not what they should be."""
    roots = tuple(args.apart)
    if args.check:
        found = suite.check(args.check, roots)
        print("\n".join(found) or f"{args.check}: whole, and apart from {len(roots)} roots")
        return 1 if found else 0
    for name in ("root", "out"):
        ok = getattr(args, name) is not None
        typed.require(ok, f"--{name}", None, "is missing", "name a folder, or --check one")
    splits = apart.select(args.root, args.splits, args.allow_training)
    facts = suite.make(
        args.root,
        args.out,
        splits=splits,
        seed=args.seed,
        pairs=args.pairs,
        apart_from=roots,
        overwrite=args.overwrite,
    )
    pairs = sum(source["pairs"] for source in facts["splits"].values())
    print(f"{args.out}: about {pairs} pairs of {', '.join(splits)}")
    for path, told in facts["tables"].items():
        kinds = ", ".join(f"{count} {kind}" for kind, count in told["kinds"].items())
        print(f"  {path}: {kinds}")
    return 0
