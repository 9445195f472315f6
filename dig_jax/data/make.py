"""The verbs that make data: plan, render, and make, which chains all of them."""

from __future__ import annotations

import argparse
import dataclasses

from dig_jax.common import typed
from dig_jax.common.commandline import add_settings, path_of, seed_of
from dig_jax.common.progress import progress
from dig_jax.data.corpus import cluster, verify
from dig_jax.data.corpus.feasible import check_feasible
from dig_jax.data.corpus.plans import plan_split
from dig_jax.data.corpus.splits import default_workers, render_split
from dig_jax.data.inspect import stats
from dig_jax.data.scene.draws import SPLIT_IDS, Draw, SplitSpec
from dig_jax.data.scene.presets import PRESETS, Corpus, preset


def add_arguments(parser: argparse.ArgumentParser, verb: str) -> None:
    """Which corpus, where, and who does the work."""
    parser.description = {
        "plan": "Decide every scene of a corpus; NumPy only, nothing is rendered.",
        "render": "Render what is missing of a corpus.",
        "make": "Plan, render, verify and count a corpus.",
    }[verb]
    parser.add_argument("--root", type=path_of, required=True, help="folder that holds the splits")
    parser.add_argument("--preset", help=f"a corpus: {', '.join(PRESETS)}")
    parser.add_argument("--corpus", type=path_of, help="a Python file: get_config() -> Corpus")
    parser.add_argument("--splits", help="only these of the corpus, separated by commas")
    parser.add_argument("--split", help=f"one split instead, a name of {', '.join(SPLIT_IDS)}")
    parser.add_argument("--pairs", type=int, help="pairs in the split, or at most in each")
    parser.add_argument("--k", type=int, default=1, help="with --split: differences, at least")
    parser.add_argument("--k-max", type=int, help="with --split: at most; default: --k")
    parser.add_argument("--seed", type=seed_of, default=0)
    add_settings(parser, "a field of the corpus: look.samples=16, splits.0.pairs=100")
    parser.add_argument(
        "--shards",
        default="0/1",
        metavar="I/N",
        help="only every N-th shard from the I-th (0..N-1) on, for array schedulers",
    )
    parser.add_argument(
        "--backend", choices=("local", "ray"), default="local", help="who renders the shards"
    )
    parser.add_argument(
        "--ray-address", help="a running Ray cluster, or auto; default: one on this machine"
    )
    parser.add_argument(
        "--workers",
        type=int,
        default=default_workers(),
        help="processes of one thread each; default: the cores",
    )


def run(args: argparse.Namespace, verb: str) -> int:
    """Do what the verb says for every split of the corpus."""
    corpus, part = corpus_from(args), _part(args.shards)
    typed.require(args.workers >= 1, "--workers", args.workers, "is below 1", "use one per core")
    for spec in corpus.splits:
        check_feasible(corpus.look, spec)
    if verb in ("plan", "make"):
        _plan(corpus, args, part)
    if verb in ("render", "make"):
        _render(corpus, args, part)
    return _check(corpus, args, part) if verb == "make" else 0


def corpus_from(args: argparse.Namespace) -> Corpus:
    """The corpus that the arguments name; raises ValueError where they contradict each other."""
    if args.corpus:
        corpus = typed.run_file(args.corpus, Corpus)
    else:
        ok = bool(args.preset or args.split)
        remedy = "give --preset, --corpus or --split"
        typed.require(ok, "--preset", args.preset, "is missing", remedy)
        corpus = preset(args.preset or "quickstart", args.seed)
    if args.split:
        typed.require(args.pairs is not None, "--pairs", None, "is missing", "say how many")
        high = args.k if args.k_max is None else args.k_max
        draw = Draw(args.split, args.seed, args.k, high)
        # with the settings, not before them: the look that they ask for may be what it needs
        splits = [typed.to_plain(SplitSpec(draw, args.pairs))]
        return typed.override(corpus, [f"splits={splits!r}", *args.settings])
    if args.splits:
        corpus = corpus.only([name.strip() for name in args.splits.split(",")])
    if args.pairs is not None:
        cut = (dataclasses.replace(s, pairs=min(s.pairs, args.pairs)) for s in corpus.splits)
        corpus = dataclasses.replace(corpus, splits=tuple(cut))
    return typed.override(corpus, args.settings)


def _part(text: str) -> tuple[int, int]:
    index, _, count = text.partition("/")
    ok = index.isdecimal() and count.isdecimal() and int(count) > 0
    typed.require(ok, "--shards", text, "is not I/N", "write 0/8 for the first of eight parts")
    return int(index), int(count)


def _check(corpus: Corpus, args: argparse.Namespace, part: tuple[int, int]) -> int:
    """Verify what was made and count it; 1 where something does not hold."""
    if part != (0, 1):
        print(f"part {args.shards} is made; verify and stats need all parts")
        return 0
    names = ",".join(spec.split for spec in corpus.splits)
    asked = {"root": args.root, "splits": names, "workers": args.workers, "seed": args.seed}
    sound = verify.run(argparse.Namespace(**asked, sample=2, release=False), "verify") == 0
    whole = argparse.Namespace(root=args.root, splits=None, json=None, workers=args.workers)
    return 0 if stats.run(whole, "stats") == 0 and sound else 1


def _plan(corpus: Corpus, args: argparse.Namespace, part: tuple[int, int]) -> None:
    for spec in corpus.splits:
        with progress(f"plan {spec.split}", "shards") as report:
            plan_split(args.root, spec, corpus.look, args.workers, report, spec.shards(part))


def _render(corpus: Corpus, args: argparse.Namespace, part: tuple[int, int]) -> None:
    if args.backend == "ray":
        with cluster.connected(args.ray_address, args.workers):
            _render_splits(corpus, args, part)
    else:
        _render_splits(corpus, args, part)


def _render_splits(corpus: Corpus, args: argparse.Namespace, part: tuple[int, int]) -> None:
    for spec in corpus.splits:
        shards = spec.shards(part)
        if args.backend == "ray":
            with progress(spec.split, "shards") as report:
                made = cluster.render_split_on_ray(
                    args.root, spec, corpus.look, report, shards=shards
                )
        else:
            with progress(spec.split, "pairs") as report:
                made = render_split(
                    args.root, spec, corpus.look, args.workers, report, shards=shards
                )
        print(
            f"{args.root / spec.split}: {made['pairs']} of {spec.pairs} pairs, "
            f"{made['cpu_s_per_pair']:.2f} core-seconds each, K {made['k']}"
        )
