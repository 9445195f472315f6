"""A result folder while it is made: how it is made, and every answer as soon as it is there.

D/protocol.json               what all answers below are made with
D/NAME/protocol.json          what they answer
D/NAME/answers.jsonl          {"id", "sample", "answer", "ended", "tokens"} a line
D/NAME/answers-I-of-N.jsonl   the same, of one of N shares
D/NAME/cost.jsonl             what they took, see `cost`
D/NAME/result.json            once all are there
"""

from __future__ import annotations

import json
import os
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from dig_jax.benchmark.asking import Tag
from dig_jax.common import sealed
from dig_jax.common.files import create_text, make_folder, read_sealed, telling_room
from dig_jax.common.rows import line_of, read_lines

PROTOCOL = "protocol.json"
ROW = ("id", "sample", "answer", "ended", "tokens")
_REMEDY = "name another --out, or move the folder away"


def check_protocol(out: Path, protocol: Mapping[str, Any]) -> None:
    """Writes out/protocol.json, or holds it against the one that is there.

    Raises ValueError naming what differs, or answers of no known protocol: two are never mixed.
    """
    path = out / PROTOCOL
    if not path.exists():
        answers = next(
            (each for at in ("", "*/") for each in out.glob(f"{at}answers*.jsonl")), None
        )
        if answers:
            raise ValueError(f"{answers} is there, but no {path} that tells of it; {_REMEDY}")
        make_folder(out)
        create_text(path, json.dumps(sealed.sealed(dict(protocol))) + "\n")  # of two one succeeds
    known = read_sealed(path, _REMEDY)
    lacking = [name for name, value in protocol.items() if value is not None and name not in known]
    if lacking:
        raise ValueError(
            f"{path} has no {', '.join(lacking)}: this version's `run` did not write it; {_REMEDY}"
        )
    differ = [name for name in protocol if known.get(name) != protocol[name]]
    if differ:
        told = "; ".join(
            f"{name}: {known.get(name)!r} there, {protocol[name]!r} now" for name in differ
        )
        raise ValueError(f"{out} was begun with another protocol ({told}); {_REMEDY}")


def answers_name(shard: tuple[int, int]) -> str:
    """The file of one share of the questions."""
    return _name("answers", shard)


def cost_name(shard: tuple[int, int]) -> str:
    """The file that tells what a share's answers cost, see `cost`."""
    return _name("cost", shard)


def _name(stem: str, shard: tuple[int, int]) -> str:
    number, count = shard
    return f"{stem}.jsonl" if count == 1 else f"{stem}-{number}-of-{count}.jsonl"


def read_answers(folder: Path) -> dict[Tag, dict[str, Any]]:
    """Every answer of a benchmark's folder, whichever share it is from.

    Raises ValueError naming the line where it is not one that `appending` wrote.
    """
    found = {}
    for path in sorted(folder.glob("answers*.jsonl")):
        for number, (row, _) in enumerate(read_lines(path)[0], start=1):
            lacking = [name for name in ROW if name not in row]
            if lacking:
                raise ValueError(
                    f"{path} line {number} has no {', '.join(lacking)}: it is none of `run`; score "
                    f"anybody's answers with `score --answers`, and move the file away"
                )
            found[row["id"], row["sample"]] = row
    return found


@contextmanager
def appending(path: Path) -> Iterator[Any]:
    """write(rows): appends rows to a file; they are on the disk when it returns.

    A last line that a kill cut off is taken away.
    """
    make_folder(path.parent)
    rows, crc = read_lines(path)
    whole = sum(len(line.encode(errors="surrogateescape")) + 1 for _, line in rows)
    with telling_room(path), path.open("ab") as file:
        file.truncate(whole)

        def write(new: Iterable[Mapping[str, Any]]) -> None:
            nonlocal crc
            for row in new:
                line, crc = line_of(row, crc)
                file.write(line.encode())
            file.flush()
            os.fsync(file.fileno())

        yield write
