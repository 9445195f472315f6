"""Records into the shards of a split that nobody rendered here."""

from __future__ import annotations

import os
import platform
from collections import Counter
from collections.abc import Iterable
from pathlib import Path

import numpy as np

import dig_jax
from dig_jax.common import sealed
from dig_jax.common.files import write_json
from dig_jax.data import records
from dig_jax.data.exchange import example, parquet

_OWN = ("file", "count", "sha256", sealed.FIELD)  # of a sidecar, whatever facts it tells


class ShardWriter:
    """Records into shards of given counts, and what their manifest tells.

    sidecars   of the shards to be made again: their facts go into the new ones
    total      shards there will be; 0 where that is known at the end only
    """

    def __init__(self, folder: Path, counts: Iterable[int], sidecars: list, total: int):
        self._folder, self._counts, self._total = folder, iter(counts), total
        self._facts = [
            {k: v for k, v in (sidecar or {}).items() if k not in _OWN} for sidecar in sidecars
        ]
        self._waiting: list[bytes] = []
        self._want = next(self._counts, 0)
        self._entries: list[dict] = []
        self._size: tuple | None = None
        self._counted = {name: Counter() for name in ("k", "types", "things", "label_width_px")}
        self.pairs = 0

    def add(self, record: bytes) -> None:
        self._waiting.append(record)
        self._count(records.decode_meta(record), record)
        self.pairs += 1
        if len(self._waiting) == self._want:
            self._write()

    def close(self) -> list[dict]:
        """Write the rest and give the shards their names; returns their sidecars."""
        if self._waiting:
            self._write()
        if not self._entries:
            raise ValueError("no row is a pair, so there is no split to make; see the rules above")
        total = len(self._entries)
        if self._total != total:
            for number, entry in enumerate(self._entries):
                path = self._folder / entry["file"]
                named = self._folder / records.shard_name(number, total)
                records.sidecar(path).unlink()
                os.replace(path, named)
                entry["file"] = named.name
                write_json(records.sidecar(named), sealed.sealed(entry))
        return self._entries

    def forget_sidecars(self) -> None:
        """Shards that are not the original ones do not carry their request."""
        for entry in self._entries:
            kept = {name: entry[name] for name in ("file", "count", "sha256")}
            path = records.sidecar(self._folder / entry["file"])
            write_json(path, sealed.sealed(kept))

    def manifest(self, split: str, files: list[Path], request: dict) -> dict:
        """What `records.open_split` and `pipeline` read, and where the pairs come from."""
        shards = [{name: e[name] for name in ("file", "count", "sha256")} for e in self._entries]
        counted = {name: _sorted(counts) for name, counts in self._counted.items()}
        return {
            "complete": True,
            "pairs": self.pairs,
            "shard_count": len(shards),
            "request": {"split": split, "files": [path.name for path in files], **request},
            "settings": {"width": self._size[0], "height": self._size[1]},
            "renderer": "import",
            "versions": {
                "dig_jax": dig_jax.__version__,
                "pyarrow": parquet.version(),
                "numpy": np.__version__,
                "python": platform.python_version(),
            },
            **counted,
            "visible_percent": {},
            "dropped": {},
            "shards": shards,
        }

    def _write(self) -> None:
        number = len(self._entries)
        path = self._folder / records.shard_name(number, self._total)
        facts = self._facts[number] if self._facts else {}
        self._entries.append(records.write_shard(path, self._waiting, facts))
        self._waiting, self._want = [], next(self._counts, 0)

    def _count(self, meta: dict, record: bytes) -> None:
        self._size = self._size or example.read_example(record, "", 0).size
        differences = meta["differences"]
        self._counted["k"][len(differences)] += 1
        self._counted["types"].update(d.get("type") or "unknown" for d in differences)
        self._counted["label_width_px"].update(d["box"][2] - d["box"][0] for d in differences)
        if "a" in meta:
            self._counted["things"][len(meta["a"])] += 1


def _sorted(counts: Counter) -> dict[str, int]:
    """A histogram with text keys, numbers in their order."""
    items = sorted(counts.items(), key=lambda item: (len(str(item[0])), str(item[0])))
    return {str(value): count for value, count in items}
