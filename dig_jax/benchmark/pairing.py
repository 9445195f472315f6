"""Two results of one benchmark, paired by question: may they be compared, and what comes of it."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from dig_jax.benchmark.folders import Result
from dig_jax.benchmarks import result as results
from dig_jax.scoring.paired import ALPHA, holm, paired
from dig_jax.scoring.ratios import Score

# What makes two scores two different measurements -> what makes them one again. Not the source and
# the seed: these are what is compared; commit and versions stand in the report.
_AGAIN = "run both with one setting of it"
PROTOCOL = {
    "parser": "score both answers.jsonl with one `--parser`",
    "prompt": _AGAIN,
    "thinking": _AGAIN,
    "decoding": _AGAIN,
    "max_tokens": _AGAIN,
    "min_pixels": _AGAIN,
    "max_pixels": _AGAIN,
    "data_digest": "read both from one --root",
    "pictures_digest": "read both from one --root",
}
_WHERE_BOTH_TELL = ("pictures_digest",)  # a table is scored without its pictures, too
_SHARE = 0.02  # of answers cut off or unreadable, above which a reader is told


@dataclass(frozen=True)
class Comparison:
    """One benchmark of two sides; differences are second - first.

    metric      of `headline_of`, and `scale` the most that it can be: 1, 100, 2000, ...
    difference  [value, low, high]
    gained      ids of questions that the second side answers right more often, and lost
    p_holm      corrected for the number of benchmarks that were compared together
    could_show  smallest difference that so many questions could show; None: no difference
    verdict     "better", "worse", or "inside noise", and `words` about it
    notes       what a reader has to know: questions left out, protocols that differ
    """

    benchmark: str
    metric: str
    scale: float
    questions: int
    clusters: int
    first: float
    second: float
    difference: tuple[float, float, float]
    gained: tuple[str, ...]
    lost: tuple[str, ...]
    test: str
    p: float
    p_holm: float
    could_show: float | None
    verdict: str = ""
    words: str = ""
    notes: tuple[str, ...] = ()


def compare_all(
    first: Mapping[str, Result],
    second: Mapping[str, Result],
    *,
    anyway: bool = False,
    resamples: int,
    seed: int,
) -> list[Comparison]:
    """Every benchmark that both sides have, Holm's correction over all of them.

    Raises ValueError where there is none, or as `pair`; all protocols are looked at before the
    first number is computed.
    """
    names = [name for name in first if name in second]
    if not names:
        raise ValueError(
            f"no benchmark is in both: the first has {', '.join(first)}; the second has "
            f"{', '.join(second)}; name results of the same benchmarks"
        )
    pairs = {name: pair(first[name], second[name], anyway=anyway) for name in names}
    found = [
        compare(first[name], second[name], *pairs[name], resamples=resamples, seed=seed)
        for name in names
    ]
    corrected = holm([each.p for each in found])
    return [_judged(each, p, len(found)) for each, p in zip(found, corrected, strict=True)]


def pair(first: Result, second: Result, *, anyway: bool = False) -> tuple[list[str], list[str]]:
    """(ids of the questions to compare, in the first side's order; notes on what differs).

    anyway   notes in place of refusals, but for two sides that share no question

    Raises ValueError naming both files, what differs and the remedy.
    """
    notes = _of_protocols(first, second, anyway)
    one, two = _targets(first.body), _targets(second.body)
    shared = [key for key in one if key in two]
    if not shared:
        raise ValueError(
            f"{second.path} and {first.path} share no question; name two results of the same ones"
        )
    if len(shared) < max(len(one), len(two)):
        notes += _of_questions(first, second, one, two, len(shared), anyway)
    return shared, notes + _of_targets(first, second, one, two, shared, anyway)


def _of_protocols(first: Result, second: Result, anyway: bool) -> list[str]:
    differing = protocol_differences(first.body, second.body)
    if differing and not anyway:
        told = "; ".join(f"{name}: {b!r} and {a!r}" for name, (a, b) in differing.items())
        again = "; ".join(dict.fromkeys(PROTOCOL[name] for name in differing))
        raise ValueError(
            f"{second.path} and {first.path} are of two protocols ({told}); {again}; or compare "
            f"them --anyway"
        )
    told = differing.items()
    return [f"another {name}: {a!r} in the first, {b!r} in the second" for name, (a, b) in told]


def _of_questions(
    first: Result, second: Result, one: Mapping, two: Mapping, shared: int, anyway: bool
) -> list[str]:
    """Some of the questions were answered on one side alone: fine where the data are the same."""
    digests = {each.body["protocol"].get("data_digest") for each in (first, second)}
    if not anyway and (len(digests) > 1 or None in digests):
        only = next(key for key in (*one, *two) if (key in one) != (key in two))
        raise ValueError(
            f"{second.path} and {first.path} have {len(two)} and {len(one)} questions, {only!r} in "
            f"one of them alone, and no digest tells that both are of the same data; answer the "
            f"same questions in both, or compare the {shared} shared ones --anyway"
        )
    counts = f"{len(one)} and {len(two)} were scored"
    return [f"only the {shared} questions that both sides have: {counts}"]


def _of_targets(
    first: Result, second: Result, one: Mapping, two: Mapping, shared: Sequence[str], anyway: bool
) -> list[str]:
    other = [key for key in shared if one[key] != two[key]]
    if other and not anyway:
        raise ValueError(
            f"{second.path} and {first.path} have two targets for question {other[0]!r}: "
            f"{two[other[0]]!r} and {one[other[0]]!r} ({len(other)} such questions); score both "
            f"from one --root, or compare them --anyway"
        )
    return [f"{len(other)} questions have another target in the second"] if other else []


def protocol_differences(first: Mapping, second: Mapping) -> dict[str, tuple[Any, Any]]:
    """field -> (first, second) of the protocol fields that are not the same.

    A field that neither tells is no difference; one that a single side tells is, but for those of
    `_WHERE_BOTH_TELL`.
    """
    pairs = {name: (first["protocol"].get(name), second["protocol"].get(name)) for name in PROTOCOL}
    return {
        name: pair
        for name, pair in pairs.items()
        if pair[0] != pair[1] and not (name in _WHERE_BOTH_TELL and None in pair)
    }


def compare(
    first: Result,
    second: Result,
    ids: Sequence[str],
    notes: Sequence[str],
    *,
    resamples: int,
    seed: int,
) -> Comparison:
    """The headline of both sides over some questions, alone: p_holm is p."""
    rows = [rows_of(each.body, ids) for each in (first, second)]
    scores = [results.scores_of_rows(first.name, each) for each in rows]
    metric = headline_of(first.body["headline"], scores[0])
    ours, theirs = (each[metric] for each in scores)
    found = paired(ours, theirs, resamples=resamples, seed=seed)
    shares = [right_share(each) for each in rows]
    gained = tuple(key for key in ids if shares[1][key] > shares[0][key])
    lost = tuple(key for key in ids if shares[1][key] < shares[0][key])
    return Comparison(
        benchmark=first.name,
        metric=metric,
        scale=sum(abs(weight) for weight, _ in ours) or 1.0,
        questions=len(ids),
        clusters=found.clusters,
        first=found.first,
        second=found.second,
        difference=(found.difference, found.low, found.high),
        gained=gained,
        lost=lost,
        test=found.test,
        p=found.p,
        p_holm=found.p,
        could_show=None if math.isinf(found.could_show) else found.could_show,
        notes=(
            *notes,
            *results.alone(found.clusters),
            *_unread(first, "the first"),
            *_unread(second, "the second"),
        ),
    )


def headline_of(headline: str, scores: Mapping[str, Score]) -> str:
    """The headline, or the first score that counts anything: a rule may want parts that a set of
    questions lacks, as CV-Bench's wants its three sources."""
    return next((metric for metric in (headline, *scores) if scores.get(metric)), headline)


def rows_of(body: Mapping, ids: Sequence[str]) -> list[dict]:
    """The rows of some questions, by question in the given order, then by sample."""
    order = {key: number for number, key in enumerate(ids)}
    rows = [row for row in body["rows"] if row["id"] in order]
    return sorted(rows, key=lambda row: (order[row["id"]], row.get("sample", 0)))


def right_share(rows: Sequence[Mapping]) -> dict[str, float]:
    """id -> the share of its samples that are right."""
    samples: dict[str, list[float]] = {}
    for row in rows:
        samples.setdefault(row["id"], []).append(float(row["correct"]))
    return {key: sum(each) / len(each) for key, each in samples.items()}


def _targets(body: Mapping) -> dict[str, Any]:
    return {row["id"]: row["target"] for row in body["rows"]}


def _unread(each: Result, where: str) -> list[str]:
    counts = each.body["counts"]
    answers = counts.get("answers") or 0
    told = {"cut off": counts.get("truncated", 0), "unreadable": counts.get("unparsed", 0)}
    return [
        f"{count / answers:.0%} of the answers of {where} are {what}"
        for what, count in told.items()
        if answers and count > _SHARE * answers
    ]


def _judged(each: Comparison, p_holm: float, benchmarks: int) -> Comparison:
    """With its verdict: more than noise is what stands Holm's correction."""
    if p_holm < ALPHA and each.difference[0]:
        verdict = "better" if each.difference[0] > 0 else "worse"
        words = f"{verdict}: more than noise"
        return replace(each, p_holm=p_holm, verdict=verdict, words=words)
    among = ""
    if each.p < ALPHA:
        among = f" among {benchmarks} benchmarks (alone p is below {ALPHA:g})"
    asked = f"{each.questions} questions"
    if each.clusters < each.questions:
        asked += f" in {each.clusters} group{'s' * (each.clusters > 1)}"
    shown = "no difference at all"
    if each.could_show is not None:
        shown = f"{in_units(each.could_show, each.scale)} or more"
    words = f"inside noise{among}: {asked} could show {shown}"
    return replace(each, p_holm=p_holm, verdict="inside noise", words=words)


def in_units(value: float, scale: float, *, signed: bool = False) -> str:
    """A score as it is read: shares in percent, points as they are."""
    value, digits = (100 * value, 1) if scale <= 1.001 else (value, 1 if scale <= 100 else 0)
    return f"{value:{'+' if signed else ''}.{digits}f}"
