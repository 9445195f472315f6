"""The picture cells of anybody's table: bytes, files beside it, base64, pixels."""

from __future__ import annotations

import base64
import binascii
from pathlib import Path

import numpy as np

from dig_jax.data.exchange.bad_row import BadRow
from dig_jax.inputs.images import to_rgb
from dig_jax.inputs.picture_files import depth_fault, read_picture, upright_size

_LONGEST_PATH = 4096  # characters; a longer text is base64


def cells(row: dict, images: tuple[str, ...]) -> list:
    """The two picture cells of a row: of two columns, or of one that lists both."""
    found = [row[name] for name in images]
    if len(images) == 1:
        found = found[0] if isinstance(found[0], list) else found
        if len(found) != 2:
            raise BadRow(
                "not_two_images",
                f"{images[0]} holds {len(found)} pictures; a pair has two: use a column with a "
                "list of two, or --image-a and --image-b",
            )
    return found


def picture(cell: object, path: Path) -> np.ndarray:
    """u8[Y,X,3] of a cell of the table at `path`, upright; raises BadRow."""
    found = _content(cell, path)
    if isinstance(found, np.ndarray):
        return found
    try:
        image = read_picture(found)
        fault = depth_fault(image)
        if fault is None:
            return to_rgb(image)
    except ValueError as error:
        raise _unreadable(error) from error
    raise BadRow("deep_picture", f"a picture cannot be taken as it is: {fault}")


def picture_size(cell: object, path: Path) -> tuple[int, int]:
    """(width, height) of `picture`, without decoding it where its header tells."""
    found = _content(cell, path)
    if isinstance(found, np.ndarray):
        return found.shape[1::-1]
    try:
        return upright_size(found)
    except ValueError as error:
        raise _unreadable(error) from error


def _unreadable(error: Exception) -> BadRow:
    return BadRow("unreadable", f"a picture cannot be read ({error}); replace it or drop the row")


def _content(cell: object, path: Path) -> bytes | np.ndarray:
    """The bytes of a picture file, or pixels u8[Y,X,3]."""
    if isinstance(cell, bytes):
        return cell
    if isinstance(cell, dict) and isinstance(cell.get("bytes"), bytes):
        return cell["bytes"]
    if isinstance(cell, dict) and isinstance(cell.get("path"), str):
        return _of_text(cell["path"], path)
    if isinstance(cell, str):
        return _of_text(cell, path)
    if isinstance(cell, list) and len(cell) == 1:
        return _content(cell[0], path)
    if isinstance(cell, list) and cell:
        return _of_numbers(cell)
    raise BadRow(
        "no_picture",
        f"a picture is {_short(cell)}; store its bytes (`datasets` does with Image features), its "
        "path from the parquet file, or base64",
    )


def _of_text(text: str, path: Path) -> bytes:
    """A file beside the table, by its path or its name alone; or base64, also as a data URL."""
    if len(text) <= _LONGEST_PATH:
        for file in (path.parent / text, path.parent / Path(text).name):
            try:
                if file.is_file():
                    return file.read_bytes()
            except (OSError, ValueError):  # a name that no file can have, or no rights
                continue
    inline = text.partition("base64,")[2] if text.startswith("data:") else text
    try:
        found = base64.b64decode("".join(inline.split()), validate=True)
    except (binascii.Error, ValueError):
        found = b""
    if len(found) < 16:  # a path is often base64 by chance, of nothing
        raise BadRow(
            "no_picture",
            f"a picture is the text {_short(text)}, which is no base64 and names no file in "
            f"{path.parent.absolute()}: put the file there, or store its bytes",
        )
    return found


def _of_numbers(cell: list) -> bytes | np.ndarray:
    """Bytes as a list of numbers, or pixels as lists of rows, grey or RGB."""
    try:
        values = np.array(cell)
        whole = values.dtype.kind in "iu" and 0 <= values.min() and values.max() <= 255
    except (ValueError, TypeError):
        values, whole = np.zeros(0), False
    if whole and values.ndim == 1:
        return values.astype(np.uint8).tobytes()
    if whole and values.ndim == 2:
        return np.repeat(values.astype(np.uint8)[..., None], 3, axis=2)
    if whole and values.ndim == 3 and values.shape[2] == 3:
        return values.astype(np.uint8)
    raise BadRow(
        "no_picture",
        f"a picture is the list {_short(cell)}; a list is bytes 0..255 of a file, or rows of "
        "pixels 0..255, grey or RGB (height x width x 3): store it so, or as a file's bytes",
    )


def _short(cell: object) -> str:
    text = repr(cell) if not isinstance(cell, list) else f"[{str(cell[:4])[1:-1]}, ...]"
    return text if len(text) <= 60 else f"{text[:60]}..."
