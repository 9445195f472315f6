"""Rows of JSON, a line each, appended as they come: every row vouches for all before it.

A row's last field `crc` is the checksum of its text continued from that of the row before, so that
a row that was changed, lost or moved shows at the next row at the latest. The first continues from
the number of the run (`beginning`), so that another run's file shows too.
Rows of earlier versions have none, or begin at 0; those that follow them vouch for them too.
"""

import json
import re
import zlib
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

CRC = "crc"


def beginning(run: str | None) -> int:
    """The checksum that the first row of a run's file continues from; 0 without a number."""
    return zlib.crc32((run or "").encode())


def line_of(row: Mapping[str, Any], before: int) -> tuple[str, int]:
    """(the line, its checksum) of a row.

    before   checksum of the row before; `beginning` where there is none

    Raises ValueError where a number is not finite: JSON has no name for it.
    """
    text = json.dumps(row, allow_nan=False)
    crc = zlib.crc32(text.encode(), before)
    comma = ", " if row else ""
    return f'{text[:-1]}{comma}"{CRC}": "{crc:08x}"}}\n', crc


def text_of(rows: Iterable[Mapping[str, Any]]) -> tuple[str, int]:
    """(all lines, the checksum of the last) of a file's rows."""
    lines, crc = [], 0
    for row in rows:
        line, crc = line_of(row, crc)
        lines.append(line)
    return "".join(lines), crc


def read_rows(path: Path, run: str | None = "") -> list[dict[str, Any]]:
    """The rows of a file, in order, as `read_lines` finds them."""
    return [row for row, _ in read_lines(path, run)[0]]


def read_lines(path: Path, run: str | None = "") -> tuple[list[tuple[dict[str, Any], str]], int]:
    """(each row with its line, the checksum of the last); none where there is no file.

    run   the number of the run that wrote the file; "": it had none; None: it is not known, and
          the first row is believed

    A last line without its end was cut off by a kill and is left out. Raises ValueError naming
    file and line where a line is no row, or where rows are not those that were written.
    """
    text = path.read_text(encoding="utf-8", errors="surrogateescape") if path.is_file() else ""
    crcs = [beginning(run), 0]  # as this version begins, or earlier ones did: the first crc tells
    found, vouched = [], run is not None
    for number, line in enumerate(text.split("\n")[:-1], start=1):
        where = f"{path} line {number}"
        try:
            row = json.loads(line)
            told = row.pop(CRC, None)
        except (json.JSONDecodeError, AttributeError, TypeError) as error:
            raise ValueError(f"{where} is not a JSON row ({error}); {_REMEDY}") from error
        plain = json.dumps(row).encode(errors="surrogateescape")
        crcs = [zlib.crc32(plain, crc) for crc in crcs]
        if told is not None:
            if not vouched and _is_crc(told):
                crcs = [int(told, 16)]
            same = [crc for crc in crcs if told == f"{crc:08x}"]
            if not same:
                raise ValueError(
                    f"{where}: it or a row before it is not what was written, or is another run's "
                    f"(crc {told}, its rows have {crcs[0]:08x}); {_REMEDY}"
                )
            crcs, vouched = same, True
        found.append((row, line))
    return found, crcs[0]


def _is_crc(told: Any) -> bool:
    return isinstance(told, str) and re.fullmatch("[0-9a-f]{8}", told) is not None


_REMEDY = (
    "move the file away to go on without these rows, or take its copy back; a change of your own "
    'is taken once the "crc" fields are gone'
)
