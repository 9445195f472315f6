"""The splits of a folder as they are on disk, rendered here or imported."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from dig_jax.common import typed
from dig_jax.data import records
from dig_jax.data.scene.draws import SPLIT_IDS

_MAKE_SOME = "make some with `python -m dig_jax.data make --preset tiny --root {}`"


@dataclass(frozen=True)
class Split:
    """A split on disk."""

    name: str
    manifest: dict
    shards: tuple[Path, ...]

    @property
    def draw(self) -> dict:
        """What its pairs were drawn from; empty for imported ones."""
        return self.manifest.get("request", {}).get("draw", {})

    @property
    def look(self) -> dict:
        """The settings of its scenes; empty for imported ones."""
        return self.manifest.get("settings") or {}


def split_folders(root: Path, names: str | None = None) -> list[Path]:
    """The split folders of a root, or those named, separated by commas.

    Raises FileNotFoundError where there is none, ValueError for a name that is not there.
    """
    known = [path.parent.name for path in root.glob(f"*/{records.MANIFEST}")]
    known.sort(key=lambda name: (SPLIT_IDS.get(name, len(known) + 2**31), name))
    if not known:
        one = (root / records.MANIFEST).is_file()
        hint = f"it is a split itself, use --root {root.parent}" if one else _MAKE_SOME.format(root)
        raise FileNotFoundError(f"--root {root} holds no splits; {hint}")
    wanted = [name.strip() for name in names.split(",")] if names else known
    for name in wanted:
        ok = name in known and wanted.count(name) == 1
        rule = "is repeated" if name in known else f"is not a split of {root}"
        typed.require(ok, "--splits", name, rule, f"use {', '.join(known)}")
    return [root / name for name in wanted]


def open_splits(root: Path, names: str | None = None) -> list[Split]:
    """The splits of `split_folders`, opened; one that is not whole yet counts as it is."""
    return [_open_split(folder) for folder in split_folders(root, names)]


def _open_split(folder: Path) -> Split:
    shards = records.open_split(folder, allow_partial=True, verify=False)
    manifest = records.read_manifest(folder)
    return Split(folder.name, manifest, tuple(shards))
