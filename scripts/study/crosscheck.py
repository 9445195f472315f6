"""Do our readers and rules agree with a toolkit's, on the same answers? And where not, why?

    python -m scripts.study.crosscheck make --out runs/crosscheck [--count 500] [--seed 0]
    PYTHON scripts/study/crosschecking/toolkits.py lmms-eval runs/crosscheck/answers.jsonl T.jsonl
    python -m scripts.study.crosscheck compare runs/crosscheck/answers.jsonl T.jsonl

`make` writes answers.jsonl, in the phrasings of `crosschecking.answers`, and plain.jsonl, whose one
phrasing everybody reads alike: of it the sums are compared. `compare` prints tables in Markdown:
for each task how often both sides score an answer the same, how often each scores it as its writer
meant, every phrasing that they score differently, and both sides' sums.
"""

import argparse
import json
from collections import Counter
from pathlib import Path

from dig_jax.benchmarks.aggregate import scores_of
from dig_jax.benchmarks.question import Question
from dig_jax.benchmarks.reading import Reading
from dig_jax.benchmarks.readings import PARSERS
from dig_jax.benchmarks.scored import HIT, Scored, overlaps, score_answer
from dig_jax.common.commandline import path_of, seed_of, within
from dig_jax.common.files import make_folder, write_text
from dig_jax.scoring.ratios import value
from dig_jax.scoring.table import markdown
from scripts.study.crosschecking.answers import rows

Row = dict


def read_lines(path: Path) -> list[Row]:
    return [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]


def ours(row: Row, parser: str) -> Scored:
    """A row of `make` as we score it."""
    target = tuple(map(float, row["target"])) if row["kind"] == "box" else row["target"]
    question = Question(
        row["id"], "?", (), row["kind"], target, tuple(row["options"]), row["groups"]
    )
    return score_answer(question, row["answer"], parser=parser, thinking=row["thinking"])


def meant(row: Row) -> bool:
    """Whether what its writer meant is right; of a box: by the rule of the first one."""
    if row["kind"] != "box" or row["meant"] is None:
        return row["meant"] == row["target"]
    return overlaps(Reading((tuple(row["meant"]),), ""), tuple(row["target"]))[0] >= HIT


def compare(answers: list[Row], theirs: list[Row], parser: str) -> str:
    """The tables of `compare`."""
    scored = {row["id"]: ours(row, parser) for row in answers}
    read = {row["id"]: row for row in theirs if "id" in row}
    sums = {row["task"]: row["scores"] for row in theirs if "task" in row}
    by_task: dict[str, list[Row]] = {}
    for row in answers:
        by_task.setdefault(row["task"], []).append(row)
    heads = ["task", "answers", "same score", "ours as meant", "theirs as meant"]
    lines, differ, totals = [heads], Counter(), [["task", "score", "ours", "theirs"]]
    examples: dict[tuple, Row] = {}
    for task, some in by_task.items():
        same = our_right = their_right = 0
        for row in some:
            mine, other = scored[row["id"]].correct, read[row["id"]]["correct"]
            our_right += mine == meant(row)
            their_right += other == meant(row)
            same += mine == other
            if mine != other:
                key = (row["kind"], row["form"].removesuffix(", thought"), mine > other)
                differ[key, task] += 1
                examples.setdefault(key, row)
        lines.append([task, str(len(some)), str(same), str(our_right), str(their_right)])
        found = scores_of(task, [scored[row["id"]] for row in some])
        totals += [
            [task, metric, f"{value(found[metric]):.4f}", f"{number:.4f}"]
            for metric, number in sums.get(task, {}).items()
        ]
    classes = [["phrasing", "an answer", "scored right by", "in", "ours", "theirs"]]
    for key, row in examples.items():
        kind, form, is_ours = key
        where = ", ".join(f"{task} {n}" for (k, task), n in differ.items() if k == key)
        shown = row["answer"].rpartition("</think>")[2].strip() or row["answer"]
        cells = [_shown(shown), "ours" if is_ours else "theirs", where]
        both = scored[row["id"]].reading.value, read[row["id"]]["value"]
        classes.append([f"{kind}: {form}", *cells, *map(_shown, both)])
    tables = [lines, classes, *([totals] if len(totals) > 1 else [])]
    return "\n\n".join(map(markdown, tables))


def _shown(what: object) -> str:
    """One cell: no line ends, no bars, 60 characters at most."""
    text = " ".join(str(what).split()).replace("|", "/")
    return f"`{text if len(text) <= 60 else text[:57] + '...'}`"


def make(folder: Path, count: int, seed: int) -> None:
    make_folder(folder)
    for name, plain in (("answers", False), ("plain", True)):
        lines = (json.dumps(row) + "\n" for row in rows(count, seed, plain=plain))
        write_text(folder / f"{name}.jsonl", "".join(lines))
        print(folder / f"{name}.jsonl")


def main(argv: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    verbs = parser.add_subparsers(dest="verb", required=True)
    making = verbs.add_parser("make", help="write the answers")
    making.add_argument("--out", type=path_of, required=True)
    making.add_argument("--count", type=within(int, 1, 10**6), default=500, help="for each task")
    making.add_argument("--seed", type=seed_of, default=0)
    comparing = verbs.add_parser("compare", help="print where two sides differ")
    comparing.add_argument("answers", type=path_of)
    comparing.add_argument("theirs", type=path_of)
    comparing.add_argument("--parser", choices=PARSERS, default="dig_jax", help="of our side")
    args = parser.parse_args(argv)
    if args.verb == "make":
        make(args.out, args.count, args.seed)
    else:
        both = read_lines(args.answers), read_lines(args.theirs)
        print(compare(*both, PARSERS[args.parser]))


if __name__ == "__main__":
    main()
