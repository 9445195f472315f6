"""DiG's ablations in one command: train every arm with every seed, score all alike, tell.

    python -m scripts.study.ablate --root runs/ablations --seeds 0 1 2 --jobs 2 \
        --results docs/results/ablations.md
    python -m scripts.study.ablate --root runs/ablations --only table4 --steps 50 --dry-run

The same command continues: finished runs are skipped, stopped ones go on from their last
checkpoint, failed ones are tried again. Writes <root>/ablation.json, ablation.md, ablation.png.
What the arms are and how the intervals are made: docs/ablations.md.
"""

import argparse
import dataclasses
import json
import shlex
import signal
import statistics
import sys
import time
from collections.abc import Sequence
from pathlib import Path

from dig_jax.common import typed
from dig_jax.common.commandline import add_settings, clear_errors, path_of, place_of, seed_of
from dig_jax.common.files import write_text
from dig_jax.config import Config, load_config
from dig_jax.data.feed.checks import check_data
from dig_jax.run.runlog import read_rows
from scripts.study.ablation import effect, figure, results, runs, suite, tables
from scripts.study.ablation.plan import Plan, exam_of, make_plan, with_steps

STEP_S = 8.0  # guess for configs/tiny_cpu.py on one core, until a run's own steps are known


def plan_from(args: argparse.Namespace) -> Plan:
    """The plan that the command line names; raises ValueError and the like where it is wrong."""
    base = base_of(args)
    if args.data:
        base = dataclasses.replace(base, data=dataclasses.replace(base.data, root=args.data))
    return make_plan(base, args.arms, args.root, seeds=args.seeds, only=args.only)


def base_of(args: argparse.Namespace, *more: str) -> Config:
    """The base of every arm, by the words of `study_parser` and more settings."""
    base = load_config(args.config, [*args.settings, *more])
    return base if args.steps is None else with_steps(base, args.steps)


def jobs_of(plan: Plan, modes: Sequence[str], root: Path | None) -> list[runs.Job]:
    """Evaluations of the pixel difference and the untrained base; then every run and its own.

    root   of benchmarks that all of them answer too
    """
    pixels, folder = plan.root / tables.PIXELS, plan.root / tables.BASE
    jobs = [runs.Job(tables.PIXELS, pixels, (runs.exam_stage(pixels, modes, "pixels"),))]
    stages = [runs.exam_stage(folder, modes, "untrained")]
    source = plan.base.model.source
    stages += [suite.suite_stage(folder, root, source=source)] if root else []
    jobs.append(runs.Job(tables.BASE, folder, tuple(stages)))
    for run in plan.runs:
        stages = [runs.train_stage(run.folder, run.config)]
        stages += [runs.exam_stage(run.folder, modes, "trained")]
        stages += [suite.suite_stage(run.folder, root)] if root else []
        jobs.append(runs.Job(run.name, run.folder, tuple(stages)))
    return jobs


def check(plan: Plan, modes: Sequence[str]) -> None:
    """Raises what is wrong with the pairs of arms and modes, before anything runs."""
    for config in {run.arm: run.config for run in plan.runs}.values():
        check_data(config)
    exam = exam_of(plan.base, plan.root)
    check_data(exam)
    for split in runs.splits_of(modes):
        check_data(typed.override(exam, (f"data.eval_split={split}", "eval.pairs=1")))


def write_configs(plan: Plan) -> None:
    """Every run's configs as files; raises ValueError where a folder holds other ones."""
    for folder in (plan.root / tables.PIXELS, plan.root / tables.BASE):
        runs.write_config(folder / "exam.py", exam_of(plan.base, folder))
    for run in plan.runs:
        runs.write_config(run.folder / "train.py", run.config)
        runs.write_config(run.folder / "exam.py", run.exam)


def plan_text(plan: Plan, at_once: int) -> str:
    """The plan for a reader: studies, arms, what is done, and how long the rest may take."""
    lines = []
    for study, arms in plan.studies.items():
        lines.append(study)
        lines += [f"  {arm:14s} {plan.titles[arm]}" for arm in arms]
    left = sum(run.config.steps - (runs.latest_step(run.folder) or 0) for run in plan.runs)
    known = step_seconds(plan)
    step_s = known or STEP_S
    source = "measured in these runs" if known else "a guess for configs/tiny_cpu.py"
    hours = left * step_s / at_once / 3600
    lines.append(
        f"{len(plan.runs)} runs of {plan.base.steps} steps, seeds {plan.seeds}; {left} steps are "
        f"left: at {step_s:.2g} s each ({source}), {at_once} runs at once, about {hours:.2g} h and "
        f"the evaluations"
    )
    return "\n".join(lines)


def step_seconds(plan: Plan) -> float | None:
    """Median wall seconds of the steps that this plan's runs have made; None before the first."""
    rows = [row for run in plan.runs for row in read_rows(run.folder, kind="train")]
    return statistics.median(row["time/step"] for row in rows) if rows else None


def write_report(plan: Plan, modes: list[str], failures: list[str], args) -> Path:
    """ablation.json, .md and .png below the root; the section of --results. Returns the .md."""
    scores = tables.summarize(plan, modes)
    write_text(plan.root / "ablation.json", json.dumps(tables.plain(plan, scores), indent=1) + "\n")
    picture = args.root / "ablation.png"
    title = f"{plan.base.name}: {results.MODE_NAMES.get(modes[0], modes[0])}, 95 % intervals"
    figure.draw(picture, plan, scores[modes[0]], title=title)
    if args.effect:
        effect.draw(args.effect, plan, scores)
    told = {"command": args.command, "failures": failures}
    told["suite"] = suite.compared(plan) if args.suite else {}
    text = results.section(plan, scores, figure=picture.name, **told)
    page = plan.root / "ablation.md"
    write_text(page, text)
    if args.results:
        shown = args.results.with_suffix(".png")
        shown.write_bytes(picture.read_bytes())
        results.replace_section(
            args.results, results.section(plan, scores, figure=shown.name, **told)
        )
    return page


def study_parser(doc: str, arms: str) -> argparse.ArgumentParser:
    """What every study's command line has; `arms` is the file that it takes where none is named."""
    parser = argparse.ArgumentParser(
        description=doc, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    add = parser.add_argument
    add("--config", type=place_of, default="configs/tiny_cpu.py", help="the base of every arm")
    add_settings(parser, "one field of the base, by its dotted path")
    add("--arms", type=path_of, default=Path(arms))
    add("--root", type=path_of, required=True, help="folder of all runs")
    add("--seeds", type=seed_of, nargs="+", default=[0, 1, 2])
    add("--steps", type=int, help="of every arm; stages keep their shares")
    add("--jobs", type=int, default=1, help="runs at once, one pinned CPU core each if more than 1")
    modes = {"default": list(runs.USUAL), "choices": list(runs.MODES)}
    add("--modes", nargs="+", **modes, help="evaluations of every arm; the first is the one drawn")
    add("--results", type=path_of, help="Markdown file whose section is replaced")
    return parser


def parsed(parser: argparse.ArgumentParser, argv: list[str] | None, module: str):
    """The namespace of a study's command line, with the whole `command` for its report."""
    args = parser.parse_args(argv)
    if args.jobs < 1:
        parser.error(f"--jobs {args.jobs} is below 1; use 1 or more")
    given = sys.argv[1:] if argv is None else argv
    args.command = shlex.join(["python", "-m", module, *given])
    return args


def parse(argv: list[str] | None = None) -> argparse.Namespace:
    parser = study_parser(__doc__, "configs/ablations.py")
    add = parser.add_argument
    add("--only", metavar="STUDY", help="table4 or curriculum")
    add("--data", type=place_of, metavar="ROOT", help="pairs, instead of the base's data.root")
    add("--suite", type=path_of, metavar="ROOT", help="folder of benchmarks that all answer")
    add("--effect", type=path_of, metavar="PNG", help="a figure of F1 by split")
    add("--dry-run", action="store_true", help="print the plan and stop")
    return parsed(parser, argv, "scripts.study.ablate")


def run_told(jobs: Sequence[runs.Job], at_once: int) -> list[str] | None:
    """Runs what is left of the jobs; what failed, told with its log; None where it was stopped."""
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    try:
        outcomes = runs.run_jobs(jobs, at_once=at_once, say=say)
    except KeyboardInterrupt:
        say("stopped; the same command continues")
        return None
    failed = [outcome for outcome in outcomes if outcome.failed]
    for outcome in failed:
        log = outcome.job.folder / f"{outcome.failed.split()[0]}.log"
        print(f"\nFAILED {outcome.job.name} in {outcome.failed}, {log} ends:\n{outcome.tail}")
    return [f"{o.job.name} failed in {o.failed}" for o in failed]


def say(line: str) -> None:
    print(f"{time.strftime('%H:%M:%S')} {line}", flush=True)


def main(argv: list[str] | None = None) -> int:
    args = parse(argv)
    with clear_errors():  # whatever is wrong is found before the first run starts
        plan = plan_from(args)
        if args.results:
            results.check_results(args.results)
        print(plan_text(plan, args.jobs), flush=True)
        if args.dry_run:
            return 0
        check(plan, args.modes)
        write_configs(plan)
    told = run_told(jobs_of(plan, args.modes, args.suite), args.jobs)
    if told is None:
        return 130
    page = write_report(plan, args.modes, told, args)
    print(f"\n{page.read_text()}\nwritten: {page}, ablation.json, ablation.png beside it")
    return 1 if told else 0


if __name__ == "__main__":
    sys.exit(main())
