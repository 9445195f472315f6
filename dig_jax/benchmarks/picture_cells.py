"""Picture cells in all their forms, as pictures that are read when they are asked for.

A cell holds a file's bytes (alone or as the structure that `datasets` writes), base64, the name of
a file beside the table, the index of another row that holds the picture, or a list of these.
"""

from __future__ import annotations

import base64
import binascii
import functools
import hashlib
import re
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Any

from dig_jax.benchmarks.question import Picture, Question
from dig_jax.benchmarks.tables import AGAIN, Cells, read_rows
from dig_jax.benchmarks.values import Row, is_empty, literal
from dig_jax.common.json_files import shown
from dig_jax.inputs.picture_files import read_picture, upright_size

SAMPLE = 1 << 16  # bytes of a piece of a file: COCO's pictures are seen whole
IMAGES = ("image", "images", "image_path")  # the columns that a picture may stand in
_NAME = re.compile(r"[^\n]{1,1024}\.(jpe?g|png|webp|bmp|gif|tiff?)", re.I)
_INDEX = 64  # characters; what is no longer names another row: VLMEvalKit's rule
_FOLDERS = ("", "images", "image", "train2017", "val2017", "train2014", "coco", "MMVP Images")


def read_table(files: Iterable[Path]) -> list[Row]:
    """The rows of files, in order; the bytes of pictures are looked at once and let go.

    Raises ValueError naming file and row where a file is damaged or a cell is no picture.
    """
    rows = []
    for path in files:
        mine, embedded, referring = [], {}, []
        for cells in read_rows(path):
            column = next((c for c in IMAGES if not is_empty(cells.values.get(c))), None)
            values = {c: v for c, v in cells.values.items() if c not in IMAGES or _is_short(v)}
            cell = cells.values.get(column)
            index = str(cells.values.get("index"))
            if _is_index(cell):
                referring.append((len(mine), str(cell)))
                pictures = ()
            else:
                pictures = tuple(_pictures(cell, column, cells))
                embedded[index] = pictures
            mine.append(Row(values, pictures, path, cells.number))
        for place, index in referring:
            mine[place] = _referred(mine[place], embedded.get(index, ()), index)
        rows += mine
    return rows


def size_of(picture: Picture) -> tuple[int, int]:
    """(width, height) as the picture is seen, from its header."""
    return picture.size or upright_size(picture.read())


def open_picture(picture: Picture) -> Any:
    """A picture as `read_picture` decodes it; raises ValueError naming file and row of damage."""
    data = picture.read()
    try:
        return read_picture(data)
    except ValueError as error:
        raise ValueError(f"{_where(picture)}: its picture is damaged ({error}); {AGAIN}") from error


def _where(picture: Picture) -> str:
    """File and row that a picture is read from; its key where it is none of this module's."""
    how = getattr(picture.read, "func", None)
    if how is _read_file:
        path, where = picture.read.args
        return f"{where}: {path}"
    return picture.read.args[-1] if how is _read_cell else picture.key


def is_there(picture: Picture) -> bool:
    """Whether a picture can be read: its file is there, or it needs none."""
    return getattr(picture.read, "func", None) is not _not_there


def file_of(picture: Picture) -> Path | None:
    """The file that a picture is, None for one within a table."""
    return picture.read.args[0] if getattr(picture.read, "func", None) is _read_file else None


def file_sample(path: Path) -> tuple[int, str]:
    """(bytes, SHA-256 of the first, the middle and the last SAMPLE of them) of a file.

    Pictures are compressed: one that was changed is another from there to its end, so that this
    bound, and no time stamp, tells it from another on any machine.
    """
    size, digest = path.stat().st_size, hashlib.sha256()
    with path.open("rb") as file:
        for at in sorted({0, max(size // 2 - SAMPLE // 2, 0), max(size - SAMPLE, 0)}):
            file.seek(at)
            digest.update(file.read(SAMPLE))
    return size, digest.hexdigest()


def missing(questions: Iterable[Question]) -> list[str]:
    """What is said of every picture whose file is not there, each once."""
    gone: dict[str, str] = {}
    for picture in (picture for question in questions for picture in question.pictures):
        if not is_there(picture):
            gone.setdefault(picture.key, picture.read.args[0])
    return list(gone.values())


def file_picture(name: str, path: Path, where: str, *, folders: tuple[str, ...] = ()) -> Picture:
    """A picture in a file of its own, which lies beside the table at `path` or near by.

    name     its path as the table has it; of a longer one the last part is enough
    folders  where else to look: names of folders beside the table
    """
    key = f"file:{path.parent.name}/{name}"
    try:
        found = _found(name, path.parent, folders)
    except FileNotFoundError:
        text = (
            f"{where}: there is no picture {name}; put it into {path.parent / 'images'}, "
            "the folder that its dataset's card names, or link that folder there"
        )
        return Picture(key, functools.partial(_not_there, text))
    return Picture(key, functools.partial(_read_file, found, where))


@functools.lru_cache(maxsize=1 << 16)  # many questions have one picture
def _found(name: str, folder: Path, folders: tuple[str, ...]) -> Path:
    """Where a picture's file lies: its whole path first, beside its table first.

    Raises FileNotFoundError where it lies nowhere.
    """
    for part in dict.fromkeys((name.lstrip("/"), Path(name).name)):
        for top in (folder, folder.parent):  # tables may lie in data/, pictures beside that
            for inner in (*folders, *_FOLDERS):
                for path in (top / inner / part, top / "images" / inner / part):
                    if path.is_file():
                        return path
    raise FileNotFoundError(name)


def _is_short(cell: Any) -> bool:
    """Whether a cell of a picture's column is a name, to be kept among the values."""
    return isinstance(cell, str) and len(cell) <= 1024


def _is_index(cell: Any) -> bool:
    """Whether a cell names another row of its table."""
    return isinstance(cell, int) or (
        isinstance(cell, str) and len(cell) <= _INDEX and not _NAME.fullmatch(cell.strip())
    )


def _referred(row: Row, pictures: tuple[Picture, ...], index: str) -> Row:
    if not pictures:
        raise ValueError(
            f"{row.where}: its picture is that of index {shown(index)}, which its file has not, or "
            f"without one; {AGAIN}"
        )
    return Row(row.values, pictures, row.file, row.number)


def _pictures(cell: Any, column: str | None, cells: Cells) -> Iterator[Picture]:
    """The pictures of a cell, if any."""
    if column is None:
        return
    again = functools.partial(cells.again, column)
    listed = _as_list(cell)
    if listed is None:
        yield _picture(cell, again, cells)
        return
    for place, part in enumerate(listed):
        yield _picture(part, functools.partial(_part, again, place), cells)


def _as_list(cell: Any) -> list | None:
    """The parts of a cell that lists pictures, also one that is written as a text."""
    if isinstance(cell, str) and cell.startswith("["):
        cell = literal(cell)
    return cell if isinstance(cell, list) else None


def _part(again: Callable[[], Any], place: int) -> Any:
    return _as_list(again())[place]


def _picture(cell: Any, again: Callable[[], Any], cells: Cells) -> Picture:
    """A cell's one picture; `again` gives the cell once more."""
    where = cells.where
    name = cell.get("path") if isinstance(cell, dict) and cell.get("bytes") is None else cell
    if isinstance(name, str) and _NAME.fullmatch(name.strip()):
        return file_picture(name.strip(), cells.file, where)
    data = _bytes(cell, where)
    key = hashlib.sha256(data).hexdigest()[:32]
    return Picture(key, functools.partial(_read_cell, again, key, where), _size_told(data))


def _size_told(data: bytes) -> tuple[int, int] | None:
    """What a header says while its bytes are there; what is none is named when it is read."""
    try:
        return upright_size(data)
    except ValueError:
        return None


def _read_cell(again: Callable[[], Any], key: str, where: str) -> bytes:
    data = _bytes(again(), where)
    if hashlib.sha256(data).hexdigest()[:32] != key:
        raise ValueError(f"{where}: the file has changed since it was read; run the command again")
    return _checked(data, where)


def _read_file(path: Path, where: str) -> bytes:
    return _checked(path.read_bytes(), f"{where}: {path}")


def _not_there(text: str) -> bytes:
    raise FileNotFoundError(text)


def _checked(data: bytes, where: str) -> bytes:
    """The bytes, where they begin like a picture."""
    try:
        upright_size(data)
    except ValueError as error:
        raise ValueError(f"{where} holds no picture that can be read ({error}); {AGAIN}") from error
    return data


def _bytes(cell: Any, where: str) -> bytes:
    """The bytes of a file that a cell holds."""
    if isinstance(cell, dict):
        cell = cell.get("bytes")
    if isinstance(cell, str):
        cell = _decoded(cell)
    if not isinstance(cell, bytes) or not cell:
        raise ValueError(
            f"{where}: its picture is {shown(cell)}, neither bytes, base64, a file's name nor "
            f"another row's index; {AGAIN}"
        )
    return cell


def _decoded(text: str) -> bytes | str:
    """Bytes of base64, also of a data URL; the text itself where it is none."""
    inline = text.partition("base64,")[2] if text.startswith("data:") else text
    try:
        return base64.b64decode("".join(inline.split()), validate=True)
    except (binascii.Error, ValueError):
        return text
