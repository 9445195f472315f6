"""A scored benchmark as a file, and back: what was asked how, the scores, every answer.

The rows hold all that the scores are made of, so whoever has the file alone computes them again,
also for some of the questions.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from dig_jax.benchmarks.aggregate import lacking, scores_of
from dig_jax.benchmarks.checked import AGAIN, check
from dig_jax.benchmarks.columns import clusters
from dig_jax.benchmarks.question import Question
from dig_jax.benchmarks.reading import Reading
from dig_jax.benchmarks.readings import answer_of
from dig_jax.benchmarks.scored import Scored
from dig_jax.common.files import read_sealed, write_sealed
from dig_jax.scoring.ratios import Score, interval

PROTOCOL = (
    "parser prompt thinking decoding seed max_tokens min_pixels max_pixels source source_digest "
    "dtype data_digest pictures_digest rows expected_rows samples commit versions"
).split()
UNREAD = 0.02  # of the answers cut off or not read, above which a warning stands beside the scores
SHOWN = 2000  # characters of an answer that a row keeps


def protocol(**known: Any) -> dict[str, Any]:
    """All fields of PROTOCOL, None where they are not known.

    parser, thinking, samples are a scorer's to tell; the rest is what the answers were made with.
    Raises TypeError for a field that is not one of them.
    """
    unknown = sorted(set(known) - set(PROTOCOL))
    if unknown:
        raise TypeError(f"protocol has no field {', '.join(unknown)}; it has {', '.join(PROTOCOL)}")
    return {name: known.get(name) for name in PROTOCOL}


def make_result(
    name: str,
    scored: Sequence[Scored],
    *,
    protocol: Mapping[str, Any],
    warnings: Sequence[str] = (),
    resamples: int,
    seed: int = 0,
) -> dict[str, Any]:
    """The whole of a result.json.

    name        of `catalog.NAMES`
    scored      every answer, of one or several samples per question
    protocol    of `protocol`
    warnings    of the readers and of whoever made the answers; those about scores are added
    resamples   bootstrap draws; the interval is the value where it is 0

    Raises ValueError where there is no answer, or no rule for the name.
    """
    if not scored:
        raise ValueError(f"{name}: there is no answer to score; answer its questions first")
    scores = scores_of(name, scored)
    counts = _counts(scored)
    return {
        "benchmark": name,
        "protocol": dict(protocol),
        "scores": {metric: interval(score, resamples, seed) for metric, score in scores.items()},
        "headline": next(iter(scores)),
        "counts": counts,
        "warnings": [
            *warnings,
            *lacking(name, scored),
            *_unread(counts, protocol),
            *alone(len(set(clusters(scored).values()))),
        ],
        "rows": [_row(each, bool(protocol["thinking"])) for each in scored],
    }


def write_result(path: str | Path, result: Mapping[str, Any]) -> None:
    """Writes result.json whole and sealed; raises OSError as `common.files.telling_room`."""
    write_sealed(path, dict(result))


def read_result(path: Path) -> dict[str, Any]:
    """What `write_result` wrote; raises ValueError naming the file where it is something else."""
    found = read_sealed(path, AGAIN)
    check(found, f"{path}")
    return found


def scores_of_rows(name: str, rows: Sequence[Mapping[str, Any]]) -> dict[str, Score]:
    """`aggregate.scores_of` of a result's rows, or of some of them."""
    return scores_of(name, [_scored(row) for row in rows])


def _counts(scored: Sequence[Scored]) -> dict[str, Any]:
    how = Counter(each.reading.how for each in scored)
    unread = sum(each.reading.value is None for each in scored)
    return {
        "questions": len({each.question.id for each in scored}),
        "answers": len(scored),
        "truncated": how["truncated"],
        "unparsed": unread - how["truncated"],
        "how": dict(how.most_common()),
    }


def _unread(counts: Mapping[str, Any], protocol: Mapping[str, Any]) -> list[str]:
    """What must stand beside scores of answers that were often not read."""
    cut, unparsed = (counts[name] / counts["answers"] for name in ("truncated", "unparsed"))
    if cut + unparsed <= UNREAD:
        return []
    told = f"{cut:.1%} of the answers are cut off and {unparsed:.1%} could not be read: all wrong"
    if cut == 1 and protocol["thinking"]:
        told += "; none has a </think>: if a server took the thoughts off, leave out --thinking"
    return [told]


def alone(count: int) -> list[str]:
    """What must stand beside intervals where one cluster alone is drawn; count: of clusters."""
    if count > 1:
        return []
    return [
        "all questions share a picture, a pair or a set: of others nothing is known, and intervals "
        "are nearly the whole scale"
    ]


def _row(each: Scored, thinking: bool) -> dict[str, Any]:
    question = each.question
    row = {
        "id": question.id,
        "sample": each.sample,
        "correct": each.correct,
        "value": each.reading.value,
        "target": question.target,
        "how": each.reading.how,
        "iou": each.iou,
        "best": each.best,
        "groups": dict(question.groups),
        "tokens": each.tokens,
        "text": _shown(each.text, thinking),
    }
    return {name: value for name, value in row.items() if value is not None or name == "value"}


def _shown(text: str, thinking: bool) -> str:
    """The answer without its thought, of a text that was cut off its end; at most SHOWN long."""
    answer = answer_of(text, thinking=thinking)
    if answer is None:
        return text if len(text) <= SHOWN else f"... {text[-SHOWN:]}"
    return answer if len(answer) <= SHOWN else f"{answer[:SHOWN]} ..."


def _scored(row: Mapping[str, Any]) -> Scored:
    value, target = row["value"], row["target"]
    box = isinstance(target, list | tuple)
    question = Question(
        row["id"],
        prompt="",
        pictures=(),
        kind="box" if box else "yes_no" if target in ("yes", "no") else "letter",
        target=tuple(target) if box else target,
        groups=row["groups"],
    )
    return Scored(
        question,
        row["sample"],
        row["text"],
        Reading(value, row["how"]),
        row["correct"],
        row.get("iou"),
        row.get("best"),
        row.get("tokens"),
    )
