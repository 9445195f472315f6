"""Fields of several sides beside one another; what differs is marked."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence

from dig_jax.pages.shell import Html, Side, letter, table

_SHORT = 300  # characters of a value


def beside(
    sides: Sequence[Side],
    fields: Sequence[Mapping[str, object]],
    *,
    caption: str,
    only_differences: bool = False,
) -> Html:
    """A table with a row per field and a column per side; "" where there is none.

    fields            of each side; a field that a side lacks is shown as not told
    only_differences  leave out the fields that are the same on all sides
    """
    names = list(dict.fromkeys(name for each in fields for name in each))
    rows, marks = [], {}
    for name in names:
        values = [words(each.get(name)) for each in fields]
        differs = len(set(values)) > 1
        if only_differences and not differs:
            continue
        if differs:
            marks[len(rows)] = "differs"
        rows.append([name, *values])
    if not rows:
        return Html("")
    head = ["", *map(letter, sides)]
    return table(head, rows, caption=caption, css="facts", marks=marks)


def words(value: object) -> str:
    """A value of a JSON file as text, shortened."""
    if value is None:
        return "not told"
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, Mapping):
        text = ", ".join(f"{name} {words(inner)}" for name, inner in value.items())
    elif isinstance(value, list | tuple):
        text = ", ".join(map(words, value))
    else:
        text = value if isinstance(value, str) else json.dumps(value)
    return text if len(text) <= _SHORT else f"{text[:_SHORT]}..."


def merged(parts: Iterable[tuple[str, Mapping[str, object]]]) -> dict[str, object]:
    """One set of fields of several: a field that is not the same in all tells each of its values.

    parts   (name of a part, its fields)
    """
    parts = list(parts)
    found: dict[str, object] = {}
    for field in dict.fromkeys(name for _, fields in parts for name in fields):
        having: dict[str, list[str]] = {}
        for name, fields in parts:
            having.setdefault(words(fields.get(field)), []).append(name)
        if len(having) == 1:
            found[field] = next(iter(having))
        else:
            found[field] = "; ".join(f"{value} ({', '.join(of)})" for value, of in having.items())
    return found
