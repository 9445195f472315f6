"""A benchmark's files below the root: which are there, and which of them are read."""

from __future__ import annotations

import fnmatch
import os
import re
from pathlib import Path

from dig_jax.benchmarks.entry import Benchmark
from dig_jax.benchmarks.tables import SUFFIXES

_PART = re.compile(r"(.+)-\d{5}-of-(\d{5})(-[0-9a-f]+)?")  # the stem of one of several files
_PICTURES = re.compile(r"images?|mmvp images|(train|val)20\d\d", re.I)  # folders without tables


def find_files(root: str | Path, entry: Benchmark) -> list[Path]:
    """The files of one form of a benchmark: of those that it comes in, the first that is there.

    Raises FileNotFoundError where there is none, with the command that downloads it, or where
    some of several files are missing.
    """
    found = forms(root, entry)
    if not found:
        looked = ", ".join(patterns[0] for patterns in entry.files[:4])
        raise FileNotFoundError(
            f"{entry.title} is not below --root={root} (looked for {looked} ...); "
            f"download it: {entry.command(root)}"
        )
    _check_all_there(found[0], entry.command(root))
    return found[0]


def forms(root: str | Path, entry: Benchmark) -> list[list[Path]]:
    """The files of every form of a benchmark that is there, by preference."""
    root = Path(root)
    folders = dict.fromkeys(p.partition("/")[0] for patterns in entry.files for p in patterns)
    inside = [path for folder in folders for path in _tables(root / folder)]
    names = {path: path.relative_to(root).as_posix().lower() for path in inside}
    found, seen = [], set()
    for patterns in entry.files:
        low = [pattern.lower() for pattern in patterns]
        mine = [path for path in inside if any(fnmatch.fnmatchcase(names[path], p) for p in low)]
        if mine and not seen.intersection(mine):
            found.append(mine)
        seen.update(mine)
    return found


def _tables(folder: Path) -> list[Path]:
    """The tables in a folder; those of pictures, and hidden ones, are not looked into."""
    found = []
    for place, folders, files in os.walk(folder, followlinks=True):
        folders[:] = [f for f in folders if not (f.startswith(".") or _PICTURES.fullmatch(f))]
        found += [Path(place) / name for name in files if name.lower().endswith(SUFFIXES)]
    return sorted(found)


def _check_all_there(files: list[Path], command: str) -> None:
    """Files of which there are several say how many."""
    parts: dict[tuple[Path, str, int], int] = {}
    for path in files:
        if match := _PART.fullmatch(path.stem):
            key = path.parent, match[1], int(match[2])
            parts[key] = parts.get(key, 0) + 1
    for (folder, name, count), there in parts.items():
        if there != count:
            raise FileNotFoundError(
                f"{folder} holds {there} of the {count} files of {name}; "
                f"download the rest: {command}"
            )
