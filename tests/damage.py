"""What happens to a file on a disk: the ways in which campaigns damage each kind."""

import random
from collections.abc import Iterator
from pathlib import Path

DAMAGES = ("byte", "half", "emptied", "deleted", "exchanged")
BYTES = 6  # places at which one byte is changed, per kind of file
PLANTED = len(DAMAGES) - 1 + BYTES  # per kind


def cases() -> Iterator[str]:
    """The damages of one kind of file, PLANTED of them."""
    for kind in DAMAGES:
        yield from [kind] * (BYTES if kind == "byte" else 1)


def damage(kind: str, path: Path, other: Path | None, rng: random.Random) -> None:
    """other   what the file is exchanged with, of another run or split"""
    data = path.read_bytes()
    if kind == "byte":
        at = rng.randrange(len(data))
        path.write_bytes(data[:at] + bytes([data[at] ^ rng.randrange(1, 256)]) + data[at + 1 :])
    elif kind == "half":
        path.write_bytes(data[: len(data) // 2])
    elif kind == "emptied":
        path.write_bytes(b"")
    elif kind == "deleted":
        path.unlink()
    else:
        path.write_bytes(other.read_bytes())
