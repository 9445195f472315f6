"""Study 1 in one command: bases of several strengths, each continued by GRPO and by supervision.

    python -m scripts.study.strengths --bases assets/tiny_strengths --at 1000 2000 3000 4000 \
        --root runs/strengths --seeds 0 1 2 --jobs 2 --results docs/results/strengths.md

The bases are folders, or checkpoints of one run, which are exported to <root>/<step>/source. The
arms of `configs/learners.py` start from each, with the seeds in turn: what a stopped command leaves
is whole seeds. The same command continues. Writes <root>/<step>/ablation.*, and over all of them
strengths.md and strengths.png. docs/ablations.md tells how arms are scored.
"""

import argparse
import shlex
import sys
from collections.abc import Sequence
from pathlib import Path

from dig_jax.common.commandline import add_settings, clear_errors, path_of, place_of, seed_of
from dig_jax.common.files import write_text
from dig_jax.config import load_config
from dig_jax.data.feed.checks import check_data
from dig_jax.scoring.table import markdown
from scripts.study import ablate
from scripts.study.ablation import crossing, results, runs, tables
from scripts.study.ablation.plan import Plan, make_plan, with_steps

ARMS = Path("configs/learners.py")


def plan_of(args: argparse.Namespace, step: int) -> Plan:
    """The arms from the checkpoint of one step."""
    folder = args.root / str(step)
    settings = [*args.settings, f"model.source={source_of(args, step)}"]
    base = load_config(args.config, settings)
    if args.steps is not None:
        base = with_steps(base, args.steps)
    return make_plan(base, args.arms, folder, seeds=args.seeds)


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
        parts.append(f"{results.MODE_NAMES[mode].capitalize()}:")
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
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    add = parser.add_argument
    add("--bases", type=path_of, required=True, help="folder of them, or a run with checkpoints")
    add("--at", type=int, nargs="+", required=True, metavar="STEP", help="their names: steps")
    add("--config", type=place_of, default="configs/tiny_cpu.py", help="the base of every arm")
    add_settings(parser, "one field of the base, by its dotted path")
    add("--arms", type=path_of, default=ARMS)
    add("--root", type=path_of, required=True, help="folder of all runs")
    add("--seeds", type=seed_of, nargs="+", default=[0, 1, 2])
    add("--steps", type=int, help="of GRPO; the others' follow, stages keep their shares")
    add("--jobs", type=int, default=1, help="runs at once, one pinned CPU core each")
    add("--modes", nargs="+", default=list(runs.USUAL), choices=list(runs.MODES))
    add("--results", type=path_of, help="Markdown file whose section is replaced")
    args = parser.parse_args(argv)
    if args.jobs < 1:
        parser.error(f"--jobs {args.jobs} is below 1; use 1 or more")
    given = sys.argv[1:] if argv is None else argv
    args.command = shlex.join(["python", "-m", "scripts.study.strengths", *given])
    return args


def main(argv: list[str] | None = None) -> int:
    args = parse(argv)
    with clear_errors():
        if args.results:
            results.check_results(args.results)
        exports = [export_job(args, step) for step in args.at]
        done = runs.run_jobs(exports, at_once=1, say=ablate.say)
        if any(one.failed for one in done):
            print("\n".join(one.tail for one in done if one.failed))
            return 1
        plans = {step: plan_of(args, step) for step in sorted(args.at)}
        for plan in plans.values():
            for config in {run.arm: run.config for run in plan.runs}.values():
                check_data(config)
            ablate.check_exam(plan, args.modes)
            ablate.write_configs(plan)
    jobs = jobs_of(plans, args.modes)
    try:
        outcomes = runs.run_jobs(jobs, at_once=args.jobs, say=ablate.say)
    except KeyboardInterrupt:
        ablate.say("stopped; the same command continues")
        return 130
    told = [f"{o.job.name} failed in {o.failed}" for o in outcomes if o.failed]
    page = write_report(plans, args, told)
    print(f"\n{page.read_text()}\nwritten: {page}, strengths.png beside it")
    return 1 if told else 0


if __name__ == "__main__":
    sys.exit(main())
