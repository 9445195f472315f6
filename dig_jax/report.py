"""What a run achieved: one table, curves, and contact sheets, from the files of its folder.

    python -m dig_jax.report runs/tiny

Reads config.json, manifest.json, metrics.jsonl and eval_<name>.json; writes report.md,
curves.png, contact_before.png, contact_after.png and pair.png beside them. No model is loaded.
"""

import argparse
import json
import os
import statistics
import sys
import tempfile
from dataclasses import replace
from pathlib import Path

import numpy as np

from dig_jax.common.commandline import place_of
from dig_jax.common.files import NoRoom, telling_room, write_text
from dig_jax.config import Config, from_json
from dig_jax.data.feed.pipeline import eval_pairs
from dig_jax.pictures import contact, curves
from dig_jax.run import checkpoint, manifest
from dig_jax.run.runlog import read_rows, told_gap
from dig_jax.scoring.table import (
    NAMES,
    Evaluation,
    columns,
    count_labels,
    markdown,
    metric_labels,
    read_evaluation,
    table,
)

PICTURES = ("curves", "contact_before", "contact_after")


def read_evaluations(run_dir: Path) -> dict[str, Evaluation]:
    """The evaluations of a run that exist, in the order of NAMES.

    Raises FileNotFoundError unless there are `before` and `after`, and ValueError naming the
    field when their protocols or pairs differ: such numbers must not stand in one table.
    """
    found, run = {}, manifest.number_of(run_dir)
    for name in NAMES:
        path = run_dir / f"eval_{name}.json"
        if path.is_file():
            found[name] = read_evaluation(path)
            manifest.check_number(path, found[name], run, "delete it, and evaluate again")
        elif name != "pixel_diff":
            flag = " --from-run" if name == "after" else ""
            raise FileNotFoundError(
                f"{path} does not exist; make it with `python -m dig_jax.evaluate --config "
                f"CONFIG --run-dir {run_dir} --name {name}{flag}`"
            )
    for name, other in found.items():
        _check_comparable(found["before"], other, name)
    return found


def _check_comparable(first: Evaluation, other: Evaluation, name: str) -> None:
    # a baseline decodes nothing, so these bind the policy's evaluations only
    free = ("decode", "max_tokens", "model_image") if name == "pixel_diff" else ()
    for field, value in first["protocol"].items():
        now = other["protocol"].get(field)
        if field not in free and now != value:
            raise ValueError(
                f"eval_{name}.json has {field}={now!r}, eval_before.json {value!r}; evaluate "
                f"both again with one config"
            )
    if [row["pair_id"] for row in first["rows"]] != [row["pair_id"] for row in other["rows"]]:
        raise ValueError(f"eval_{name}.json and eval_before.json scored different pairs")


def verdict(before: Evaluation, after: Evaluation) -> str:
    """Whether the mean reward's rise lies outside both intervals."""
    (old, _, high), (new, low, _) = (e["summary"]["reward"] for e in (before, after))
    rise = f"mean reward {old:.3f} -> {new:.3f} ({new - old:+.3f})"
    if high < low:
        return f"{rise}, outside the intervals: {high:.3f} < {low:.3f}"
    return f"{rise}, NOT outside the intervals: {high:.3f} >= {low:.3f}"


def draw(run_dir: Path, out: Path, cfg: Config, evaluations: dict[str, Evaluation]) -> list[str]:
    """Writes to `out` every picture that the files allow; returns what was left out, and why."""
    left_out = []
    try:
        stages = [max(s.weights, key=s.weights.get) for s in cfg.curriculum.stages]
        rows = read_rows(run_dir)
        title = f"{cfg.name}: {sum(row['kind'] == 'train' for row in rows)} steps"
        if gap := told_gap(rows, checkpoint.latest_step(run_dir) or 0):
            left_out.append(f"of curves.png: {gap}")
        curves.curves(out / "curves.png", rows, title=title, stages=stages)
    except (ValueError, ImportError) as error:  # matplotlib comes with the extra [report]
        left_out.append(f"curves.png: {error}")
    try:
        protocol = evaluations["after"]["protocol"]
        scored = replace(cfg, eval=replace(cfg.eval, pairs=protocol["pairs"]))
        batches = eval_pairs(scored, protocol["split"])
        images = np.concatenate([batch.images[batch.real] for batch in batches])
        for name in ("before", "after"):
            path = out / f"contact_{name}.png"
            title = f"{cfg.name}, {name} training: held-out pairs"
            contact.contact_sheet(path, images, drawn_rows(evaluations[name]), title=title)
        rows = drawn_rows(evaluations["after"])
        shown = contact.example(rows)
        contact.pair_picture(out / "pair.png", images[shown], rows[shown])
    except (FileNotFoundError, ValueError) as error:  # a run folder may travel without its data
        left_out.append(f"contact sheets: {error}")
    return left_out


def drawn_rows(evaluation: Evaluation) -> list[dict]:
    """Rows whose scores are those of the answer that is drawn, not means over all answers."""
    return [row | row.get("shown", {}) for row in evaluation["rows"]]


def costs(rows: list[dict]) -> list[list[str]]:
    """Seconds of a training step by phase, the first one's apart, and answer tokens per second.

    The first step holds the compilation, and so does the first one after a resume.
    """
    train = [row for row in rows if row["kind"] == "train"]
    lines = [["phase", "first step, s", "median step, s", "all steps, s"]]
    for name in sorted({name for row in train for name in row if name.startswith("time/")}):
        spent = [row[name] for row in train if name in row]
        cells = [f"{spent[0]:.1f}", f"{statistics.median(spent):.2f}", f"{sum(spent):.0f}"]
        lines.append([name.removeprefix("time/"), *cells])
    rates = [row["tokens"] / row["time/rollout"] for row in train if row.get("time/rollout")]
    rate = f"{statistics.median(rates):.0f}" if rates else "-"
    return [*lines, ["answer tokens per second of rollout", "", rate, ""]]


def report_text(run_dir: Path, cfg: Config, evaluations, left_out: list[str]) -> str:
    """report.md."""
    before, after = evaluations["before"], evaluations["after"]
    drawn = [run_dir / f"{name}.png" for name in PICTURES]
    drawn = [path for path in drawn if path.is_file()]
    parts = [
        f"# {cfg.name}",
        "Means over held-out pairs with 95 % bootstrap intervals over pairs.",
        markdown(table(evaluations, metric_labels(after))),
        verdict(before, after) + ".",
        "By the true number of differences n:",
        markdown(list(zip(*table(evaluations, count_labels(after)), strict=True))),
        "## Pictures",
        "\n\n".join(f"![{p.stem}]({p.name})" for p in drawn),
        "\n".join(f"Left out: {reason}" for reason in left_out),
        "## Cost",
        markdown(costs(read_rows(run_dir))),
        "## Protocol",
        "\n".join(f"- {name}: {value}" for name, value in after["protocol"].items()),
        "## Made by",
        _made_by(run_dir),
    ]
    return "\n\n".join(part for part in parts if part) + "\n"


def _made_by(run_dir: Path) -> str:
    """The last start of the run, what it depends on, and what later starts changed."""
    starts = manifest.read_manifest(run_dir).get("starts")
    if not starts:
        return f"Not told: {manifest.NAME} is not there, or the run has not started."
    facts = dict(starts[-1])
    table = facts.pop("depends", {})
    for name in ("first_step", "changed", "accepted", "stopped"):
        facts.pop(name, None)
    facts["versions"] = ", ".join(f"{k} {v}" for k, v in facts.get("versions", {}).items())
    facts["started at step"] = ", ".join(str(start.get("first_step")) for start in starts)
    parts = ["\n".join(f"- {name}: {value}" for name, value in facts.items())]
    if table:
        parts += ["What its numbers depend on:", markdown([["what", "value"], *table.items()])]
    changes = [
        [str(start.get("first_step")), kind, name, str(old), str(new)]
        for start in starts
        for kind in ("changed", "accepted")
        for name, (old, new) in start.get(kind, {}).items()
    ]
    stops = [start["stopped"] for start in starts if "stopped" in start]
    changes += [[str(stop["step"]), "stopped", stop["why"], "", ""] for stop in stops]
    if changes:
        heads = ["at step", "how", "what", "before", "after"]
        parts += ["Differences between its starts:", markdown([heads, *changes])]
    return "\n\n".join(parts)


def write_report(run_dir: str | Path) -> str:
    """Writes report.md and the pictures; returns the table and the verdict for the console."""
    run_dir = Path(run_dir)
    settings = manifest.read_settings(run_dir)
    if not settings:
        raise FileNotFoundError(
            f"{run_dir / manifest.SETTINGS} does not exist; is {run_dir} a run folder? The command "
            f"that trains there writes it"
        )
    cfg = from_json(json.dumps(settings))
    evaluations = read_evaluations(run_dir)
    with telling_room(run_dir / "report.md"):
        # beside, so that a full disk leaves the pictures of the report before
        with tempfile.TemporaryDirectory(prefix=".report-", dir=run_dir) as beside:
            left_out = draw(run_dir, Path(beside), cfg, evaluations)
            for path in sorted(Path(beside).iterdir()):
                os.replace(path, run_dir / path.name)
        write_text(run_dir / "report.md", report_text(run_dir, cfg, evaluations, left_out))
    lines = table(evaluations, metric_labels(evaluations["after"]))
    pairs = len(evaluations["after"]["rows"])
    notes = [f"left out: {reason}" for reason in left_out]
    head = f"{pairs} held-out pairs, 95 % intervals"
    outcome = verdict(evaluations["before"], evaluations["after"])
    return "\n".join([head, "", columns(lines), "", outcome, *notes])


def main(argv: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument(
        "run_dir", type=place_of, help="run folder of dig_jax.train, with its evaluations"
    )
    args = parser.parse_args(argv)
    try:
        print(write_report(args.run_dir))
    except (FileNotFoundError, NoRoom, ValueError) as error:
        print(f"report: {error}", file=sys.stderr)
        return 1
    print(f"\nwritten: {Path(args.run_dir) / 'report.md'} and its pictures")
    return 0


if __name__ == "__main__":
    sys.exit(main())
