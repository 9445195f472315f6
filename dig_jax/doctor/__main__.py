"""Is this run fit to start? Every check in one table, before anything is compiled or paid for.

    python -m dig_jax.doctor --config configs/tiny_cpu.py [--set A.B=C] [--run-dir D]

All checks run, whatever some of them find; only those that need a failed one are skipped. The
exit status is 0 where nothing is red, else 1.
"""

import argparse
import sys
from functools import partial

import jax

from dig_jax.config import Config
from dig_jax.config.commandline import parse_with_config
from dig_jax.data.feed.checks import drawn_splits, scored_splits
from dig_jax.doctor import checks, folder, pairs
from dig_jax.doctor.findings import Check, in_colour, run_checks, table
from dig_jax.mesh.distributed import joined


def checks_of(cfg: Config) -> list[Check]:
    """All of them, each after those that it needs."""
    drawn = tuple(f"data {name}" for name in drawn_splits(cfg))
    compared = (*drawn, *(f"data {name}" for name in pairs.compared_splits(cfg)))
    kept = ("checkpoints",) if cfg.checkpoint.root else ()
    memory = ("devices", "model", "prompt", "memory at rest")
    wanted = [
        Check("program", checks.program),
        Check("devices", checks.devices),
        Check("model", checks.model),
        Check("computation", checks.computation, ("model",)),
        Check("weights", checks.weights, ("model",)),
        Check("images", checks.images, ("model",)),
        Check("prompt", checks.prompt, ("model", "images")),
        Check("template", checks.template, ("prompt",)),
        Check("stop tokens", checks.stops, ("model", "prompt")),
        Check("decoding", checks.decoding),
        *(
            Check(f"data {name}", partial(pairs.split, name=name))
            for name in (*drawn_splits(cfg), *scored_splits(cfg))
        ),
        Check("curriculum", pairs.curriculum, drawn),
        Check("disjoint", pairs.disjoint, compared),
        Check("answers", pairs.answers, ("prompt", *drawn)),
        Check("reward", pairs.reward, drawn),
        Check("memory at rest", checks.memory_at_rest, ("devices", "model")),
        Check("memory rollout", checks.memory_rollout, memory),
        Check("memory update", checks.memory_update, memory),
        Check("run folder", folder.writing),
        *(Check(name, folder.keeping) for name in kept),
        Check("earlier run", folder.continuing, kept),
        Check("disk", folder.disk, ("model",)),
        Check("trackers", checks.trackers),
    ]
    return [Check(name, partial(find, cfg), needs) for name, find, needs in wanted]


def main(argv: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(
        prog="python -m dig_jax.doctor", description=__doc__.splitlines()[0]
    )
    cfg, args = parse_with_config(parser, argv)
    with joined():
        rows = run_checks(checks_of(cfg))
        red, process = any(row.state == "red" for row in rows), jax.process_index()
        if red or not process:  # of several processes the first tells, and those that differ
            where = f"process {process} of {jax.process_count()}\n" if process else ""
            print(f"{where}config  {args.config}\nrun     {cfg.run_dir}\n")
            print(table(rows, colour=in_colour(sys.stdout)), flush=True)
    return 1 if red else 0


if __name__ == "__main__":
    sys.exit(main())
