"""What a run achieved: one table, curves, and contact sheets, from the files of its folder.

    python -m dig_jax.report runs/tiny
    python -m dig_jax.report runs/tiny --html report.html

Reads config.json, manifest.json, metrics.jsonl and eval_<name>.json; writes report.md,
curves.png, contact_before.png, contact_after.png and pair.png beside them, and with --html one page
that opens anywhere, the same that `dig_jax.benchmark report` makes of results. No model is loaded.
"""

import argparse
import json
import os
import sys
import tempfile
from pathlib import Path

from dig_jax.common.commandline import path_of, place_of
from dig_jax.common.files import NoRoom, telling_room, write_text
from dig_jax.config import Config, from_json
from dig_jax.pages.run_folder import costs, held_out_images
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


def read_beside(run_dir: Path, evaluations: dict[str, Evaluation]) -> dict[str, dict]:
    """Evaluations of `evaluate --more` by what they are of: "greedy", "test_noise", ...

    Those that have a before and an after; the held-out split's baseline stands beside "greedy".
    """
    found, run = {}, manifest.number_of(run_dir)
    for last in sorted(run_dir.glob("eval_after_*.json")):
        suffix = last.stem.removeprefix("eval_after_")
        paths = {name: run_dir / f"eval_{name}_{suffix}.json" for name in NAMES}
        some = {name: read_evaluation(path) for name, path in paths.items() if path.is_file()}
        for name, one in some.items():
            manifest.check_number(paths[name], one, run, "delete it, and evaluate again")
        if "before" not in some:
            continue
        if suffix == "greedy" and "pixel_diff" in evaluations:
            some["pixel_diff"] = evaluations["pixel_diff"]
        for name, one in some.items():
            _check_comparable(some["before"], one, name)
        found[suffix] = some
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
        images = held_out_images(cfg, evaluations["after"]["protocol"])
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


def beside_text(beside: dict[str, dict]) -> list[str]:
    """A heading and a table for each of `read_beside`."""
    parts = []
    for some in beside.values():
        facts = some["after"]["protocol"]
        parts.append(f"The greedy answer to {facts['pairs']} pairs of `{facts['split']}`:")
        parts.append(markdown(table(some, metric_labels(some["after"]))))
    return parts


def report_text(
    run_dir: Path, cfg: Config, evaluations, left_out: list[str], beside: dict[str, dict]
) -> str:
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
        *beside_text(beside),
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
    beside = read_beside(run_dir, evaluations)
    with telling_room(run_dir / "report.md"):
        # beside, so that a full disk leaves the pictures of the report before
        with tempfile.TemporaryDirectory(prefix=".report-", dir=run_dir) as part:
            left_out = draw(run_dir, Path(part), cfg, evaluations)
            for path in sorted(Path(part).iterdir()):
                os.replace(path, run_dir / path.name)
        write_text(run_dir / "report.md", report_text(run_dir, cfg, evaluations, left_out, beside))
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
    parser.add_argument(
        "--html", type=path_of, metavar="OUT", help="write one page here too; it needs no network"
    )
    args = parser.parse_args(argv)
    try:
        print(write_report(args.run_dir))
        if args.html:
            from dig_jax.benchmark.report import page_of, write_page  # reads benchmarks, too

            write_page(args.html, page_of([Path(args.run_dir)]))
    except (FileNotFoundError, NoRoom, ValueError) as error:
        print(f"report: {error}", file=sys.stderr)
        return 1
    page = f", {args.html}" if args.html else ""
    print(f"\nwritten: {Path(args.run_dir) / 'report.md'} and its pictures{page}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
