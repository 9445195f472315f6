"""OUT/SHA256SUMS: what every file of an export was when it was written; `sha256sum -c` reads it.

Its last line is a comment with the sha256 of the lines before it.
"""

from __future__ import annotations

import hashlib
from pathlib import Path

from dig_jax.common.files import file_sha256, write_text

NAME = "SHA256SUMS"
_SEAL = "# sha256 of the lines above: "
_AGAIN = "copy, download or export it again"


def write_sums(out: Path) -> None:
    """Of all files below a folder."""
    files = sorted(path for path in out.rglob("*") if path.is_file())
    lines = [f"{file_sha256(path)}  {path.relative_to(out)}\n" for path in files]
    text = "".join(lines)
    write_text(out / NAME, f"{text}{_SEAL}{_digest(text)}\n")


def check_file(path: Path, root: Path, *, ours: bool) -> None:
    """Raises ValueError where a file is not what the SHA256SUMS of its export tells.

    root   the export's folder; without a SHA256SUMS there nothing is known
    ours   the file says that we made it; else a SHA256SUMS may be anybody's
    """
    sums, name = root / NAME, path.relative_to(root).as_posix()
    if not sums.is_file():
        return
    text = sums.read_text(encoding="utf-8", errors="replace")
    if not ours and _SEAL not in text:
        return
    known = _read(sums, text)
    if name not in known:
        raise ValueError(f"{path} is not among the files of its export ({sums}); delete it")
    if file_sha256(path) != known[name]:
        raise ValueError(f"{path} is not what {sums} tells (another sha256); {_AGAIN}")


def names(root: Path) -> set[str]:
    """The files that an export of ours had; none where its SHA256SUMS is gone or anybody's."""
    sums = root / NAME
    text = sums.read_text(encoding="utf-8", errors="replace") if sums.is_file() else ""
    return set(_read(sums, text)) if _SEAL in text else set()


def _read(sums: Path, text: str) -> dict[str, str]:
    """Name -> sha256."""
    text, _, seal = text.partition(_SEAL)
    if seal.strip() != _digest(text):
        raise ValueError(
            f"{sums} was changed; {_AGAIN}, or delete it: parquet files have checksums of their own"
        )
    return {name: digest for digest, name in (line.split("  ", 1) for line in text.splitlines())}


def _digest(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()
