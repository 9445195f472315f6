"""Results and runs as one HTML file that opens anywhere, without a network.

    python -m dig_jax.benchmark report results/base results/tuned --root data --out report.html

Takes result folders and run folders alike: scores with their intervals drawn, differences and what
they are worth, every benchmark's details, answers that changed with their pictures (from --root)
and boxes, a run's curves and cost, protocols, environments and settings with what differs marked.
"""

from __future__ import annotations

import argparse
import datetime
from collections.abc import Mapping, Sequence
from pathlib import Path

from dig_jax.benchmark.cards import ANSWERS, Questions, cards_of
from dig_jax.benchmark.compare import RESAMPLES, add_comparing, as_rows
from dig_jax.benchmark.folders import in_order
from dig_jax.benchmark.outputs import check_out
from dig_jax.benchmark.pairing import Comparison, compare_all
from dig_jax.benchmark.places import Place, read_places
from dig_jax.benchmarks import published
from dig_jax.common import typed
from dig_jax.common.commandline import path_of, within
from dig_jax.common.files import make_folder, write_text
from dig_jax.pages import facts, runs
from dig_jax.pages import results as pages
from dig_jax.pages.answers import filter_bar
from dig_jax.pages.picture import box_key
from dig_jax.pages.shell import (
    Html,
    Section,
    Side,
    joined,
    letter,
    page,
    panel,
    paragraph,
    table,
    tag,
)

_MAX_MB = 40
_OPEN = 3  # benchmarks up to which all are shown open
_OF_A_BENCHMARK = (
    "rows",
    "expected_rows",
    "data_digest",
    "pictures_digest",
)  # told with the benchmark itself
_ENVIRONMENT = ("commit", "versions", "device", "devices", "platform", "seconds")


def add_arguments(parser: argparse.ArgumentParser, verb: str) -> None:
    parser.description = "Write one HTML file about results and runs; it needs no network."
    parser.add_argument(
        "places", nargs="+", type=path_of, metavar="D", help="result folders and run folders"
    )
    parser.add_argument("--out", type=path_of, required=True, help="the file to write")
    parser.add_argument(
        "--root", type=path_of, help="folder of the benchmarks' data: questions and pictures"
    )
    parser.add_argument(
        "--answers",
        type=within(int, 0, 10_000),
        default=ANSWERS,
        help=f"answers shown of each benchmark and comparison; default: {ANSWERS}",
    )
    parser.add_argument(
        "--max-mb",
        type=within(float, 0.01, 1e4),
        default=_MAX_MB,
        help=f"refuse a larger file; default: {_MAX_MB}",
    )
    add_comparing(parser)


def run(args: argparse.Namespace, verb: str) -> int:
    """Read all, make the page, write it."""
    check_out(args.out)
    text = page_of(
        args.places,
        root=args.root,
        answers=args.answers,
        anyway=args.anyway,
        resamples=args.resamples,
        seed=args.seed,
    )
    write_page(args.out, text, args.max_mb)
    print(f"{args.out}: {len(text.encode()) / 1e6:.1f} MB; open it in a browser")
    return 0


def write_page(out: Path, text: str, max_mb: float = _MAX_MB) -> None:
    """Raises ValueError where the file would be larger than a browser likes."""
    size = len(text.encode()) / 1e6
    if size > max_mb:
        raise ValueError(
            f"{out} would have {size:.1f} MB, above --max-mb={max_mb:g}; use fewer --answers, or a "
            f"higher --max-mb"
        )
    make_folder(out.parent)
    write_text(out, text)


def page_of(
    paths: Sequence[Path],
    *,
    root: Path | None = None,
    answers: int = ANSWERS,
    anyway: bool = False,
    resamples: int = RESAMPLES,
    seed: int = 0,
) -> str:
    """The whole page.

    Raises ValueError naming a folder that holds neither results nor a run, and as their readers.
    """
    places = read_places(paths)
    scored = [place for place in places if place.results]
    found, refused = {}, []
    for place in scored[1:]:
        try:
            found[place.side] = compare_all(
                scored[0].results, place.results, anyway=anyway, resamples=resamples, seed=seed
            )
        except ValueError as error:  # they may stand side by side, but not be subtracted
            refused.append((place.side, f"{error}"))
    questions = Questions(root)
    sections = [
        Section("scores", "Scores", _scores(scored, refused)),
        Section("differences", "Differences", _differences(scored, found, refused)),
        Section("benchmarks", "Benchmarks", _benchmarks(scored, found, questions, answers)),
        *_runs([place for place in places if place.run], answers),
        Section("published", "Published", _published(scored)),
        Section("protocol", "Protocol", _protocol(scored)),
        Section("environment", "Environment", _environment(places)),
        Section("settings", "Settings that differ", _settings(places)),
    ]
    names = ", ".join(place.side.name for place in places)
    today = f"{datetime.datetime.now(datetime.UTC):%Y-%m-%d}"
    return page(f"Report: {names}", f"Made {today} by dig_jax.", [p.side for p in places], sections)


def _names(scored: Sequence[Place]) -> list[str]:
    return in_order({name for place in scored for name in place.results})


def _of(scored: Sequence[Place], name: str) -> list[pages.Scored]:
    having = (place for place in scored if name in place.results)
    return [pages.Scored(place.side, place.results[name].body) for place in having]


def _scales_of(scored: Sequence[Place], name: str) -> dict[str, pages.Scale]:
    """The scales of a benchmark's scores; those of the first side go before others."""
    found: dict[str, pages.Scale] = {}
    for place in scored:
        found = place.scales.get(name, {}) | found
    return found


def _scores(scored: Sequence[Place], refused: Sequence[tuple[Side, str]]) -> Html:
    if not scored:
        return Html("")
    benchmarks = {name: _of(scored, name) for name in _names(scored)}
    scales = {
        name: _scales_of(scored, name)[each[0].result["headline"]]
        for name, each in benchmarks.items()
    }
    notes = [
        tag("p", joined(letter(side), " is not measured as ", letter(scored[0].side),
            " is, see Differences."), css="note")
        for side, _ in refused
    ]  # fmt: skip
    return panel(*notes, pages.scores_table([p.side for p in scored], benchmarks, scales))


def _differences(
    scored: Sequence[Place],
    found: Mapping[Side, Sequence[Comparison]],
    refused: Sequence[tuple[Side, str]],
) -> Html:
    parts = []
    for side, comparisons in found.items():
        first = scored[0].side
        read = _read_beside(scored[0], comparisons)
        rows = as_rows(comparisons)
        parts.append(tag("h3", joined(letter(side), f" {side.name} beside ", letter(first),
                                      f" {first.name}")))  # fmt: skip
        parts.append(pages.differences_table(first, side, rows, read))
    for side, why in refused:
        parts.append(tag("p", joined(letter(side), " is not compared: ", why), css="note"))
    if found:
        parts.append(paragraph(pages.METHOD, "soft small"))
    return panel(*parts) if parts else Html("")


def _read_beside(place: Place, comparisons: Sequence[Comparison]) -> dict[str, str]:
    names = [each.benchmark for each in comparisons]
    protocols = {name: place.results[name].body["protocol"] for name in names}
    return {name: published.in_words(name, protocols[name], short=True) for name in names}


def _benchmarks(
    scored: Sequence[Place],
    found: Mapping[Side, Sequence[Comparison]],
    questions: Questions,
    answers: int,
) -> Html:
    names, blocks, ways = _names(scored), [], []
    for name in names:
        each = _of(scored, name)
        cards, notes = cards_of(name, each, found, questions, answers)
        ways += [card.way for card in cards]
        blocks.append(
            pages.benchmark(
                name, each, _scales_of(scored, name), cards, notes, open_=len(names) <= _OPEN
            )
        )
    if not blocks:
        return Html("")
    key = box_key([place.side for place in scored])
    return joined(filter_bar(ways), key if ways else "", *blocks)


def _runs(places: Sequence[Place], answers: int) -> list[Section]:
    sections = []
    for place in places:
        cards, _ = runs.changed_pairs(place.run, answers)
        body = runs.run_section(place.run, cards)
        heading = f"Run {place.side.letter}: {place.side.name}"
        sections.append(Section(f"run-{place.side.number}", heading, body))
    return sections


def _published(scored: Sequence[Place]) -> Html:
    having = {n: _of(scored, n)[0].result["protocol"] for n in _names(scored)}
    names = [name for name, protocol in having.items() if published.in_words(name, protocol)]
    rows = [
        [
            f"{row.benchmark}, {row.metric}",
            f"{row.value:g}" + ("" if row.trained is None else f" → {row.trained:g}"),
            row.model,
            row.source,
            row.evidence,
        ]
        for row in published.ROWS
        if row.benchmark in names
    ]
    if not rows:
        return Html("")
    head = ["benchmark", "score", "model", "source", "how it came here"]
    caption = "For reading beside the scores above: other prompts, budgets and parsers"
    return panel(table(head, rows, caption=caption, css="facts"))


def _protocol(scored: Sequence[Place]) -> Html:
    if not scored:
        return Html("")
    left_out = (*_OF_A_BENCHMARK, *_ENVIRONMENT)
    fields = [_merged(place, lambda name: name not in left_out) for place in scored]
    caption = "How the answers were asked for, drawn and read; \N{NOT EQUAL TO} marks what differs"
    return panel(facts.beside([place.side for place in scored], fields, caption=caption))


def _environment(places: Sequence[Place]) -> Html:
    fields = []
    for place in places:
        told = runs.environment(place.run) if place.run else {}
        fields.append(told | _merged(place, lambda name: name in _ENVIRONMENT))
    sides = [place.side for place in places]
    return panel(facts.beside(sides, fields, caption="With what it was made"))


def _merged(place: Place, wanted) -> dict[str, object]:
    parts = []
    for name, each in place.results.items():
        flat = dict(typed.leaves(each.body["protocol"]))
        parts.append((name, {k: v for k, v in flat.items() if wanted(k.partition(".")[0])}))
    return facts.merged(parts)


def _settings(places: Sequence[Place]) -> Html:
    """Where several runs are named: the settings that are not the same in all."""
    having = [place for place in places if place.run]
    if len(having) < 2:
        return Html("")
    fields = [runs.settings(place.run) for place in having]
    sides = [place.side for place in having]
    body = facts.beside(
        sides, fields, caption="Settings of the runs that differ", only_differences=True
    )
    return panel(body or paragraph("All settings are the same."))
