"""Whether what a result.json holds is a result: every field with its rule, before anybody counts.

A file without a seal may be anybody's, and a broken one must not end in an error of Python's.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

from dig_jax.benchmarks.catalog import NAMES
from dig_jax.common.json_files import shown

AGAIN = "score the answers again: the command that wrote it, `run` or `score`, does"
COUNTS = ("questions", "answers", "truncated", "unparsed")


class Field(NamedTuple):
    """What a field must be; `optional`: or not there, or null."""

    ok: Callable[[Any], bool]
    rule: str
    optional: bool = False


def _number(value: Any) -> bool:
    return type(value) in (int, float) and math.isfinite(value)


def _count(value: Any) -> bool:
    return type(value) is int and value >= 0


def _text(value: Any) -> bool:
    return isinstance(value, str)


def _texts(value: Any) -> bool:
    return isinstance(value, list) and all(map(_text, value))


def _named(value: Any, ok: Callable[[Any], bool]) -> bool:
    return isinstance(value, dict) and all(map(ok, value.values()))


def _box(value: Any) -> bool:
    return isinstance(value, list) and len(value) == 4 and all(map(_number, value))


def _said(value: Any) -> bool:
    return value is None or _text(value) or (isinstance(value, list) and all(map(_box, value)))


def _triple(value: Any) -> bool:
    return isinstance(value, list) and len(value) == 3 and all(map(_number, value))


_RESULT = {
    "benchmark": Field(lambda v: v in NAMES, "is of no benchmark that a rule scores"),
    "protocol": Field(lambda v: isinstance(v, dict), "is no object"),
    "scores": Field(lambda v: bool(v) and _named(v, _triple), "is not [value, low, high] by score"),
    "headline": Field(_text, "is no text"),
    "counts": Field(lambda v: isinstance(v, dict), "is no object"),
    "warnings": Field(_texts, "is no list of texts"),
    "rows": Field(lambda v: isinstance(v, list) and bool(v), "is no list of answers"),
}
# what the scorer knows of every result; the rest of a protocol may be null
_PROTOCOL = {
    "parser": Field(_text, "is no text"),
    "thinking": Field(lambda v: isinstance(v, bool), "is not true or false"),
    "samples": Field(_count, "is no number from 0", optional=True),
}
_COUNTS = {name: Field(_count, "is no number from 0") for name in COUNTS}
_COUNTS["how"] = Field(lambda v: _named(v, _count), "is not a number by way", optional=True)
_ROW = {
    "id": Field(_text, "is no text"),
    "sample": Field(_count, "is no number from 0"),
    "correct": Field(lambda v: _number(v) and 0 <= v <= 1, "is no number from 0 to 1"),
    "value": Field(_said, "is neither a text nor boxes", optional=True),
    "target": Field(lambda v: _text(v) or _box(v), "is neither a text nor a box"),
    "how": Field(_text, "is no text"),
    "groups": Field(lambda v: _named(v, _text), "is not a text by group"),
    "text": Field(_text, "is no text"),
    "iou": Field(_number, "is no number", optional=True),
    "best": Field(_number, "is no number", optional=True),
    "tokens": Field(_count, "is no number from 0", optional=True),
}


def check(found: Mapping[str, Any], where: str) -> None:
    """Raises ValueError naming the file, the field, what it holds, the rule and the remedy."""
    _fields(found, _RESULT, where, "")
    _fields(found["protocol"], _PROTOCOL, where, "protocol.")
    _fields(found["counts"], _COUNTS, where, "counts.")
    for number, row in enumerate(found["rows"]):
        place = f"rows[{number}]"
        if not isinstance(row, dict):
            raise ValueError(f"{where}: {place}={shown(row)} is no object; {AGAIN}")
        _fields(row, _ROW, where, f"{place}.")
    if found["headline"] not in found["scores"]:
        headline = shown(found["headline"])
        raise ValueError(f"{where}: headline={headline} is none of its scores; {AGAIN}")


def _fields(
    values: Mapping[str, Any], fields: Mapping[str, Field], where: str, before: str
) -> None:
    missing = [name for name, field in fields.items() if name not in values and not field.optional]
    if missing:
        raise ValueError(f"{where} has no {_listed(before, missing)}; {AGAIN}")
    for name, field in fields.items():
        value = values.get(name)
        if not (field.ok(value) or (field.optional and value is None)):
            raise ValueError(f"{where}: {before}{name}={shown(value)} {field.rule}; {AGAIN}")


def _listed(before: str, names: Sequence[str]) -> str:
    return ", ".join(f"{before}{name}" for name in names)
