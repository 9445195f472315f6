"""A benchmark's questions, read from its files below the root and checked: the one entry."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence
from pathlib import Path

from dig_jax.benchmarks import (
    ai2d,
    cvbench,
    hallusionbench,
    hrbench,
    mmbench,
    mme,
    mmstar,
    mmvp,
    pope,
    prompts,
    refcoco,
    scienceqa,
    vsr,
    vstar,
)
from dig_jax.benchmarks.catalog import BENCHMARKS, entry_of, named
from dig_jax.benchmarks.entry import Benchmark
from dig_jax.benchmarks.picture_cells import file_of, file_sample, is_there, missing, read_table
from dig_jax.benchmarks.question import Question
from dig_jax.benchmarks.sources import find_files, forms

OURS = "questions.json"  # in a root that `data questions` made

_READERS = {
    "ai2d": ai2d.read,
    "cvbench": cvbench.read,
    "hallusionbench": hallusionbench.read,
    "hrbench": hrbench.read,
    "mmbench": mmbench.read,
    "mme": mme.read,
    "mmstar": mmstar.read,
    "mmvp": mmvp.read,
    "pope": pope.read,
    "scienceqa": scienceqa.read,
    "vsr": vsr.read,
    "vstar": vstar.read,
}


def read_questions(
    root: str | Path, name: str, *, prompt: str = "qwen", pictures: bool = True
) -> tuple[list[Question], list[str]]:
    """A benchmark's questions in the order of their files, and what a reader of scores must know.

    root      folder that holds a folder per benchmark, see `catalog`
    name      of `catalog.NAMES`
    prompt    of `prompts.PROMPTS`: how RefCOCO's expressions are asked for
    pictures  whether files of pictures that are not there are refused; scoring needs none

    Every file is read once, whole; no picture is kept. Raises ValueError and OSError naming the
    file, the row, what is wrong and the remedy.
    """
    entry = entry_of(name)
    if prompt not in prompts.PROMPTS:
        known = ", ".join(prompts.PROMPTS)
        raise ValueError(f"prompt={prompt!r} is unknown; use one of {known}")
    rows = read_table(find_files(root, entry))
    if entry.family == "refcoco":
        questions, warnings = refcoco.read(rows, entry, prompt)
    else:
        questions, warnings = _READERS[entry.family](rows)
    _check(questions, entry, root)
    gone = missing(questions)
    if gone and pictures:
        raise FileNotFoundError(f"{len(gone)} pictures of {entry.title} are not there; {gone[0]}")
    return questions, [*_of_forms(root, entry), *warnings, *_of_count(questions, entry, root)]


def wanted(root: str | Path, request: str) -> tuple[str, ...]:
    """The names that a request means: `catalog.named`, or "here" for all that the root holds.

    Raises ValueError where a word is unknown, or the root holds none.
    """
    if request != "here":
        return named(request)
    found = tuple(entry.name for entry in BENCHMARKS if forms(root, entry))
    if not found:
        raise ValueError(
            f"{root} holds no benchmark; see `list --root {root}` for what belongs there"
        )
    return found


def rows_of(questions: Sequence[Question]) -> int:
    """How many rows the questions stand for: POPE's tracks share them, elsewhere it is one each."""
    if questions and "track" in questions[0].groups:
        return pope.rows_of(list(questions))
    return len(questions)


def data_digest(questions: Sequence[Question]) -> str:
    """SHA-256 of what is asked and what is right: ids, prompts, targets, options, picture keys."""
    digest = hashlib.sha256()
    for q in questions:
        keys = [picture.key for picture in q.pictures]
        digest.update(json.dumps([q.id, q.prompt, q.kind, q.target, q.options, keys]).encode())
    return digest.hexdigest()


def pictures_digest(questions: Sequence[Question]) -> str | None:
    """SHA-256 of the pictures that are files beside the table; None without any, or without all.

    `data_digest` has their names alone; those within a table it has by their contents. Of each
    its size and three pieces are looked at, see `file_sample`.
    """
    pictures = {picture.key: file_of(picture) for q in questions for picture in q.pictures}
    paths = {key: path for key, path in pictures.items() if path is not None}
    if not paths or not all(is_there(p) for q in questions for p in q.pictures):
        return None
    digest = hashlib.sha256()
    for key, path in sorted(paths.items()):
        digest.update(json.dumps([key, *file_sample(path)]).encode())
    return digest.hexdigest()


def _check(questions: list[Question], entry: Benchmark, root: str | Path) -> None:
    """Raises ValueError where there is no question, or two have one id."""
    if not questions:
        raise ValueError(
            f"the files of {entry.title} hold no question of it: are they another split's? "
            f"download it: {entry.command(root)}"
        )
    seen: set[str] = set()
    for question in questions:
        if question.id in seen:
            raise ValueError(
                f"{entry.title}: two rows have the id {question.id}; are its files there twice, "
                f"or of two revisions? keep one of them in {Path(root) / entry.folder}"
            )
        seen.add(question.id)


def _of_forms(root: str | Path, entry: Benchmark) -> list[str]:
    """Which files are read where there are several forms of a benchmark."""
    read, *others = forms(root, entry)
    if not others:
        return []
    return [f"read from {read[0]}; {others[0][0]} holds it too and is not read"]


def counts_known(root: str | Path, entry: Benchmark, count: int) -> list[str]:
    """Which numbers of rows are known of a benchmark, and why they differ: where `count` is not the
    usual one, and the files are not this house's own."""
    if not entry.rows or count == entry.rows[0] or (Path(root) / OURS).is_file():
        return []
    known = " or ".join(f"{number:,}" for number in entry.rows)
    why = f": {entry.differs}" if entry.differs else ""
    return [f"{entry.title} is known with {known} rows{why}"]


def _of_count(questions: list[Question], entry: Benchmark, root: str | Path) -> list[str]:
    """Why there may be more or fewer rows than the standard files have."""
    count = rows_of(questions)
    if not entry.rows or count in entry.rows:
        return []
    if (Path(root) / OURS).is_file():
        return [f"{entry.title}'s form alone: questions about rendered scenes, see {OURS}"]
    why = f": {entry.differs}" if entry.differs else ""
    return [f"{entry.title} has {count} rows where the standard has {entry.rows[0]}{why}"]
