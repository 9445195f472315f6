"""Tables as parquet files that `datasets.load_dataset` opens with decoded pictures.

A table is described once, by plain names (see `example.PAIRS`); the Arrow schema, the metadata
that tells `datasets` which structures are pictures, and the card's feature list follow from it.
"""

from __future__ import annotations

import contextlib
import json
import os
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

from dig_jax.common import sealed
from dig_jax.common.arrow import pyarrow

GROUP_ROWS = 32  # rows read to reach one of them
_GROUP_BYTES = 16 << 20
_NOTE = b"dig_jax"  # our own entry in a file's metadata


def version() -> str:
    return pyarrow().__version__


class TableWriter:
    """Rows into <folder>/<name>-00000-of-0000N.parquet; N is known at the end.

    columns   the table's description
    note      JSON-ready facts for every file's metadata
    """

    def __init__(self, folder: Path, name: str, columns: dict, note: dict):
        self._folder, self._name = folder, name
        self._schema = _schema(columns, note)
        self._writer = None
        self._rows: list[dict] = []
        self._group_bytes = 0
        self._paths: list[Path] = []
        self.file_bytes = 0  # in the file being written

    def write(self, row: dict, size: int) -> None:
        """Add a row of about `size` bytes."""
        self._rows.append(row)
        self._group_bytes += size
        self.file_bytes += size
        if len(self._rows) == GROUP_ROWS or self._group_bytes >= _GROUP_BYTES:
            self._flush()

    def cut(self) -> None:
        """End the file: the next row starts another one."""
        self._flush()
        if self._writer is not None:
            self._writer.close()
        self._writer, self.file_bytes = None, 0

    def close(self) -> list[str]:
        """End the last file and give all of them their names; returns these."""
        self.cut()
        names = [
            f"{self._name}-{number:05d}-of-{len(self._paths):05d}.parquet"
            for number in range(len(self._paths))
        ]
        for path, name in zip(self._paths, names, strict=True):
            os.replace(path, self._folder / name)
        return names

    def _flush(self) -> None:
        arrow = pyarrow()
        if self._rows:
            if self._writer is None:
                self._writer = self._open(arrow)
            table = arrow.Table.from_pylist(self._rows, schema=self._schema)
            self._writer.write_table(table, row_group_size=len(self._rows))
        self._rows, self._group_bytes = [], 0

    def _open(self, arrow: Any) -> Any:
        self._folder.mkdir(parents=True, exist_ok=True)
        self._paths.append(self._folder / f"{self._name}.part{len(self._paths)}")
        return arrow.parquet.ParquetWriter(
            self._paths[-1],
            self._schema,
            compression="snappy",
            use_dictionary=False,  # pictures do not repeat
            write_page_index=True,
            write_page_checksum=True,
        )


def _schema(columns: dict, note: dict) -> Any:
    arrow = pyarrow()
    features = {"info": {"features": {name: _feature(kind) for name, kind in columns.items()}}}
    metadata = {b"huggingface": json.dumps(features), _NOTE: json.dumps(sealed.sealed(note))}
    fields = [(name, _arrow_type(kind)) for name, kind in columns.items()]
    return arrow.schema(fields, metadata=metadata)


def _arrow_type(kind: Any) -> Any:
    arrow = pyarrow()
    if kind == "image":
        return arrow.struct([("bytes", arrow.binary()), ("path", arrow.string())])
    if isinstance(kind, list):
        return arrow.list_(_arrow_type(kind[0]))
    if isinstance(kind, dict):
        return arrow.struct([(name, _arrow_type(inner)) for name, inner in kind.items()])
    return {"string": arrow.string, "int32": arrow.int32}[kind]()


def _feature(kind: Any) -> Any:
    """A column as `datasets` writes its features down."""
    if kind == "image":
        return {"_type": "Image"}
    if isinstance(kind, list):
        return [_feature(kind[0])]  # read by datasets 3 too, which does not know "List"
    if isinstance(kind, dict):
        return {name: _feature(inner) for name, inner in kind.items()}
    return {"dtype": kind, "_type": "Value"}


def yaml_features(columns: dict, indent: str) -> list[str]:
    """The columns as the lines of a dataset card's `features`."""
    lines = []
    for name, kind in columns.items():
        lines.append(f"{indent}- name: {name}")
        if isinstance(kind, list):
            lines += _yaml_list(kind[0], indent + "  ")
        else:
            lines.append(f"{indent}  dtype: {kind}")
    return lines


def _yaml_list(kind: Any, indent: str) -> list[str]:
    if isinstance(kind, dict):
        return [f"{indent}list:", *yaml_features(kind, indent)]
    if isinstance(kind, list):
        return [f"{indent}list:", *_yaml_list(kind[0], indent + "  ")]
    return [f"{indent}list: {kind}"]


def count_rows(path: Path) -> int:
    return _open(path).metadata.num_rows


def column_names(path: Path) -> list[str]:
    file = _open(path)
    with _naming(path):
        return file.schema_arrow.names


def read_note(path: Path) -> dict | None:
    """What `TableWriter` was given to note, None for anybody else's file."""
    file = _open(path)
    with _naming(path):
        note = (file.schema_arrow.metadata or {}).get(_NOTE)
        return note and sealed.parse(note.decode())


def read_rows(path: Path, columns: Iterable[str] | None = None) -> Iterator[dict]:
    """The rows of a file in order, a few of them in memory at a time."""
    file = _open(path)
    names = None if columns is None else list(columns)
    batches = file.iter_batches(batch_size=GROUP_ROWS, columns=names)
    rows: list | None = []
    while rows is not None:
        yield from rows
        with _naming(path):
            batch = next(batches, None)
            rows = None if batch is None else batch.to_pylist()


def _open(path: Path) -> Any:
    arrow = pyarrow()
    if not Path(path).is_file():
        raise FileNotFoundError(f"{path} does not exist; give a parquet file or a folder of them")
    with _naming(path, "is not a parquet file"):
        # pages that have a checksum, as ours, are compared with it
        return arrow.parquet.ParquetFile(path, page_checksum_verification=True)


@contextlib.contextmanager
def _naming(path: Path, fault: str = "is damaged") -> Iterator[None]:
    """Within it, whatever Arrow finds wrong names the file and the remedy."""
    try:
        yield
    except (OSError, ValueError, KeyError, pyarrow().ArrowException) as error:
        raise ValueError(f"{path} {fault} ({error}); copy, download or export it again") from error
