"""Kill what runs at random moments, start it again, compare with what was never killed.

    python -m scripts.study.kill --work runs/kill --times 20 --seed 0
    python -m scripts.study.kill --work runs/kill --times 2 --only evaluate

Five commands, as README writes them: `data render`, `train` (a validation, a checkpoint and a
stage change inside), `evaluate`, `convert import`, `convert export`. Each is run once undisturbed;
then, `--times` over, it is begun in a fresh folder, ended by SIGKILL after a random share of its
usual time, and begun again by the same command. Every second time only its first process is
killed, whose children must then end by themselves. Afterwards:

    equal       files and metrics are those of the undisturbed run, but for clocks
    leftovers   no file is there that the undisturbed run has not
    orphans     no process of the killed tree is left
    segments    of what is then in /dev/shm and was not before, nothing is there at the end

Prints a line a kill and a table; the exit status is 1 where one of the four is broken. Moments are
drawn from --seed; where in the work they fall depends on the machine.
"""

import argparse
import sys
import time
from pathlib import Path

import numpy as np

from dig_jax.common.commandline import path_of, seed_of
from scripts.study.killing import commands, trees

HEADS = ("command", "kills", "equal", "leftovers", "orphans", "segments", "seconds")


def try_one(job: commands.Job, whole: Path, at_s: float, tree: bool) -> dict[str, list[str]]:
    """One kill and the same command again; what is broken by name, each with what was found."""
    before = trees.segments()
    started = trees.start(job.command)
    trees.wait_at_most(started, at_s)
    orphans = trees.kill_tree(started) if tree else trees.kill_first(started)
    again = trees.start(job.command)
    status = again.wait()
    broken = {"equal": [f"the second start ended with status {status}"] if status else []}
    broken["equal"] += commands.differences(job, whole)
    broken["leftovers"] = commands.leftovers(job, whole)
    broken["orphans"] = orphans
    broken["segments"] = sorted(trees.segments() - before)
    return broken


def campaign(name: str, work: Path, times: int, rng: np.random.Generator) -> list:
    """All kills of one command; the row of the table."""
    start = time.monotonic()
    whole = commands.prepare(name, work)
    first = time.monotonic()
    trees.run(whole.command)
    usual_s = time.monotonic() - first
    survived, left = dict.fromkeys(HEADS[2:6], 0), []
    for number in range(times):
        job = commands.fresh(name, work, number)
        at_s = float(rng.uniform(0, usual_s))
        broken = try_one(job, whole.out, at_s, tree=number % 2 == 0)
        left.append(broken.pop("segments"))
        for key, found in broken.items():
            survived[key] += not found
        told = "; ".join(f"{key}: {', '.join(found[:3])}" for key, found in broken.items() if found)
        print(
            f"{name} {number}: killed at {at_s:.1f} of {usual_s:.1f} s  {told or 'fine'}",
            flush=True,
        )
        if not told:
            commands.remove(job)
    # programs beside this one have segments too, but those go
    there = trees.segments()
    survived["segments"] = sum(not there & set(names) for names in left)
    for names in left:
        for lost in there & set(names):
            print(f"{name}: /dev/shm/{lost} is left", flush=True)
    return [name, times, *survived.values(), round(time.monotonic() - start)]


def main(argv: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--work", type=path_of, required=True, help="folder for all that is made")
    parser.add_argument("--times", type=int, default=20, help="kills of each command")
    parser.add_argument("--seed", type=seed_of, default=0, help="of the moments")
    parser.add_argument("--only", nargs="+", choices=commands.NAMES, default=commands.NAMES)
    args = parser.parse_args(argv)
    if args.times < 1:
        parser.error(f"--times {args.times} is below 1; use 1 or more")
    rows = []
    for number, name in enumerate(commands.NAMES):
        if name in args.only:
            rng = np.random.default_rng((args.seed, number))
            rows.append(campaign(name, args.work.resolve(), args.times, rng))
    for row in (HEADS, tuple("---" for _ in HEADS), *rows):
        print("| " + " | ".join(map(str, row)) + " |")
    return int(any(count < row[1] for row in rows for count in row[2:6]))


if __name__ == "__main__":
    sys.exit(main())
