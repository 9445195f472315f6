"""Benchmark scores beside one another, differences with their p values, one benchmark in full."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from typing import NamedTuple

from dig_jax.pages import bars
from dig_jax.pages.answers import Card, card_html
from dig_jax.pages.facts import beside
from dig_jax.pages.shell import Html, Side, details, joined, letter, paragraph, table, tag

METHOD = (
    "Paired by question. Intervals: 95 %, bootstrap over questions or over what shares a picture, "
    "both sides by the same draws. p: McNemar's exact test where questions stand alone, else a "
    "permutation that swaps whole clusters. Holm: corrected for the benchmarks of the table; more "
    "than noise is what stays below .05. The grey band is what these questions could not have "
    "shown: the smallest difference found with a power of 80 % at 5 %, before correction."
)


class Scored(NamedTuple):
    """One benchmark of one side: what its result.json says, without the rows."""

    side: Side
    result: Mapping


class Scale(NamedTuple):
    """How a score is written: times `factor`, from 0 to `most`."""

    factor: float
    most: float

    def text(self, value: float, *, signed: bool = False) -> str:
        digits = 1 if self.most <= 100 else 0
        text = f"{self.factor * value:{'+' if signed else ''}.{digits}f}"
        return text.replace("-", "\N{MINUS SIGN}")


def scale_of(largest: float) -> Scale:
    """Of a score that `largest` is the most of: shares are written in percent."""
    return Scale(100.0, 100.0) if largest <= 1.001 else Scale(1.0, largest)


def scores_table(
    sides: Sequence[Side],
    benchmarks: Mapping[str, Sequence[Scored]],
    scales: Mapping[str, Scale],
) -> Html:
    """The headline of every benchmark for every side, with intervals as numbers and pictures."""
    rows = []
    for name, scored in benchmarks.items():
        metric, scale = scored[0].result["headline"], scales[name]
        by_side = {each.side.number: each for each in scored}
        cells = [_score(by_side.get(side.number), metric, scale) for side in sides]
        drawn = [
            (each.side, [scale.factor * v for v in each.result["scores"][metric]])
            for each in scored
            if metric in each.result["scores"]
        ]
        picture = bars.intervals(drawn, (0.0, scale.most), _in_words(name, metric, drawn))
        count = scored[0].result["counts"]["questions"]
        title = joined(name, tag("div", f"{metric}, {count} questions", css="soft small"))
        rows.append([title, *cells, picture])
    head = ["benchmark", *map(letter, sides), "95 % intervals"]
    return table(head, rows, css="stack", wide=[len(head) - 1])


def _score(scored: Scored | None, metric: str, scale: Scale) -> Html | str:
    if scored is None or metric not in scored.result["scores"]:
        return "-"
    value, low, high = map(scale.text, scored.result["scores"][metric])
    return joined(tag("b", value), " ", tag("span", f"[{low}, {high}]", css="range"))


def _in_words(name: str, metric: str, drawn: Sequence) -> str:
    each = (f"{s.letter} {v:.3g} [{low:.3g}, {high:.3g}]" for s, (v, low, high) in drawn)
    return f"{name} {metric}: {'; '.join(each)}"


def differences_table(
    first: Side, side: Side, found: Sequence[Mapping], published: Mapping[str, str]
) -> Html:
    """Paired comparisons of one side with the first.

    found       of benchmark.pairing, as plain values
    published   benchmark -> what others published of it, in words
    """
    rows, most = [], _widest(found)
    for each in found:
        scale = scale_of(each["scale"])
        low, high = (scale.text(v, signed=True) for v in each["difference"][1:])
        value = scale.text(each["difference"][0], signed=True)
        moved = joined(tag("b", value), " ", tag("span", f"[{low}, {high}]", css="range"))
        css = {"better": "better", "worse": "worse"}.get(each["verdict"], "noise")
        read = published.get(each["benchmark"])
        notes = [paragraph(note, "soft small") for note in (*each["notes"], read) if note]
        title = joined(each["benchmark"], tag("div", each["metric"], css="soft small"))
        rows.append(
            [
                title,
                moved,
                _difference(side, each, most),
                f"+{len(each['gained'])} \N{MINUS SIGN}{len(each['lost'])}",
                joined(p_text(each["p"]), " ", tag("span", each["test"], css="soft small")),
                p_text(each["p_holm"]),
                joined(tag("span", each["words"], css=css), *notes),
            ]
        )
    head = [
        "benchmark",
        f"{side.letter} \N{MINUS SIGN} {first.letter}",
        "interval, in % of the scale",
    ]
    head += ["gained, lost", "p", "Holm", "in words"]
    return table(head, rows, css="stack", wide=[2, 6])


def _difference(side: Side, each: Mapping, most: float) -> Html:
    drawn, shown = _in_percent(each)
    label = f"{drawn[0]:+.1f} % [{drawn[1]:+.1f}, {drawn[2]:+.1f}], could show {shown:.1f}"
    return bars.difference(side, drawn, shown, most, label)


def _in_percent(each: Mapping) -> tuple[list[float], float]:
    """(difference with its interval, what could be shown) in percent of the benchmark's scale."""
    percent, could = 100 / each["scale"], each["could_show"]
    drawn = [percent * value for value in each["difference"]]
    return drawn, math.inf if could is None else percent * could


def _widest(found: Sequence[Mapping]) -> float:
    """The end of a scale on which all differences of a table can be looked at together."""
    most = 5.0
    for each in found:
        drawn, shown = _in_percent(each)
        most = max(most, *map(abs, drawn), shown if math.isfinite(shown) else 0.0)
    return next((end for end in (5.0, 10.0, 20.0, 30.0, 50.0) if end >= most), 100.0)


def p_text(p: float) -> str:
    """Two digits, as p values are read."""
    return "<\N{NO-BREAK SPACE}.001" if p < 0.001 else f"{p:.3f}" if p < 0.1 else f"{p:.2f}"


def benchmark(
    name: str,
    scored: Sequence[Scored],
    scales: Mapping[str, Scale],
    cards: Sequence[Card],
    notes: Sequence[str],
    *,
    open_: bool,
) -> Html:
    """Everything about one benchmark: all its scores, how answers were read, warnings, answers.

    scales   of each metric
    notes    what a reader should know of the answers shown
    """
    sides = [each.side for each in scored]
    metrics = list(dict.fromkeys(m for each in scored for m in each.result["scores"]))
    rows = [[m, *(_score(each, m, scales[m]) for each in scored)] for m in metrics]
    warnings = [
        tag("p", joined(letter(each.side), " ", warning), css="note")
        for each in scored
        for warning in each.result.get("warnings", ())
    ]
    metric = scored[0].result["headline"]
    heads = (
        joined(letter(each.side), " ", _score(each, metric, scales[metric])) for each in scored
    )
    summary = joined(tag("b", name), Html(" &ensp; ").join(heads))
    ways = dict.fromkeys(how for each in scored for how in each.result["counts"].get("how") or {})
    counts = beside(
        sides, [_counts(each.result, ways) for each in scored], caption="How answers were read"
    )
    body = joined(
        *warnings,
        table(["score", *map(letter, sides)], rows, caption="All scores, 95 % intervals"),
        counts,
        *(paragraph(note, "soft small") for note in notes),
        *map(card_html, cards),
    )
    return details(summary, body, css="bench", open_=open_)


def _counts(result: Mapping, ways: Iterable[str]) -> dict[str, str]:
    """Counts with their share of all answers, and how long answers are.

    ways   in which any side's answers were read
    """
    counts, protocol = dict(result["counts"]), result["protocol"]
    answers, how = counts.get("answers") or 0, counts.pop("how", None) or {}
    found = {
        name: f"{count} ({count / answers:.1%})" if answers and name not in _WHOLE else f"{count}"
        for name, count in counts.items()
    }
    found["rows found, expected"] = f"{protocol.get('rows')}, {protocol.get('expected_rows')}"
    found |= {f"read: {name}": f"{how.get(name, 0)}" for name in ways}
    tokens = sorted(row["tokens"] for row in result["rows"] if row.get("tokens") is not None)
    if tokens:
        middle, total = tokens[len(tokens) // 2], sum(tokens)
        found["tokens per answer"] = f"{middle} in the middle, {tokens[-1]} at most"
        found["tokens of all answers"] = f"{total}"
    return found | _cost(result.get("cost") or {})


def _cost(cost: Mapping) -> dict[str, str]:
    """What answering took, and how much of that was compiling; of `benchmark.cost.read_cost`."""
    seconds = cost.get("seconds")
    if not seconds:
        return {}
    answering = max(seconds - cost["compiling"], 1e-9)
    return {
        "seconds of answering": f"{seconds:.1f} for {cost['answers']} answers, on {cost['on']}",
        "share that was compiling": f"{cost['compiling'] / seconds:.1%}",
        "tokens per second without it": f"{cost['tokens'] / answering:.0f}",
        "sittings that came to their end": f"{cost['sittings']}",
    }


_WHOLE = ("questions", "answers")
