"""Result folders: which benchmarks are scored in them."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from dig_jax.benchmarks import result as results
from dig_jax.benchmarks.catalog import BENCHMARKS

RESULT = "result.json"


class Result(NamedTuple):
    """One scored benchmark: where it is, and what its result.json holds."""

    path: Path
    body: dict[str, Any]

    @property
    def name(self) -> str:
        return self.body["benchmark"]


def find_results(place: Path) -> dict[str, Result]:
    """benchmark -> its result, of a result.json, its folder, or a folder of such folders.

    In the catalog's order. Raises ValueError naming the place where there is none, where one
    benchmark is there twice, or where a file is not what was written.
    """
    if place.is_file():
        paths = [place]
    elif (place / RESULT).is_file():
        paths = [place / RESULT]
    else:
        paths = sorted(place.glob(f"*/{RESULT}"))
    if not paths:
        what = f"holds no {RESULT} and no */{RESULT}" if place.is_dir() else "does not exist"
        raise ValueError(
            f"{place} {what}; name what `benchmark run --out` or `benchmark score --out` wrote"
        )
    found: dict[str, Result] = {}
    for path in paths:
        each = Result(path, results.read_result(path))
        if each.name in found:
            raise ValueError(
                f"{path} and {found[each.name].path} both score {each.name}; name one of them, or "
                f"move the other out of {place}"
            )
        found[each.name] = each
    return {name: found[name] for name in in_order(found)}


def in_order(names: Iterable[str]) -> list[str]:
    """Benchmarks in the catalog's order; those that it lacks at the end."""
    order = {each.name: number for number, each in enumerate(BENCHMARKS)}
    return sorted(names, key=lambda name: (order.get(name, len(order)), name))


def short_names(places: Sequence[Path]) -> list[str]:
    """As few last parts of each path as tell them all apart."""
    parts = [place.resolve().parts for place in places]
    for depth in range(1, 1 + max(map(len, parts))):
        names = ["/".join(each[-depth:]) for each in parts]
        if len(set(names)) == len(set(parts)):
            return names
    return [str(place) for place in places]
