"""One line of the catalog: a benchmark, its files and its rows."""

from __future__ import annotations

import shlex
from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True)
class Benchmark:
    """One line of the table.

    name      what a user types
    title     what its authors call it
    family    the module that reads it
    suites    of `catalog.SUITES`
    kind      of `question.KINDS`
    files     forms by preference: patterns of the files of each, below the root
    rows      numbers of rows that standard files have, the first the usual one; () if not known
    groups    what each question's groups hold beside "picture"
    sources   data sets on the Hugging Face hub, and VLMEvalKit's file
    licence   a note, not advice; the card of the source decides
    include   patterns of the files to download from the first source; () all
    differs   why a number of rows may differ
    pictures  what else to download where these are files of their own
    split     RefCOCO: how VLMEvalKit's file names the split
    """

    name: str
    title: str
    family: str
    suites: tuple[str, ...]
    kind: str
    files: tuple[tuple[str, ...], ...]
    rows: tuple[int, ...]
    groups: tuple[str, ...]
    sources: tuple[str, ...]
    licence: str
    include: tuple[str, ...] = ()
    differs: str = ""
    pictures: str = ""
    split: str = ""

    @property
    def folder(self) -> str:
        """Where a download goes, below the root."""
        return self.files[0][0].partition("/")[0]

    def expected(self, count: int) -> int | None:
        """The standard number of rows: that which is there, where it is one that is known."""
        return count if count in self.rows else next(iter(self.rows), None)

    def command(self, root: str | Path) -> str:
        """How to download it from the first of its sources."""
        place = shlex.quote(str(Path(root) / self.folder))
        who, _, file = self.sources[0].partition(": ")
        if file:
            return f"copy {file} into {place}, as {who} downloads it"
        only = "".join(f" --include {shlex.quote(pattern)}" for pattern in self.include)
        also = f", and {self.pictures} into {place}/images" if self.pictures else ""
        return f"hf download {who} --repo-type dataset{only} --local-dir {place}{also}"
