"""The verb score: anybody's answers to a benchmark's questions, by the rules alone.

    python -m dig_jax.benchmark score --root R --name pope --answers a.jsonl --out result.json

A line of answers is {"id", "answer"}, ids as `questions` writes them; also "sample" for repeats,
"ended": false where a token limit cut it off, "tokens".
"""

from __future__ import annotations

import argparse
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from dig_jax.benchmark.outputs import check_out
from dig_jax.benchmark.told import add_told, merged, not_told
from dig_jax.benchmarks import prompts
from dig_jax.benchmarks.answers import matched, read_answers
from dig_jax.benchmarks.catalog import entry_of
from dig_jax.benchmarks.questions import data_digest, pictures_digest, read_questions, rows_of
from dig_jax.benchmarks.readings import PARSERS
from dig_jax.benchmarks.result import (
    make_result,
    protocol,
    read_result,
    scores_of_rows,
    write_result,
)
from dig_jax.benchmarks.scored import score_answer
from dig_jax.common.commandline import path_of, seed_of, within
from dig_jax.run.manifest import git_commit, versions

RESAMPLES = 2000
OURS = "answers.jsonl"  # as `run` calls its answers, beside their result.json


def add_arguments(parser: argparse.ArgumentParser, verb: str) -> None:
    parser.description = "Score answers to a benchmark's questions by rules alone."
    add = parser.add_argument
    add("--root", type=path_of, required=True, help="folder that holds a folder per benchmark")
    add("--name", required=True, help="a benchmark, see `list`")
    add("--answers", type=path_of, required=True, help='JSON lines {"id", "answer"[, "sample"]}')
    add("--out", type=path_of, required=True, help="the result.json to write")
    add(
        "--thinking",
        action="store_true",
        help="the prompt ended in <think>: an answer without </think> was cut off",
    )
    add("--parser", choices=PARSERS, default="dig_jax", help="whose rules read the answers")
    add("--prompt", choices=prompts.PROMPTS, help="how it was asked, where `questions` was used")
    add_told(parser)
    add("--partial", action="store_true", help="score what is there where answers are missing")
    add(
        "--resamples",
        type=within(int, 0, 10**6),
        default=RESAMPLES,
        help=f"draws of the bootstrap; 0: no intervals; default: {RESAMPLES}",
    )
    add("--seed", type=seed_of, default=0, help="of those draws")


def run(args: argparse.Namespace, verb: str) -> int:
    """Read all, refuse what does not fit, score, write, print."""
    check_out(args.out, args.answers)
    known = merged(args.told, _protocol_beside(args))
    prompt = args.prompt or next(iter((known.get("prompt") or prompts.PROMPTS[0]).split()))
    questions, warnings = read_questions(args.root, args.name, prompt=prompt, pictures=False)
    answers = read_answers(args.answers)
    where = f"{args.answers} for {args.name}"
    pairs, partial = matched(questions, answers, partial=args.partial, where=where)
    digests = {"data_digest": data_digest(questions), "pictures_digest": pictures_digest(questions)}
    told_both = [(known[n], digest) for n, digest in digests.items() if known.get(n) and digest]
    if any(then != now for then, now in told_both):
        rule = "the answers were given when the data, a prompt or a picture were others"
        warnings = [*warnings, rule]
    told = {
        **known,
        "parser": PARSERS[args.parser],
        "thinking": args.thinking or bool(known.get("thinking")),
        **{name: digest or known.get(name) for name, digest in digests.items()},
        "rows": rows_of(questions),
        "expected_rows": entry_of(args.name).expected(rows_of(questions)),
        "samples": len({answer.sample for _, answer in pairs}),
        "commit": known.get("commit") or git_commit(),
        "versions": known.get("versions") or versions(),
    }
    if args.prompt:
        told["prompt"] = prompts.prompt_version(args.prompt)
    made_with = protocol(**told)
    scored = [
        score_answer(
            question,
            answer.text,
            parser=told["parser"],
            thinking=told["thinking"],
            sample=answer.sample,
            ended=answer.ended,
            tokens=answer.tokens,
        )
        for question, answer in pairs
    ]
    result = make_result(
        args.name,
        scored,
        protocol=made_with,
        warnings=[*warnings, *partial, *not_told(made_with)],
        resamples=args.resamples,
        seed=args.seed,
    )
    write_result(args.out, result)
    print("\n".join([*table(result), f"written: {args.out}"]))
    return 0


def _protocol_beside(args: argparse.Namespace) -> Mapping[str, Any]:
    """How answers of ours were made: what the result beside them says; {} of others' answers.

    A result that this verb wrote tells no source: what was said of it then is not said again.
    """
    path: Path = args.answers.with_name("result.json")
    if args.answers.name != OURS or not path.is_file():
        return {}
    found = read_result(path)
    ours = found["benchmark"] == args.name and found["protocol"].get("source")
    return found["protocol"] if ours else {}


def table(result: Mapping[str, Any]) -> list[str]:
    """Lines for a terminal: every score with its interval, counts, warnings."""
    scores, counts = result["scores"], result["counts"]
    scales = {
        metric: sum(weight for weight, _ in score)
        for metric, score in scores_of_rows(result["benchmark"], result["rows"]).items()
    }
    width = max(map(len, scores))
    lines = [f"{result['benchmark']}, {counts['questions']} questions, {counts['answers']} answers"]
    for metric, (value, low, high) in scores.items():
        shown = [_in_units(number, scales[metric]) for number in (value, low, high)]
        lines.append(f"  {metric:{width}}  {shown[0]:>6} [{shown[1]}, {shown[2]}]")
    how = ", ".join(f"{name} {count}" for name, count in counts["how"].items())
    lines.append(f"  cut off {counts['truncated']}, not read {counts['unparsed']} ({how})")
    return [*lines, *(f"warning: {each}" for each in result["warnings"])]


def _in_units(value: float, scale: float) -> str:
    """Shares in percent, points as they are."""
    return f"{100 * value if scale <= 1.001 else value:.1f}"
