"""One question of a benchmark, and where its pictures are."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field

KINDS = ("yes_no", "letter", "box")


@dataclass(frozen=True)
class Picture:
    """Where a picture's bytes are; nothing is read until it is asked for.

    key   equal keys are the same picture, so questions with one key share its encoding
    read  the file's bytes (PNG, JPEG, ...); raises ValueError or OSError naming file and row
    size  (width, height) as it is seen, where its bytes went by; see `picture_cells.size_of`
    """

    key: str
    read: Callable[[], bytes] = field(repr=False, compare=False)
    size: tuple[int, int] | None = field(default=None, compare=False)


@dataclass(frozen=True)
class Question:
    """What is asked, and what answers it.

    id        unique within its benchmark, the same in all formats where they allow it
    prompt    the text after the pictures, exactly as asked
    pictures  in the order in which they are shown
    kind      of `KINDS`: what an answer is read as
    target    "yes" or "no"; a letter, "A" for the first option; a box x0 y0 x1 y1 in 0..1000 of its
              picture's width and height
    options   kind "letter": the texts of options A, B, ...
    groups    names -> keys that aggregation and intervals need: always "picture"; "category",
              "track", "pair", "figure", "set", "cycle", "source", ... where a rule asks for them
    """

    id: str
    prompt: str
    pictures: tuple[Picture, ...]
    kind: str
    target: str | tuple[float, float, float, float]
    options: tuple[str, ...] = ()
    groups: Mapping[str, str] = field(default_factory=dict)
