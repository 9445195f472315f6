"""A row's columns as texts, letters, numbers and boxes, whatever way they are written."""

from __future__ import annotations

import ast
import json
import math
import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from dig_jax.benchmarks.question import Picture
from dig_jax.common.json_files import shown

LETTERS = "ABCDEFGHIJ"
SEE = "see `python -m dig_jax.benchmark list` for the files that are read"
Box = tuple[float, float, float, float]


@dataclass(frozen=True)
class Row:
    """A row without the bytes of its pictures.

    values    column -> cell, those of pictures left out; None where there is nothing
    pictures  in order; none where the row has none
    file      the file it stands in
    number    1 for the file's first row
    """

    values: Mapping[str, Any]
    pictures: tuple[Picture, ...]
    file: Path
    number: int

    @property
    def where(self) -> str:
        return f"{self.file} row {self.number}"


def refuse(row: Row, column: str, value: Any, rule: str) -> ValueError:
    """What to raise for a cell that cannot be."""
    return ValueError(f"{row.where}: {column}={shown(value)} {rule}; {SEE}")


def is_empty(cell: Any) -> bool:
    """None, NaN, an empty text, and the text "nan" that pandas leaves behind."""
    if isinstance(cell, float):
        return math.isnan(cell)
    return cell is None or (isinstance(cell, str) and cell.strip().lower() in ("", "nan"))


def maybe(row: Row, *names: str) -> Any:
    """The first of these columns that holds something, else None."""
    found = (row.values.get(name) for name in names)
    return next((cell for cell in found if not is_empty(cell)), None)


def need(row: Row, *names: str) -> Any:
    """`maybe`; raises ValueError naming the column, and the columns there are, without one."""
    found = maybe(row, *names)
    if found is not None:
        return found
    there = [name for name in names if name in row.values]
    if there:
        raise refuse(row, there[0], row.values[there[0]], "is empty")
    raise ValueError(
        f"{row.where} has no column {' or '.join(names)}, but {', '.join(row.values) or 'none'}; "
        f"{SEE}"
    )


def picture_key(row: Row) -> str:
    """What names a row's picture, or its pictures; raises ValueError where it has none."""
    if not row.pictures:
        there = ", ".join(row.values)
        raise ValueError(f"{row.where} has no picture, but the columns {there}; {SEE}")
    return "+".join(picture.key for picture in row.pictures)


def text(row: Row, *names: str) -> str:
    return str(need(row, *names))


def number(row: Row, *names: str) -> float:
    """A finite number, also where it is written as a text."""
    found = need(row, *names)
    try:
        value = float(found)
    except (TypeError, ValueError):
        value = math.nan
    if isinstance(found, bool) or not math.isfinite(value):
        raise refuse(row, names[0], found, "is no number")
    return value


def whole(row: Row, *names: str) -> int:
    """A whole number, also where it is written as a text or as 3.0."""
    value = number(row, *names)
    if value != int(value):
        raise refuse(row, names[0], need(row, *names), "is no whole number")
    return int(value)


def yes_no(row: Row, *names: str) -> str:
    """ "yes" or "no" from a word, 1 or 0, true or false."""
    found = need(row, *names)
    word = str(found).strip().strip(".").lower()
    for said, words in (("yes", ("yes", "1", "true", "1.0")), ("no", ("no", "0", "false", "0.0"))):
        if word in words:
            return said
    raise refuse(row, names[0], found, "is neither yes nor no")


def letter(row: Row, options: tuple[str, ...], *names: str, base: int | None = None) -> str:
    """The letter of the right option: from "B", "(b)", "B.", or a number that counts from `base`.

    Raises ValueError where it is none of the options.
    """
    found = need(row, *names)
    match = re.fullmatch(r"\W*([A-Ja-j])\W*", str(found))
    if match:
        said = match[1].upper()
    elif base is not None and re.fullmatch(r"\d(\.0)?", str(found).strip()):
        said = LETTERS[int(float(found)) - base]
    else:
        raise refuse(row, names[0], found, "is no option's letter")
    known = LETTERS[: len(options) or 4]
    if said not in known:
        raise refuse(row, names[0], found, f"is none of the options {', '.join(known)}")
    return said


def lettered(row: Row) -> tuple[str, ...]:
    """The texts of columns A, B, ...; () where there are none. Raises where one is left out."""
    texts = [maybe(row, name) for name in LETTERS]
    there = [name for name, cell in zip(LETTERS, texts, strict=True) if cell is not None]
    if "".join(there) != LETTERS[: len(there)]:
        raise refuse(row, "options", ", ".join(there), "leave a letter out")
    return tuple(str(cell) for cell in texts[: len(there)])


def listed(row: Row, *names: str) -> tuple[Any, ...]:
    """A list, also where it is written as a text."""
    found = need(row, *names)
    if isinstance(found, str):
        found = literal(found)
    if not isinstance(found, list | tuple):
        raise refuse(row, names[0], need(row, *names), "is no list")
    return tuple(found)


def box(row: Row, *names: str) -> Box:
    """Four finite numbers."""
    found = listed(row, *names)
    try:
        numbers = tuple(float(value) for value in found)
    except (TypeError, ValueError):
        numbers = ()
    if len(numbers) != 4 or not all(map(math.isfinite, numbers)):
        raise refuse(row, names[0], need(row, *names), "is no box of four numbers")
    return numbers


def literal(written: str) -> Any:
    """The value of a text of JSON or of Python; the text itself where it is neither."""
    for read in (json.loads, ast.literal_eval):
        try:
            return read(written.strip())
        except (ValueError, SyntaxError, RecursionError, MemoryError):
            continue
    return written
