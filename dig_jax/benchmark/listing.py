"""The verbs list and questions: what is below a root, and what is asked.

    python -m dig_jax.benchmark list --root R [--check]
    python -m dig_jax.benchmark questions --root R --name pope --out q.jsonl

`questions` writes a line {"id", "prompt", "pictures"} per question, to be answered by any program;
`score` reads the answers.
"""

from __future__ import annotations

import argparse
import json
import os
import sys
from collections.abc import Sequence
from pathlib import Path

from dig_jax.benchmark.outputs import check_out
from dig_jax.benchmarks import catalog, prompts
from dig_jax.benchmarks.entry import Benchmark
from dig_jax.benchmarks.picture_cells import file_of, open_picture
from dig_jax.benchmarks.question import Picture, Question
from dig_jax.benchmarks.questions import counts_known, read_questions, rows_of
from dig_jax.benchmarks.sources import find_files, forms
from dig_jax.benchmarks.tables import count_rows
from dig_jax.common.commandline import path_of, within
from dig_jax.common.files import make_folder, telling_room, temporary, write_text
from dig_jax.common.progress import progress

_ENDINGS = {b"\x89PNG": "png", b"\xff\xd8": "jpg", b"RIFF": "webp", b"GIF8": "gif", b"BM": "bmp"}
_COLUMNS = "{:18} {:8} {:>7} {:>9}  {:25} {}"


def add_arguments(parser: argparse.ArgumentParser, verb: str) -> None:
    """The root; of `questions` also which benchmark, and where they go."""
    parser.description = "What is below a root." if verb == "list" else "A benchmark's questions."
    parser.add_argument(
        "--root", type=path_of, required=True, help="folder that holds a folder per benchmark"
    )
    if verb == "list":
        parser.add_argument(
            "--suite", default=None, help="a suite, or names with commas; default: all"
        )
        parser.add_argument(
            "--check",
            action="store_true",
            help="read every file, open every picture: counts questions, tells what is damaged",
        )
        return
    parser.add_argument("--name", required=True, help="a benchmark, see `list`")
    parser.add_argument("--out", type=path_of, required=True, help="the file of JSON lines to make")
    parser.add_argument(
        "--pictures",
        type=path_of,
        help="folder for pictures that lie within a table; default: beside --out",
    )
    parser.add_argument(
        "--prompt",
        choices=prompts.PROMPTS,
        default=prompts.PROMPTS[0],
        help="how RefCOCO's expressions are asked for",
    )
    parser.add_argument("--limit", type=within(int, 1, 10**9), help="only the first; default: all")


def run(args: argparse.Namespace, verb: str) -> int:
    return _list(args) if verb == "list" else _questions(args)


def _list(args: argparse.Namespace) -> int:
    """A line per benchmark, then what is to be said; 1 where something is damaged."""
    if not args.root.is_dir():
        raise FileNotFoundError(f"--root {args.root} is no folder; make it, or name another")
    names = catalog.NAMES if args.suite is None else catalog.named(args.suite)
    said, missing, damaged = [], [], False
    entries = [catalog.entry_of(name) for name in names]
    states = [_state(args.root, entry, args.check) for entry in entries]
    print(_COLUMNS.format("name", "found", "rows", "expected", "source", "licence"))
    for entry, (found, rows, notes, sound) in zip(entries, states, strict=True):
        expected = "/".join(map(str, entry.rows)) or "?"
        line = entry.name, found, rows, expected, entry.sources[0].partition(":")[0], entry.licence
        print(_COLUMNS.format(*line).rstrip())
        said += [f"{entry.name}: {note}" for note in notes]
        missing += [] if found != "-" else [f"{entry.name}: {entry.command(args.root)}"]
        damaged |= not sound
    if not args.check:
        said.append(
            "rows are those of the files; --check reads them, counts questions, opens pictures"
        )
    print("\n" + "\n".join(said)) if said else None
    if missing:
        print("\nhow to download what was not found:\n  " + "\n  ".join(missing))
    print("\nlicences are notes: read the card of a source before you use or share it")
    return 1 if damaged else 0


def _state(root: Path, entry: Benchmark, check: bool) -> tuple[str, str, list[str], bool]:
    """(the form that is there, its rows, what is to be said of it, whether it is sound)."""
    there = forms(root, entry)
    if not there:
        return "-", "-", [], True
    form = there[0][0].suffix.removeprefix(".")
    try:
        if check:
            questions, notes = read_questions(root, entry.name)
            count, broken = rows_of(questions), _damaged(questions, entry.name)
            known = counts_known(root, entry, count) if count in entry.rows else []
            return form, str(count), [*notes, *known, *broken], not broken
        count = sum(map(count_rows, find_files(root, entry)))
        return form, str(count), counts_known(root, entry, count), True
    except (ValueError, OSError) as error:
        return form, "-", [f"{error}"], False


def _damaged(questions: Sequence[Question], name: str) -> list[str]:
    """What is said of pictures that cannot be opened, each of which is decoded once."""
    pictures = {picture.key: picture for q in questions for picture in q.pictures}
    broken = []
    with progress(name, "pictures") as report:
        for done, picture in enumerate(pictures.values(), 1):
            try:
                open_picture(picture)
            except (ValueError, OSError) as error:
                broken.append(f"{error}")
            report(done, len(pictures), "")
    if not broken:
        return []
    return [f"{len(broken)} of {len(pictures)} pictures cannot be opened; the first: {broken[0]}"]


def _questions(args: argparse.Namespace) -> int:
    """Write a benchmark's questions, and those of their pictures that are no files."""
    check_out(args.out)
    _refuse_answers(args.out)
    questions, warnings = read_questions(args.root, args.name, prompt=args.prompt)
    for warning in warnings:
        print(f"warning: {warning}", file=sys.stderr)
    questions = questions[: args.limit]
    folder = args.pictures or args.out.with_name(f"{args.out.stem}_pictures")
    make_folder(args.out.absolute().parent)
    paths = _written(questions, folder, args.out.absolute().parent)
    lines = [
        {"id": q.id, "prompt": q.prompt, "pictures": [paths[p.key] for p in q.pictures]}
        for q in questions
    ]
    write_text(args.out, "".join(json.dumps(line, ensure_ascii=False) + "\n" for line in lines))
    print(
        f'{args.out}: {len(lines)} questions, {len(paths)} pictures. Write a line {{"id": ..., '
        f'"answer": ...}} for each, then run `python -m dig_jax.benchmark score --root {args.root} '
        f"--name {args.name} --answers FILE --out result.json`"
    )
    return 0


def _refuse_answers(out: Path) -> None:
    """Raises FileExistsError where the file to make is one of answers."""
    if out.is_file() and out.stat().st_size:
        with out.open("rb") as file:
            first = file.readline()
        if b'"answer"' in first and b'"prompt"' not in first:
            raise FileExistsError(f"--out {out} holds answers; name another file")


def _written(questions: Sequence[Question], folder: Path, beside: Path) -> dict[str, str]:
    """Key -> path of every picture: that of its file, or of one that is written into `folder`.

    Paths of `folder` are relative to `beside` where they lie below it.
    """
    pictures = {picture.key: picture for q in questions for picture in q.pictures}
    paths = {}
    with progress("pictures", "pictures") as report:
        for done, (key, picture) in enumerate(pictures.items(), 1):
            path = (file_of(picture) or _write(picture, folder)).absolute()
            below = path.is_relative_to(beside) and file_of(picture) is None
            paths[key] = (path.relative_to(beside) if below else path).as_posix()
            report(done, len(pictures), "")
    return paths


def _write(picture: Picture, folder: Path) -> Path:
    """A picture as a file called by its key, whole or not there."""
    known = next(folder.glob(f"{picture.key}.*"), None) if folder.is_dir() else None
    if known is not None and known.suffix.removeprefix(".") in (*_ENDINGS.values(), "img"):
        return known
    data = picture.read()
    ending = next((e for start, e in _ENDINGS.items() if data.startswith(start)), "img")
    path = folder / f"{picture.key}.{ending}"
    part = temporary(path)
    make_folder(folder)
    try:
        with telling_room(path):
            part.write_bytes(data)
            os.replace(part, path)
    finally:
        part.unlink(missing_ok=True)
    return path
