"""Rows of the files that benchmarks come in: parquet, TSV and CSV, JSON lines and JSON lists.

A row at a time is in memory, whatever the size of the file, and a cell of it can be read again:
pictures make up nearly all of a benchmark, and are read when they are asked for.
"""

from __future__ import annotations

import contextlib
import functools
import json
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO

from dig_jax.common.arrow import pyarrow
from dig_jax.common.json_files import refuse_pointer, shown

SUFFIXES = (".parquet", ".tsv", ".csv", ".jsonl", ".json")
AGAIN = "is it cut off or damaged? download it again"
BATCH_BYTES = 16 << 20  # of rows read together
KEPT_BYTES = 256 << 20  # of a row group that is kept whole for its next picture


@dataclass(frozen=True)
class Cells:
    """A row as it stands in its file.

    values  column -> cell; what a table leaves empty is None
    file    the file
    number  1 for the first row
    again   a column's cell, read from the file once more
    """

    values: dict[str, Any]
    file: Path
    number: int
    again: Callable[[str], Any]

    @property
    def where(self) -> str:
        return f"{self.file} row {self.number}"


def read_rows(path: Path) -> Iterator[Cells]:
    """The rows of a file, in order.

    Raises ValueError naming the file, the row and the remedy where it is empty, cut off, damaged
    or no table; RuntimeError where pyarrow is missing.
    """
    kind = _kind(path)
    if kind == ".parquet":
        return _parquet_rows(path)
    if kind in (".tsv", ".csv"):
        return _text_rows(path, b"\t" if kind == ".tsv" else b",")
    return _json_rows(path, lines=kind == ".jsonl")


def count_rows(path: Path) -> int:
    """How many rows a file has: of parquet its header says so, others are read."""
    if _kind(path) == ".parquet":
        return _open(path).metadata.num_rows
    return sum(1 for _ in read_rows(path))


def _kind(path: Path) -> str:
    """A file's suffix; raises where it holds nothing, or only says where its content is."""
    with path.open("rb") as file:
        start = file.read(64)
    if not start:
        raise ValueError(f"{path} is empty; {AGAIN}")
    refuse_pointer(path, start.decode("utf-8", "replace"))
    return path.suffix.lower()


# Parquet


@contextlib.contextmanager
def _naming(path: Path) -> Iterator[None]:
    """Within it, whatever Arrow finds wrong names the file and the remedy."""
    try:
        yield
    except (OSError, ValueError, KeyError, pyarrow().ArrowException) as error:
        raise ValueError(f"{path} cannot be read ({error}); {AGAIN}") from error


def _open(path: Path) -> Any:
    arrow = pyarrow()
    with _naming(path):
        # mapped: a row group of 3 GB is read page by page
        return arrow.parquet.ParquetFile(path, memory_map=True, page_checksum_verification=True)


def _batches(path: Path, group: int, columns: list[str] | None = None) -> Iterator[list[dict]]:
    """A row group's rows, about BATCH_BYTES at a time."""
    file = _open(path)
    about = file.metadata.row_group(group)
    if not about.num_rows:
        return
    with _naming(path):
        first = next(file.iter_batches(batch_size=1, row_groups=[group], columns=columns))
    # the header counts what rows have in common once
    a_row = max(first.nbytes, about.total_byte_size // about.num_rows, 1)
    size = min(max(BATCH_BYTES // a_row, 1), about.num_rows, 1024)
    batches = file.iter_batches(batch_size=size, row_groups=[group], columns=columns)
    while True:
        with _naming(path):
            batch = next(batches, None)
            rows = batch and batch.to_pylist()
        if rows is None:
            return
        yield rows


def _parquet_rows(path: Path) -> Iterator[Cells]:
    number = 0
    for group in range(_open(path).metadata.num_row_groups):
        place = 0
        for rows in _batches(path, group):
            for values in rows:
                number += 1
                again = functools.partial(_parquet_cell, path, group, place)
                yield Cells(values, path, number, again)
                place += 1


def _parquet_cell(path: Path, group: int, place: int, column: str) -> Any:
    kept = _column(path, group, column)
    return _scan(path, group, column).cell(place) if kept is None else kept[place]


@functools.lru_cache(maxsize=1)
def _column(path: Path, group: int, column: str) -> list | None:
    """A column of the row group that was asked for last; None where it is too large to be kept."""
    kept, size = [], 0
    for rows in _batches(path, group, [column]):
        kept += [row[column] for row in rows]
        size += sum(map(_bytes_of, rows))
        if size > KEPT_BYTES:
            return None
    return kept


def _bytes_of(cell: Any) -> int:
    """About how much memory a cell takes."""
    parts = cell.values() if isinstance(cell, dict) else cell if isinstance(cell, list) else ()
    return len(cell) if isinstance(cell, str | bytes) else 8 + sum(map(_bytes_of, parts))


@functools.lru_cache(maxsize=1)
def _scan(path: Path, group: int, column: str) -> _Scan:
    return _Scan(path, group, column)


class _Scan:
    """A column of a row group that is too large to be kept: read forwards, some rows at a time.

    Cells are cheap in order; for one that lies behind, it starts anew.
    """

    def __init__(self, path: Path, group: int, column: str):
        self._start = functools.partial(_batches, path, group, [column])
        self._column = column
        self._rewind()

    def _rewind(self) -> None:
        self._batches, self._first, self._rows = self._start(), 0, []

    def cell(self, place: int) -> Any:
        if place < self._first:
            self._rewind()
        while place >= self._first + len(self._rows):
            self._first += len(self._rows)
            self._rows = next(self._batches)
        return self._rows[place - self._first][self._column]


# TSV and CSV


def _text_rows(path: Path, tab: bytes) -> Iterator[Cells]:
    with path.open("rb") as file:
        records = _records(path, file, tab)
        _, header = next(records, (0, None))
        if header is None:
            raise ValueError(f"{path} holds empty lines alone; {AGAIN}")
        names = [_decoded(name, path, 0).strip() for name in header]
        names[0] = names[0].removeprefix("\ufeff")
        for number, (at, fields) in enumerate(records, 1):
            if len(fields) != len(names):
                raise ValueError(
                    f"{path} row {number} has {len(fields)} of {len(names)} columns; {AGAIN}"
                )
            values = {
                name: _decoded(field, path, number) or None
                for name, field in zip(names, fields, strict=True)
            }
            again = functools.partial(_text_cell, path, tab, at, names)
            yield Cells(values, path, number, again)


def _text_cell(path: Path, tab: bytes, at: int, names: list[str], column: str) -> Any:
    with path.open("rb") as file:
        file.seek(at)
        _, fields = next(_records(path, file, tab))
    return _decoded(fields[names.index(column)], path, 0) or None


def _decoded(field: bytes, path: Path, number: int) -> str:
    try:
        return field.decode("utf-8")
    except UnicodeDecodeError as error:
        raise ValueError(f"{path} row {number} is no text in UTF-8 ({error}); {AGAIN}") from error


def _records(path: Path, file: BinaryIO, tab: bytes) -> Iterator[tuple[int, list[bytes]]]:
    """(its offset in the file, its fields) of every record; a quoted field may hold lines."""
    at, raw = file.tell(), b""
    for line in file:
        raw += line
        fields = _fields(raw.rstrip(b"\r\n"), tab)
        if fields is None:
            continue
        if raw.strip(b"\r\n"):
            if tab == b"\t" and not line.endswith(b"\n"):
                rule = "ends in the midst of a line"  # pandas ends the last one, too
                raise ValueError(f"{path} {rule}; {AGAIN}, or end the line if it is whole")
            yield at, fields
        at, raw = at + len(raw), b""
    if raw:
        raise ValueError(f"{path} ends within a quoted text; {AGAIN}")


def _fields(raw: bytes, tab: bytes) -> list[bytes] | None:
    """A record's fields; None while a quoted one has no end.

    Quotes count where they begin a field, as for pandas, which wrote these files: `5" pipe` is a
    field as it stands.
    """
    if b'"' not in raw:
        return raw.split(tab)
    fields, at = [], 0
    while at <= len(raw):
        text = b""
        if raw[at : at + 1] == b'"':
            quote = at + 1
            while (end := raw.find(b'"', quote)) >= 0 and raw[end + 1 : end + 2] == b'"':
                quote = end + 2
            if end < 0:
                return None
            text, at = raw[at + 1 : end].replace(b'""', b'"'), end + 1
        end = raw.find(tab, at)
        end = len(raw) if end < 0 else end
        fields.append(text + raw[at:end])
        at = end + 1
    return fields


# JSON


def _json_rows(path: Path, *, lines: bool) -> Iterator[Cells]:
    for number, values in enumerate(_json_values(path, lines=lines), 1):
        if not isinstance(values, dict):
            raise ValueError(f"{path} row {number} is {shown(values)}, not an object; {AGAIN}")
        yield Cells(values, path, number, values.get)


def _json_values(path: Path, *, lines: bool) -> Iterator[Any]:
    text = _decoded(path.read_bytes(), path, 0).removeprefix("\ufeff")
    if not lines:
        found = _parsed(text, str(path))
        if not isinstance(found, list):
            raise ValueError(f"{path} holds {shown(found)}, not a list of objects; {AGAIN}")
        yield from found
        return
    for number, line in enumerate(text.split("\n"), 1):
        if line.strip():
            yield _parsed(line, f"{path} line {number}")


def _parsed(text: str, where: str) -> Any:
    try:
        return json.loads(text)
    except (ValueError, RecursionError) as error:
        raise ValueError(f"{where} is not valid JSON ({error}); {AGAIN}") from error
