"""Files as benchmarks come in them: parquet of `datasets`, TSV of pandas, JSON, pictures."""

import base64
import csv
import io
import json
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
from PIL import Image

GROUP = 4  # rows of a parquet file's row group, so that there are several


def picture(seed: int, size: tuple[int, int] = (32, 24)) -> bytes:
    """A PNG of one thing on a ground; other seeds give other colours."""
    image = Image.new("RGB", size, (40 * seed % 256, 90, 200 - 11 * seed % 200))
    image.paste((255 - 7 * seed % 256, 60 * seed % 256, 30), (4, 4, size[0] // 2, size[1] // 2))
    file = io.BytesIO()
    image.save(file, "PNG")
    return file.getvalue()


def parquet(path: Path, rows: list[dict], **columns) -> None:
    """Rows as `datasets` writes them; columns: "image", an Arrow type, [type] or {name: type}."""
    path.parent.mkdir(parents=True, exist_ok=True)
    info = {"info": {"features": {name: _feature(kind) for name, kind in columns.items()}}}
    fields = [(name, _arrow(kind)) for name, kind in columns.items()]
    schema = pa.schema(fields, metadata={"huggingface": json.dumps(info)})
    made = [{name: _cell(row.get(name), kind) for name, kind in columns.items()} for row in rows]
    table = pa.Table.from_pylist(made, schema=schema)
    pq.write_table(table, path, row_group_size=GROUP, compression="snappy")


def _cell(value, kind):
    bare = kind == "image" and isinstance(value, bytes)
    return {"bytes": value, "path": None} if bare else value


def _arrow(kind):
    if kind == "image":
        return pa.struct([("bytes", pa.binary()), ("path", pa.string())])
    if isinstance(kind, dict):
        return pa.struct([(name, _arrow(inner)) for name, inner in kind.items()])
    return pa.list_(_arrow(kind[0])) if isinstance(kind, list) else getattr(pa, kind)()


def _feature(kind):
    if kind == "image":
        return {"_type": "Image"}
    if isinstance(kind, list):
        return {"feature": _feature(kind[0]), "_type": "Sequence"}
    if isinstance(kind, dict):
        return {name: _feature(inner) for name, inner in kind.items()}
    return {"dtype": kind, "_type": "Value"}


def tsv(path: Path, rows: list[dict], columns: str) -> None:
    """Rows as pandas writes them; bytes become base64."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("w", newline="", encoding="utf-8") as file:
        writer = csv.DictWriter(
            file, columns.split(), delimiter="\t", lineterminator="\n", extrasaction="ignore"
        )
        writer.writeheader()
        for row in rows:
            coded = {
                name: base64.b64encode(value).decode() if isinstance(value, bytes) else value
                for name, value in row.items()
            }
            writer.writerow(coded)


def lines(path: Path, rows: list[dict], *, whole: bool = False) -> None:
    """Rows as JSON lines, or as one list."""
    path.parent.mkdir(parents=True, exist_ok=True)
    text = json.dumps(rows, indent=1) if whole else "\n".join(map(json.dumps, rows))
    path.write_text(text + "\n", encoding="utf-8")


def put(path: Path, data: bytes) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(data)
