"""Splits become a folder of questions in the benchmarks' formats, balanced, whole or not there.

OUT/pope/test-00000-of-00001.parquet   and so on, see `formats.TABLES`
OUT/asked.jsonl                        a line per row of them: its pair, things and answer
OUT/things.jsonl                       a line per picture: what it shows, where
OUT/questions.json                     seed, sources, counts, digests of files and pictures
"""

from __future__ import annotations

import hashlib
import json
import shutil
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import numpy as np

import dig_jax
from dig_jax.common import locks
from dig_jax.common.arrow import pyarrow
from dig_jax.common.files import (
    file_sha256,
    make_folder,
    read_sealed,
    swap_in,
    telling_room,
    write_sealed,
)
from dig_jax.common.json_files import shown
from dig_jax.data import records
from dig_jax.data.questions import apart, files, gather, sight
from dig_jax.data.questions.asked import Asked
from dig_jax.data.questions.balance import Offer, chosen, lettered
from dig_jax.data.questions.formats import TABLES, Table
from dig_jax.data.questions.shown import write_things

MANIFEST, ASKED, THINGS = "questions.json", "asked.jsonl", "things.jsonl"
_AGAIN = "make them again with `python -m dig_jax.data questions --overwrite`"
_RULES = (
    *("COLORED_PX", "COLORED_AREA", "CLEAR_PX", "CLEAR_AREA", "CLEAR_SHARE"),
    *("LARGER", "ASIDE", "NEARER", "ACROSS"),
)


def make(
    root: Path,
    out: Path,
    *,
    splits: list[str],
    seed: int,
    pairs: int | None = None,
    apart_from: tuple[Path, ...] = (),
    overwrite: bool = False,
) -> dict:
    """Write `out` from these splits of `root`; returns its manifest.

    pairs        at most so many of each split
    apart_from   other roots whose splits were trained on; those of `root` are looked at anyway

    Equal arguments give equal questions. Raises FileExistsError (out is there), ValueError (a
    split without plans, a scene that is trained on, nothing to ask), OSError (the disk); `out` is
    then as it was.
    """
    _check_free(out, overwrite)
    pyarrow()
    corpus = gather.survey(root, splits, pairs)
    roots = (root, *apart_from)
    _check_apart(corpus, roots, [root / split for split in splits])
    picked = _choose(gather.offers(corpus, seed), seed)
    facts = {
        "dig_jax": dig_jax.__version__,
        "seed": seed,
        "splits": {split: _source(root / split, corpus) for split in splits},
        "rules": {name: getattr(sight, name) for name in _RULES},
        "vocabulary": list(corpus.vocabulary),
        "apart_from": [str(folder) for folder in apart.trained_on(roots)],
    }
    with locks.owned("--out", out.parent / f".{out.name}.lock"):
        tmp = out.with_name(f".{out.name}.partial")
        shutil.rmtree(tmp, ignore_errors=True)  # left by a kill: nobody else writes here
        make_folder(tmp)
        try:
            with telling_room(out):
                facts["tables"] = _write(tmp, picked, corpus)
                facts |= {"pictures": sorted(corpus.pictures), "files": _sums(tmp)}
                write_sealed(tmp / MANIFEST, facts, indent=1)
            swap_in(tmp, out)
        except BaseException:  # an interrupt too leaves nothing behind
            shutil.rmtree(tmp, ignore_errors=True)
            raise
    return facts


def check(out: Path, roots: tuple[Path, ...]) -> list[str]:
    """What is wrong with a folder of questions, in words.

    roots   whose splits were trained on: none of their scenes may be asked about

    Raises FileNotFoundError where it is none, ValueError where its manifest is damaged.
    """
    if not (out / MANIFEST).is_file():
        raise FileNotFoundError(f"--check {out} has no {MANIFEST}; name a folder of questions")
    (sums, pictures), now = _told_of(out / MANIFEST), _sums(out)
    found = []
    for name in sorted({*sums, *now}):
        if now.get(name) != sums.get(name):
            what = "is gone" if name not in now else "is not what was written"
            found.append(f"{out / name} {what}; {_AGAIN}")
    common = apart.shared(pictures, roots)
    return found + [f"{where} shows pictures that these questions are about" for where in common]


def _told_of(path: Path) -> tuple[dict[str, str], frozenset[str]]:
    """(digest of every file, the pictures) that a manifest tells of; ValueError names the field."""
    told = read_sealed(path, _AGAIN)
    for name, kind, rule in (("files", dict, "{file: digest}"), ("pictures", list, "a list")):
        if not isinstance(told.get(name), kind):
            raise ValueError(f"{path}: {name}={shown(told.get(name))} is not {rule}; {_AGAIN}")
    return told["files"], frozenset(map(str, told["pictures"]))


def _check_free(out: Path, overwrite: bool) -> None:
    """Refuse to write over what is there, and to delete what was not made here."""
    if not out.exists():
        return
    if not (out / MANIFEST).is_file() and (not out.is_dir() or any(out.iterdir())):
        raise FileExistsError(
            f"--out={out} exists and holds no questions made here (no {MANIFEST}); choose another"
        )
    if (out / MANIFEST).is_file() and not overwrite:
        raise FileExistsError(f"--out={out} holds questions; add --overwrite or choose another")


def _check_apart(corpus: gather.Corpus, roots: tuple[Path, ...], used: list[Path]) -> None:
    common = apart.shared(corpus.pictures, roots, used)
    if common:
        raise ValueError(
            f"pictures of these questions are trained on in {', '.join(common)}; ask about other "
            "splits, or train on others"
        )


def _choose(offers: dict[str, list[Offer]], seed: int) -> dict[str, list[Offer]]:
    """A balanced choice for every table, by its path, in the order of the pairs."""
    picked = {}
    for number, table in enumerate(TABLES):
        rng = np.random.default_rng([seed, 0, number])
        few = [one for kind, most in table.kinds.items() for one in chosen(offers[kind], rng, most)]
        few.sort(key=lambda one: one.pair)
        asked = lettered([one.asked for one in few], rng)
        picked[table.path] = [Offer(o.pair, a) for o, a in zip(few, asked, strict=True)]
    empty = [table.path for table in TABLES if not picked[table.path]]
    if empty:
        raise ValueError(
            f"these pairs give no balanced questions for {', '.join(empty)}; ask about more of "
            "them: a larger --pairs, more --splits"
        )
    return picked


def _write(out: Path, picked: dict[str, list[Offer]], corpus: gather.Corpus) -> dict:
    """All tables, `ASKED` and `THINGS`; returns what they hold."""
    counts, numbers = {}, Counter()
    with (out / ASKED).open("w", encoding="utf-8") as log:
        for table in TABLES:
            rows = _rows(table, picked[table.path], corpus, numbers, log)
            path = out / table.path
            if table.columns:
                files.write_parquet(path, table.columns, (row for row, _ in rows))
            else:
                files.write_lines(path, rows)
            counts[table.path] = _counts([one.asked for one in picked[table.path]])
    asked = {one.pair for some in picked.values() for one in some}
    write_things(out / THINGS, tuple(corpus.places[pair] for pair in sorted(asked)))
    return counts


def _rows(
    table: Table, picked: list[Offer], corpus: gather.Corpus, numbers: Counter, log
) -> Iterator[tuple[dict, list[dict]]]:
    """(row, its pictures' cells) of a table, each told in the log."""
    places = sorted({one.pair for one in picked})
    stored = gather.read(tuple(corpus.places[pair] for pair in places))
    at, place, fields = None, None, {}
    for one in picked:
        if one.pair != at:
            at = one.pair
            place, record = next(stored)
            fields = records.unpack(record)
        images = [_image(place, fields, sides) for sides in one.asked.pictures]
        first = numbers[table.benchmark]
        for number, row in enumerate(table.rows(one.asked, first, images)):
            told = _told(table, place, one.asked, number)
            log.write(json.dumps({"row": first + number, **told}) + "\n")
            numbers[table.benchmark] += 1
            yield row, images


def _image(place: gather.Place, fields: dict, sides: str) -> dict:
    """A picture's cell: the record's own PNG, or two of them side by side."""
    pictures = [fields[f"image_{side}"] for side in sides]
    png = pictures[0] if len(pictures) == 1 else files.side_by_side(*pictures)
    return {"bytes": png, "path": f"{place.name}-{sides}.png"}


def _told(table: Table, place: gather.Place, asked: Asked, number: int) -> dict:
    place_of_row = min(number, len(asked.pictures) - 1)
    return {
        "file": table.path,
        "kind": asked.kind,
        "split": place.split,
        "idx": place.idx,
        "picture": asked.pictures[place_of_row],
        "things": list(asked.things),
        "cell": list(asked.cell),
        "text": asked.text,
        "answer": list(asked.box_px) if asked.box_px else asked.answers[place_of_row],
    }


def _counts(asked: list[Asked]) -> dict:
    """How many questions of each kind, and of each value that is balanced, a table holds."""
    cells = Counter(" ".join(filter(None, (one.kind, *one.cell))) for one in asked)
    letters = Counter(one.letters[0] for one in asked if one.options)
    return {
        "questions": len(asked),
        "kinds": dict(sorted(Counter(one.kind for one in asked).items())),
        "values": dict(sorted(cells.items())),
        "letters": dict(sorted(letters.items())),
    }


def _source(folder: Path, corpus: gather.Corpus) -> dict:
    manifest = records.read_manifest(folder)
    shards = "".join(entry["sha256"] for entry in manifest["shards"])
    return {
        "pairs": sum(place.split == folder.name for place in corpus.places),
        "draw": manifest.get("request", {}).get("draw", {}),
        "renderer": manifest.get("renderer"),
        "sha256": hashlib.sha256(shards.encode()).hexdigest(),
    }


def _sums(out: Path) -> dict[str, str]:
    """sha256 of every file of the folder but its manifest."""
    paths = sorted(path for path in out.rglob("*") if path.is_file() and path.name != MANIFEST)
    return {path.relative_to(out).as_posix(): file_sha256(path) for path in paths}
