"""Files that verbs write: whether they can be, before anything is read or computed for them."""

from __future__ import annotations

from pathlib import Path

from dig_jax.common.files import make_folder


def check_out(out: Path, *read: Path, field: str = "--out") -> None:
    """Raises ValueError, or OSError, where a file cannot be written there, or is what is read."""
    for path in read:
        if out.resolve() == path.resolve():
            raise ValueError(f"{field} {out} is what is read; name another file")
    if out.is_dir():
        raise IsADirectoryError(f"{field} {out} is a folder; name a file in it")
    make_folder(out.absolute().parent)
