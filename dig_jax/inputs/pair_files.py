"""Pairs of picture files: which files of a folder belong together, and what they show."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np

from dig_jax.inputs.images import resize, to_rgb
from dig_jax.inputs.picture_files import depth_fault, open_image

SUFFIXES = (".png", ".jpg", ".jpeg", ".webp", ".bmp", ".gif", ".tif", ".tiff")
_RULE = "pairs are X_a.png with X_b.png, or X/a.png with X/b.png"


class PairFiles(NamedTuple):
    """Two pictures by their files; `name` is X."""

    name: str
    a: Path
    b: Path


def find_pairs(folder: Path) -> list[PairFiles]:
    """The pairs of a folder by their names, in their order.

    X_a.png and X_b.png, or a folder X with a.png and b.png; the suffix is any of SUFFIXES and may
    differ. Hidden files and files that are no pictures are passed over.

    Raises FileNotFoundError or ValueError naming the first picture that is in no pair.
    """
    if not folder.is_dir():
        raise FileNotFoundError(f"folder {folder} does not exist; name one, or two pictures")
    sides: dict[str, dict[str, Path]] = {}
    for path in sorted(folder.iterdir()):
        for inside in _pictures(path):
            name, side = _side_of(folder, inside)
            known = sides.setdefault(name, {})
            if side in known:
                raise ValueError(
                    f"{known[side]} and {inside} are both picture {side} of pair {name!r}; "
                    f"take one of them away"
                )
            known[side] = inside
    for name, known in sides.items():
        if len(known) < 2:
            (side, path), other = *known.items(), "b" if "a" in known else "a"
            raise ValueError(
                f"{path} is picture {side} of pair {name!r}, which has no picture {other}; "
                f"{_RULE}: add it, or move the file away"
            )
    if not sides:
        raise ValueError(f"folder {folder} holds no pictures; {_RULE}: put some there")
    return [PairFiles(name, sides[name]["a"], sides[name]["b"]) for name in sorted(sides)]


def read_pair(files: PairFiles) -> tuple[list[np.ndarray], list[str]]:
    """The two pictures upright, u8[y, x, 3] each, and what is wrong with their depth, by file.

    Raises FileNotFoundError or ValueError naming the file.
    """
    pictures, warnings = [], []
    for path in (files.a, files.b):
        picture = open_image(path)
        if fault := depth_fault(picture):  # shown as Hugging Face would show it
            warnings.append(f"{path} will not look as it should: {fault}")
        pictures.append(to_rgb(picture))
    return pictures, warnings


def difference(pictures: Sequence[np.ndarray]) -> np.ndarray:
    """|A - B| in its largest channel, u8[y, x] of B's size: an A of another is stretched to it."""
    a, b = pictures
    a = resize(a, b.shape[:2])
    return (np.maximum(a, b) - np.minimum(a, b)).max(-1)


def _pictures(path: Path) -> list[Path]:
    """The pictures that an entry of the folder stands for: itself, or those inside it."""
    if path.name.startswith("."):
        return []
    found = sorted(path.iterdir()) if path.is_dir() else [path]
    return [p for p in found if p.suffix.lower() in SUFFIXES and not p.name.startswith(".")]


def _side_of(folder: Path, path: Path) -> tuple[str, str]:
    """("X", "a") of X_a.png or X/a.png."""
    if path.parent != folder:
        name, side = path.parent.name, path.stem
    else:
        name, _, side = path.stem.rpartition("_")
    if not name or side not in ("a", "b"):
        raise ValueError(f"{path} is no picture of a pair; {_RULE}: rename it or move it away")
    return name, side
