"""A file of answers, whoever gave them: {"id", "answer"} a line; also sample, ended, tokens."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

from dig_jax.benchmarks.question import Question

_MOST = 3  # ids that a message names
_FORM = '{"id": "...", "answer": "..."}'


class Answer(NamedTuple):
    """One line.

    sample   0 .. K - 1 where a question was answered K times
    ended    False where the token limit cut the answer off; taken as True where it is not told
    tokens   None where it is not told
    line     of the file, from 1
    """

    id: str
    text: str
    sample: int
    ended: bool
    tokens: int | None
    line: int


def read_answers(path: Path) -> list[Answer]:
    """Every line of a file of JSON lines; empty ones are passed over, further fields too.

    Raises ValueError naming file, line and remedy where a line is no answer, or answers an id and
    sample again; OSError where there is no file.
    """
    found: dict[tuple[str, int], Answer] = {}
    with path.open("rb") as file:
        for number, line in enumerate(file, start=1):
            if not line.strip():
                continue
            answer = _answer(line, f"{path} line {number}", number)
            known = found.setdefault((answer.id, answer.sample), answer)
            if known is not answer:
                raise ValueError(
                    f"{path} lines {known.line} and {number} both answer {answer.id!r}, sample "
                    f'{answer.sample}; keep one of them, or give repeats a "sample" of their own'
                )
    return [*found.values()]


def _answer(line: bytes, where: str, number: int) -> Answer:
    try:
        row = json.loads(line.decode("utf-8-sig"))
    except (ValueError, RecursionError) as error:
        raise ValueError(
            f"{where} is not JSON ({error}); a line is {_FORM}: was the file cut off?"
        ) from error
    if not isinstance(row, dict):
        raise ValueError(f"{where} is no object; a line is {_FORM}")
    name = row.get("id")
    name = str(name) if type(name) is int else name
    text, sample, ended = row.get("answer"), row.get("sample", 0), row.get("ended", True)
    tokens = row.get("tokens")
    _need(isinstance(name, str), where, "id", row, f"is no text; a line is {_FORM}")
    _need(isinstance(text, str), where, "answer", row, 'is no text; write "" for no answer')
    _need(type(sample) is int and sample >= 0, where, "sample", row, "is no number from 0; set one")
    _need(isinstance(ended, bool), where, "ended", row, "is not true or false; set one of them")
    ok = tokens is None or (type(tokens) is int and tokens >= 0)
    _need(ok, where, "tokens", row, "is no number from 0; set one, or leave it out")
    return Answer(name, text, sample, ended, tokens, number)


def _need(ok: bool, where: str, field: str, row: dict[str, Any], rule: str) -> None:
    if not ok:
        shown = json.dumps(row[field])[:60] if field in row else "missing"
        raise ValueError(f"{where}: {field} ({shown}) {rule}")


def matched(
    questions: Sequence[Question], answers: Sequence[Answer], *, partial: bool, where: str
) -> tuple[list[tuple[Question, Answer]], list[str]]:
    """(question, answer) of every answer, by question and sample; what a reader must know.

    partial   take what is there where questions lack answers
    where     the answers' file and the benchmark, for messages

    Raises ValueError where answers are of other questions, or are missing.
    """
    known = {question.id: question for question in questions}
    others = [answer for answer in answers if answer.id not in known]
    if others:
        raise ValueError(
            f"{where}: {len(others)} of {len(answers)} answers are of no question here, "
            f"{_some([each.id for each in others])} (line {others[0].line}); name the benchmark "
            f"that they answer: ids are those that `questions` writes"
        )
    by_place = {(answer.id, answer.sample): answer for answer in answers}
    samples = sorted({answer.sample for answer in answers}) or [0]
    places = [(question.id, sample) for question in questions for sample in samples]
    missing = [place for place in places if place not in by_place]
    warnings = []
    if missing:
        what = f"{len(missing)} of {len(places)} answers are missing"
        first = _some(list(dict.fromkeys(name for name, _ in missing)))
        if not partial or not answers:
            raise ValueError(
                f"{where}: {what}, of questions {first}; answer them, or score what is there with "
                f"--partial"
            )
        warnings.append(f"partial: {what}; a group is judged by those of its questions that have")
    pairs = [(known[place[0]], by_place[place]) for place in places if place in by_place]
    return pairs, warnings


def _some(ids: Sequence[str]) -> str:
    more = f" and {len(ids) - _MOST} more" if len(ids) > _MOST else ""
    return ", ".join(map(repr, ids[:_MOST])) + more
