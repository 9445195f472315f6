"""Study 1 in one command: bases of several strengths, each continued by GRPO and by supervision.

    python -m scripts.study.strengths --bases assets/tiny_strengths --at 2000 3400 3900 4400 \
        --root runs/strengths --seeds 0 1 2 --jobs 2 --results docs/results/strengths.md

The checkpoints of one run are exported to <root>/<step>/source; a folder of such folders is taken
as it is. The arms of `configs/learners.py` start from each, with the seeds in turn: what a stopped
command leaves is whole seeds. The same command continues. Writes strengths.md and strengths.png
below the root. docs/ablations.md tells how arms are scored.
"""

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

from dig_jax.common.commandline import clear_errors, path_of
from dig_jax.common.files import write_text
from dig_jax.scoring.table import markdown
from scripts.study import ablate
from scripts.study.ablation import crossing, results, runs, tables
from scripts.study.ablation.plan import Plan, make_plan


def plan_of(args: argparse.Namespace, step: int) -> Plan:
    """The arms from the checkpoint of one step."""
    base = ablate.base_of(args, f"model.source={source_of(args, step)}")
    return make_plan(base, args.arms, args.root / str(step), seeds=args.seeds)


def source_of(args: argparse.Namespace, step: int) -> Path:
    """The folder of a base: there already, or what its export makes."""
    there = args.bases / str(step)
    return there if (there / "config.json").is_file() else args.root / str(step) / "source"


def export_job(args: argparse.Namespace, step: int) -> runs.Job:
    out = source_of(args, step)
    words = ("dig_jax.convert", "export", "--run", str(args.bases), "--step", str(step))
    stage = runs.Stage("export", (*words, "--out", str(out)), (out / "config.json").is_file)
    return runs.Job(f"export of step {step}", args.root / str(step), (stage,))


def jobs_of(plans: dict[int, Plan], modes: Sequence[str]) -> list[runs.Job]:
    """The untrained bases and the pixel difference; then every strength's arms, seed by seed."""
    found = {step: ablate.jobs_of(plan, modes, None) for step, plan in plans.items()}
    first = [job for step, jobs in found.items() for job in _named(step, jobs[:2])]
    seeds = next(iter(plans.values())).seeds
    runs_of = {step: zip(plan.runs, found[step][2:], strict=True) for step, plan in plans.items()}
    rest = [(run.seed, step, job) for step, both in runs_of.items() for run, job in both]
    for seed in seeds:
        for step in plans:
            first += _named(step, [job for its, of, job in rest if (its, of) == (seed, step)])
    return first


def _named(step: int, jobs: Sequence[runs.Job]) -> list[runs.Job]:
    return [runs.Job(f"{step}: {job.name}", job.folder, job.stages) for job in jobs]


def write_report(plans: dict[int, Plan], args: argparse.Namespace, failures: list[str]) -> Path:
    """strengths.md and .png below the root, and a copy of both where --results says."""
    scores = {step: tables.summarize(plan, args.modes) for step, plan in plans.items()}
    picture = args.root / "strengths.png"
    crossing.draw(picture, plans, scores, args.modes)
    parts = ["## Bases of several strengths", *(f"**Not complete:** {f}" for f in failures)]
    parts.append(results.made_by(next(iter(plans.values())), args.command))
    parts.append("![F1 of what each base became, by its own](strengths.png)")
    for mode in args.modes:
        parts.append(results.heading(mode))
        parts.append(markdown(crossing.table(plans, {s: scores[s][mode] for s in scores})))
    mode = args.modes[0]
    parts.append(f"By the true number of differences n, {results.MODE_NAMES[mode]}:")
    parts.append(markdown(crossing.by_count(plans, {s: scores[s][mode] for s in scores})))
    page = args.root / "strengths.md"
    write_text(page, "\n\n".join(parts) + "\n")
    if args.results:
        results.replace_section(args.results, page.read_text())
        args.results.with_name(picture.name).write_bytes(picture.read_bytes())
    return page


def parse(argv: list[str] | None = None) -> argparse.Namespace:
    parser = ablate.study_parser(__doc__, "configs/learners.py")
    add = parser.add_argument
    add("--bases", type=path_of, required=True, help="a run with checkpoints, or a folder of them")
    add("--at", type=int, nargs="+", required=True, metavar="STEP", help="which of them")
    return ablate.parsed(parser, argv, "scripts.study.strengths")


def main(argv: list[str] | None = None) -> int:
    args = parse(argv)
    with clear_errors():
        if args.results:
            results.check_results(args.results)
    told = ablate.run_told([export_job(args, step) for step in args.at], 1)
    if told != []:
        return 130 if told is None else 1
    with clear_errors():
        plans = {step: plan_of(args, step) for step in sorted(args.at)}
        for plan in plans.values():
            ablate.check(plan, args.modes)
            ablate.write_configs(plan)
    told = ablate.run_told(jobs_of(plans, args.modes), args.jobs)
    if told is None:
        return 130
    page = write_report(plans, args, told)
    print(f"\n{page.read_text()}\nwritten: {page}, strengths.png beside it")
    return 1 if told else 0


if __name__ == "__main__":
    sys.exit(main())
