"""POPE: is there such a thing in the picture?

Its three tracks (adversarial, popular, random) share half of their questions. What is asked of one
picture is one question here, and its tracks stand in its groups: all of them count when it is
scored, and it is answered once.
"""

from __future__ import annotations

import dataclasses

from dig_jax.benchmarks import prompts, values
from dig_jax.benchmarks.question import Question
from dig_jax.benchmarks.values import Row

TRACKS = ("adversarial", "popular", "random")


def read(rows: list[Row]) -> tuple[list[Question], list[str]]:
    """Questions with group "track": names with commas, a name twice where its track asks twice.

    Raises ValueError where two rows answer one question differently.
    """
    found: dict[tuple[str, str], Question] = {}
    places: dict[tuple[str, str], str] = {}
    for row in rows:
        question = _question(row)
        key = question.groups["picture"], question.prompt
        known = found.setdefault(key, question)
        if known.target != question.target:
            rule = f"but {places[key]} answers the same question {known.target!r}"
            raise values.refuse(row, "answer", question.target, rule)
        if known is not question:
            tracks = f"{known.groups['track']},{question.groups['track']}"
            groups = dict(known.groups, track=tracks)
            found[key] = dataclasses.replace(known, groups=groups)
        else:
            places[key] = row.where
    return list(found.values()), []


def rows_of(questions: list[Question]) -> int:
    """How many rows of the tracks these are."""
    return sum(len(question.groups["track"].split(",")) for question in questions)


def _question(row: Row) -> Question:
    track = values.maybe(row, "category") or _track_of_file(row)
    names = [name.strip().lower() for name in str(track).split(",")]
    unknown = [name for name in names if name not in TRACKS]
    if unknown:
        raise values.refuse(row, "category", track, f"is none of the tracks {', '.join(TRACKS)}")
    asked = prompts.yes_no(values.text(row, "question"))
    target = values.yes_no(row, "answer")
    number = values.maybe(row, "index")
    if number is None:  # question_id begins anew in every track
        number = f"{names[0]}-{values.maybe(row, 'question_id', 'id') or row.number}"
    groups = {"picture": values.picture_key(row), "track": ",".join(names)}
    return Question(str(number), asked, row.pictures, "yes_no", target, groups=groups)


def _track_of_file(row: Row) -> str:
    """The files of the configuration Full are called by their track."""
    name = row.file.name.lower()
    return next((t for t in TRACKS if t in name), "") or values.text(row, "category")
