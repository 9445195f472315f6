"""Which answers a report shows, with their questions and pictures where the data are there."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from dig_jax.benchmark.pairing import Comparison, right_share
from dig_jax.benchmarks.prompts import PROMPTS
from dig_jax.benchmarks.question import Question
from dig_jax.benchmarks.questions import data_digest, pictures_digest, read_questions
from dig_jax.pages.answers import Answer, Card, is_box, of_row, unit_box, value_text
from dig_jax.pages.picture import Shown, small_copy
from dig_jax.pages.results import Scored
from dig_jax.pages.shell import Side

ANSWERS = 12
_NO_ROOT = (
    "Questions and pictures are not in result files: name the benchmarks' folder with --root to "
    "see them here."
)


class Questions:
    """The questions of benchmarks below a root, read when they are first asked for."""

    def __init__(self, root: Path | None):
        self._root = root
        self._known: dict[str, tuple[dict[str, Question], str]] = {}

    def of(self, result: Mapping[str, Any]) -> tuple[dict[str, Question], str]:
        """(id -> question, what a reader has to know of them or "") of a result's benchmark."""
        name = result["benchmark"]
        if name not in self._known:
            self._known[name] = self._read(name, result["protocol"])
        return self._known[name]

    def _read(self, name: str, protocol: Mapping) -> tuple[dict[str, Question], str]:
        if self._root is None:
            return {}, _NO_ROOT
        asked = str(protocol.get("prompt") or "").partition(" ")[0]
        prompt = asked if asked in PROMPTS else PROMPTS[0]
        try:
            found, _ = read_questions(self._root, name, prompt=prompt, pictures=False)
        except (ValueError, OSError) as error:
            return {}, f"Questions and pictures could not be read: {error}"
        now = {"data_digest": data_digest(found), "pictures_digest": pictures_digest(found)}
        both = [(protocol[name], one) for name, one in now.items() if protocol.get(name) and one]
        other = ""
        if any(then != one for then, one in both):
            other = f"The data below {self._root} are not those that were answered here."
        return {question.id: question for question in found}, other


def cards_of(
    name: str,
    scored: Sequence[Scored],
    found: Mapping[Side, Sequence[Comparison]],
    questions: Questions,
    count: int,
) -> tuple[list[Card], list[str]]:
    """(cards of one benchmark, what a reader has to know about them).

    found   comparisons of the other sides with the first; without any, wrong and right answers of
            the first side are shown
    count   of cards for each comparison
    """
    chosen, notes = [], []
    for side, comparisons in found.items():
        for each in comparisons:
            if each.benchmark == name:
                chosen += _flips(scored[0].side, side, each, count)
                notes.append(_told(scored[0].side, side, each))
    if not notes:
        chosen = _examples(scored[0], count)
    known, why = questions.of(scored[0].result) if chosen else ({}, "")
    notes += [why] if why else []
    cards = [_card(key, way, chip, sides, scored, known) for key, way, chip, sides in chosen]
    return cards, notes


def _told(first: Side, side: Side, each: Comparison) -> str:
    return (
        f"From {first.letter} to {side.letter}: {len(each.gained)} questions gained, "
        f"{len(each.lost)} lost; those shown are spread evenly over them."
    )


def _flips(first: Side, side: Side, each: Comparison, count: int) -> list[tuple]:
    half = count // 2
    gained = spread(each.gained, max(count - half, count - len(each.lost)))
    lost = spread(each.lost, count - len(gained))
    ways = [(key, "gained") for key in gained] + [(key, "lost") for key in lost]
    return [(key, way, f"{way} by {side.letter}", (first.number, side.number)) for key, way in ways]


def _examples(scored: Scored, count: int) -> list[tuple]:
    """Of one side alone: two thirds wrong answers, the rest right ones."""
    shares = right_share(scored.result["rows"])
    wrong = [key for key, share in shares.items() if share < 1]
    right = [key for key, share in shares.items() if share == 1]
    picked = spread(wrong, max(2 * count // 3, count - len(right)))
    picked = [(key, "wrong") for key in picked] + [
        (key, "right") for key in spread(right, count - len(picked))
    ]
    return [(key, way, way, (scored.side.number,)) for key, way in picked]


def spread(items: Sequence[str], count: int) -> list[str]:
    """At most so many of them, evenly over their order."""
    if count <= 0 or not items:
        return []
    places = np.linspace(0, len(items) - 1, min(count, len(items))).round().astype(int)
    return [items[place] for place in dict.fromkeys(places.tolist())]


def _card(
    key: str,
    way: str,
    chip: str,
    sides: Sequence[int],
    scored: Sequence[Scored],
    known: Mapping[str, Question],
) -> Card:
    answers = [_answer(each, key) for each in scored if each.side.number in sides]
    target = next(row for row in scored[0].result["rows"] if row["id"] == key)["target"]
    question = known.get(key)
    pictures, missing = _pictures(question) if question else ([], "")
    true = [unit_box(target)] if is_box(target) else []
    prompt = question.prompt if question else ""
    return Card(key, way, chip, prompt, value_text(target), true, pictures, missing, answers)


def _answer(scored: Scored, key: str) -> Answer:
    rows = [row for row in scored.result["rows"] if row["id"] == key]
    share = sum(float(row["correct"]) for row in rows) / len(rows)
    return of_row(scored.side, rows[0], len(rows), share)


def _pictures(question: Question) -> tuple[list[Shown], str]:
    shown = []
    for picture in question.pictures:
        try:
            shown.append(small_copy(picture.read()))
        except (ValueError, OSError) as error:
            return shown, f"A picture is missing: {error}"
    return shown, ""
