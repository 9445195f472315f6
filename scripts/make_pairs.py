"""Render certified difference pairs with Blender.

    python scripts/make_pairs.py --preset tiny-quickstart --root data/tiny
    python scripts/make_pairs.py --root data/tiny --split single --pairs 256 --k 1

A preset makes several splits; the flags of the second form make one. Running the same command
again makes only what is missing. Needs Python 3.13 and the [render] extra; JAX is not used.
"""

from __future__ import annotations

import argparse
import sys
import time
from pathlib import Path

from rich.console import Console
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    Progress,
    TextColumn,
    TimeElapsedColumn,
    TimeRemainingColumn,
)

from dig_jax.data.scene import SPLIT_IDS, SceneConfig
from dig_jax.data.splits import SplitSpec, default_workers, render_split
from dig_jax.data.supervise import RenderFailed

# split, pairs, k_low, k_high
PRESETS = {
    "tiny-quickstart": (
        ("heldout", 300, 1, 3),
        ("single", 256, 1, 1),
        ("dual", 256, 2, 2),
        ("mixed", 384, 1, 4),
    ),
    "tiny-base": (("dev", 300, 1, 3), ("base", 1536, 1, 4)),
    "paper": (
        ("heldout", 600, 1, 3),
        ("single", 1600, 1, 1),
        ("dual", 1600, 2, 2),
        ("mixed", 1600, 1, 4),
    ),
}
_LINE_EVERY_S = 5.0


def parse_args(argv: list[str] | None = None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--root", type=Path, required=True, help="folder that holds the splits")
    parser.add_argument("--preset", choices=PRESETS, help="make these splits instead of one")
    parser.add_argument("--split", help=f"one of {', '.join(SPLIT_IDS)}")
    parser.add_argument("--pairs", type=int, help="pairs in the split (or in each of a preset)")
    parser.add_argument("--k", type=int, default=1, help="differences per pair, at least")
    parser.add_argument("--k-max", type=int, help="at most (uniform in between); default: --k")
    parser.add_argument("--seed", type=int, default=0)
    for name, unit in (("width", "px"), ("height", "px"), ("samples", "Cycles samples per px")):
        value = getattr(SceneConfig(), name)
        parser.add_argument(f"--{name}", type=int, default=value, help=f"{unit}; default: {value}")
    parser.add_argument(
        "--workers",
        type=int,
        default=default_workers(),
        help="render processes of one thread each; default: the cores",
    )
    parser.add_argument("--shard-pairs", type=int, default=64)
    args = parser.parse_args(argv)
    if bool(args.preset) == bool(args.split):
        parser.error("give either --preset or --split")
    if args.workers < 1:
        parser.error(f"--workers {args.workers} must be at least 1")
    if args.split and args.pairs is None:
        parser.error("--split needs --pairs")
    return args


def specs(args: argparse.Namespace) -> list[SplitSpec]:
    """The splits asked for."""
    if args.split:
        rows = [(args.split, args.pairs, args.k, args.k if args.k_max is None else args.k_max)]
    else:
        rows = [(s, args.pairs or pairs, low, high) for s, pairs, low, high in PRESETS[args.preset]]
    return [SplitSpec(s, n, args.seed, low, high, args.shard_pairs) for s, n, low, high in rows]


class Lines:
    """Progress where there is no terminal: a line every few seconds."""

    def __init__(self, split: str):
        self.split, self.start, self.last, self.first_done = split, time.monotonic(), 0.0, None

    def __call__(self, done: int, total: int, note: str) -> None:
        now = time.monotonic()
        if self.first_done is None:
            self.first_done = done
        if now - self.last < _LINE_EVERY_S and done != total:
            return
        self.last = now
        rate = (done - self.first_done) / max(now - self.start, 1e-9)
        left = f", {(total - done) / rate:.0f} s left" if rate else ""
        print(f"{self.split}: {done}/{total} pairs{left} {note}".rstrip(), flush=True)


def make(spec: SplitSpec, config: SceneConfig, root: Path, workers: int) -> dict:
    """Render one split under a progress display."""
    console = Console()
    if not console.is_terminal:
        return render_split(root, spec, config, workers, Lines(spec.split))
    columns = (
        TextColumn("{task.description:>10}"),
        BarColumn(),
        MofNCompleteColumn(),
        TextColumn("pairs"),
        TimeElapsedColumn(),
        TimeRemainingColumn(),
    )
    with Progress(*columns, console=console) as progress:
        task = progress.add_task(spec.split, total=spec.pairs)

        def report(done: int, total: int, note: str) -> None:
            progress.update(task, completed=done, total=total)

        return render_split(root, spec, config, workers, report)


def main(argv: list[str] | None = None) -> int:
    args = parse_args(argv)
    try:
        config = SceneConfig(width=args.width, height=args.height, samples=args.samples)
        wanted = specs(args)
        for spec in wanted:
            config.check_k(spec.k_low, spec.k_high)
        for spec in wanted:
            manifest = make(spec, config, args.root, args.workers)
            print(
                f"{args.root / spec.split}: {manifest['pairs']} pairs, "
                f"{manifest['cpu_s_per_pair']:.2f} core-seconds each, K {manifest['k']}"
            )
    except (ValueError, OSError, RenderFailed, RuntimeError) as error:
        print(f"make_pairs: {error}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        print(
            "make_pairs: stopped; whole shards are kept, the same command continues",
            file=sys.stderr,
        )
        return 130
    return 0


if __name__ == "__main__":
    sys.exit(main())
