"""Is a difference real? Results of several models on the same questions, paired by question.

    python -m dig_jax.benchmark compare results/base results/tuned

Of every benchmark that both have: the headline of each, the difference with its 95 % interval (both
sides by the same draws of questions, or of whatever shares a picture), how many questions went each
way, an exact McNemar p where questions stand alone and else a permutation p that swaps whole
clusters, Holm's correction over the benchmarks, and the smallest difference that so many questions
could have shown. Of more than two, each against the first.
"""

from __future__ import annotations

import argparse
import textwrap
from collections.abc import Mapping, Sequence
from typing import Any

from dig_jax.benchmark.folders import Result, find_results, short_names
from dig_jax.benchmark.outputs import check_out
from dig_jax.benchmark.pairing import Comparison, compare_all, in_units
from dig_jax.benchmarks import published
from dig_jax.common import typed
from dig_jax.common.commandline import WIDTH, path_of, seed_of, within
from dig_jax.common.files import write_json
from dig_jax.pages.shell import LETTERS

RESAMPLES = 10_000
_LEGEND = """\
95 % intervals by bootstrap over questions, or over what shares a picture; p: McNemar's exact test
where questions stand alone, else a permutation of clusters; Holm: corrected for the benchmarks of a
table; could show: the smallest difference found with a power of 80 % at 5 %, before correction."""


def add_arguments(parser: argparse.ArgumentParser, verb: str) -> None:
    parser.description = "Compare results on the same questions: is a difference more than noise?"
    parser.add_argument(
        "results",
        nargs="+",
        type=path_of,
        metavar="D",
        help="two or more: folders that hold NAME/result.json, or single ones; each is compared "
        "with the first",
    )
    parser.add_argument("--json", type=path_of, metavar="OUT", help="write all of it here too")
    add_comparing(parser)


def add_comparing(parser: argparse.ArgumentParser) -> None:
    """The options of whatever compares."""
    parser.add_argument(
        "--anyway",
        action="store_true",
        help="compare what is of two protocols, too; what differs is told",
    )
    parser.add_argument(
        "--resamples",
        type=within(int, 100, 10**6),
        default=RESAMPLES,
        help=f"draws of the bootstrap and of permutations; default: {RESAMPLES}",
    )
    parser.add_argument("--seed", type=seed_of, default=0, help="of those draws")


def run(args: argparse.Namespace, verb: str) -> int:
    """Read all, refuse what cannot be compared, compute, print."""
    typed.require(
        len(args.results) >= 2, "results", [*map(str, args.results)], "is one", "name two or more"
    )
    if args.json:
        check_out(args.json, field="--json")
    found = [find_results(place) for place in args.results]
    names = short_names(args.results)
    tables = comparisons(found, anyway=args.anyway, resamples=args.resamples, seed=args.seed)
    for number, (name, table) in enumerate(zip(names[1:], tables, strict=True), start=1):
        print(table_text(names[0], name, LETTERS[number % 26], table), end="\n\n")
    print(_LEGEND)
    for name in dict.fromkeys(each.benchmark for table in tables for each in table):
        if words := published.in_words(name, found[0][name].body["protocol"]):
            print(_wrapped(f"{name}: {words}", ""))
    if args.json:
        write_json(args.json, as_json(args, tables))
        print(f"written: {args.json}")
    return 0


def comparisons(
    found: Sequence[Mapping[str, Result]], *, anyway: bool, resamples: int, seed: int
) -> list[list[Comparison]]:
    """Each of the others with the first: a list of benchmarks for each."""
    first, *others = found
    return [
        compare_all(first, other, anyway=anyway, resamples=resamples, seed=seed) for other in others
    ]


def table_text(first: str, second: str, letter: str, found: Sequence[Comparison]) -> str:
    """Two lines per benchmark: its numbers, and in words what they say."""
    minus = "\N{MINUS SIGN}"
    head = ["", "n", "A", letter, f"{letter} {minus} A [95 %]", "flips", "p", "Holm", "could show"]
    rows = [head, *map(_cells, found)]
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    lines = [_line(row, widths) for row in rows]
    text = [f"A = {first}", f"{letter} = {second}", "", lines[0]]
    for each, line in zip(found, lines[1:], strict=True):
        text += [line, _wrapped(f"{each.metric}, {each.test}: {each.words}")]
        text += [_wrapped(f"note: {note}") for note in each.notes]
    return "\n".join(text)


def _wrapped(text: str, indent: str = "  ") -> str:
    return textwrap.fill(text, WIDTH, initial_indent=indent, subsequent_indent=f"{indent}  ")


def _cells(each: Comparison) -> list[str]:
    value, low, high = (in_units(v, each.scale, signed=True) for v in each.difference)
    shown = "-" if each.could_show is None else in_units(each.could_show, each.scale)
    return [
        each.benchmark,
        f"{each.questions}",
        in_units(each.first, each.scale),
        in_units(each.second, each.scale),
        f"{value} [{low}, {high}]",
        f"+{len(each.gained)} -{len(each.lost)}",
        p_short(each.p),
        p_short(each.p_holm),
        shown,
    ]


def _line(row: Sequence[str], widths: Sequence[int]) -> str:
    first, *rest = (
        cell.ljust(width) if number in (0, 4) else cell.rjust(width)
        for number, (cell, width) in enumerate(zip(row, widths, strict=True))
    )
    return "  ".join([first, *rest]).rstrip()


def p_short(p: float) -> str:
    return "<.001" if p < 0.001 else f"{p:.3f}"[1:] if p < 0.9995 else "1"


def as_rows(found: Sequence[Comparison]) -> list[dict[str, Any]]:
    """Comparisons as plain values."""
    return [typed.to_plain(each) for each in found]


def as_json(args: argparse.Namespace, tables: Sequence[Sequence[Comparison]]) -> dict[str, Any]:
    """What --json writes."""
    places = [str(place) for place in args.results]
    return {
        "first": places[0],
        "resamples": args.resamples,
        "seed": args.seed,
        "level": 0.05,
        "others": [
            {"folder": place, "benchmarks": as_rows(table)}
            for place, table in zip(places[1:], tables, strict=True)
        ],
    }
