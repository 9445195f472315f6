"""Checks that depend on one another, all of them run, and what they found as one table.

A check is a function of what the checks that it needs have found. It says what is wrong by its
finding or by raising; either way the others go on, but for those that need it.
"""

import os
import textwrap
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Literal, NamedTuple, TextIO

from dig_jax.common.commandline import WIDTH

State = Literal["ok", "red", "--"]
_COLOURS = {"ok": "32", "red": "1;31", "--": "2"}  # green, bold red, faint


@dataclass(frozen=True)
class Finding:
    """What one check found.

    text    the figures, for the table
    value   what the checks that need this one are given
    rule    what is broken; "" = nothing
    remedy  what to do about it
    """

    text: str
    value: Any = None
    rule: str = ""
    remedy: str = ""


class Check(NamedTuple):
    """find(*values of the checks it needs, in that order) -> Finding."""

    name: str
    find: Callable[..., Finding]
    needs: tuple[str, ...] = ()


@dataclass(frozen=True)
class Row:
    """A line of the table; "--" is a check that could not be made."""

    name: str
    state: State
    text: str
    rule: str = ""
    remedy: str = ""


def run_checks(checks: Sequence[Check]) -> list[Row]:
    """One row per check, in their order; each check comes after those that it needs."""
    rows, values = [], {}
    for name, find, needs in checks:
        missing = [need for need in needs if need not in values]
        if missing:
            rows.append(Row(name, "--", f"skipped: needs {', '.join(missing)}"))
            continue
        try:
            found = find(*(values[need] for need in needs))
        except Exception as error:  # whatever it is, the other checks are worth having
            found = _from_error(error)
        if not found.rule:
            values[name] = found.value
        state = "red" if found.rule else "ok"
        rows.append(Row(name, state, found.text, found.rule, found.remedy))
    return rows


def table(rows: Sequence[Row], *, colour: bool = False) -> str:
    """The rows for a reader, at most WIDTH characters wide, with a heading and a last line."""
    left = max(len("check"), *(len(row.name) for row in rows))
    space = WIDTH - left - 9
    lines = [f"       {'check':<{left}}  found", f"       {'-' * left}  {'-' * space}"]
    for row in rows:
        first, *more = _wrapped(row, space)
        mark = f"{row.state:>5}"
        name = f"{row.name:<{left}}"
        if colour:
            mark = _painted(mark, row.state)
            name = _painted(name, row.state) if row.state != "ok" else name
        lines.append(f"{mark}  {name}  {first}".rstrip())
        lines += [f"       {'':<{left}}  {line}".rstrip() for line in more]
    return "\n".join([*lines, "", _verdict(rows, colour)])


def in_colour(stream: TextIO) -> bool:
    """Whether to paint what is written there: terminals only, and not where NO_COLOR is set."""
    return stream.isatty() and not os.environ.get("NO_COLOR")


def _verdict(rows: Sequence[Row], colour: bool) -> str:
    red = [row.name for row in rows if row.state == "red"]
    skipped = sum(row.state == "--" for row in rows)
    if red:
        rest = f", {skipped} skipped" if skipped else ""
        text = f"{len(red)} of {len(rows)} checks red{rest}: {', '.join(red)}"
        text = "\n".join(textwrap.wrap(text, WIDTH))
    else:
        text = f"all {len(rows)} checks green"
    return _painted(text, "red" if red else "ok") if colour else text


def _wrapped(row: Row, space: int) -> list[str]:
    parts = [row.text or row.rule]
    parts += [f"rule: {row.rule}"] if row.text and row.rule else []
    parts += [f"fix:  {row.remedy}"] if row.remedy else []
    lines = []
    for part in parts:
        indent = " " * 6 if part.startswith(("rule: ", "fix:  ")) else ""
        for number, line in enumerate(part.splitlines()):
            lines += textwrap.wrap(
                line,
                space,
                initial_indent=indent if number else "",
                subsequent_indent=indent,
                break_on_hyphens=False,
            ) or [""]
    return lines


def _painted(text: str, state: State) -> str:
    return f"\x1b[{_COLOURS[state]}m{text}\x1b[0m"


def _from_error(error: Exception) -> Finding:
    """The package's messages are "what is wrong; remedy", or lines of which the last is that."""
    text = str(error.args[0] if len(error.args) == 1 else error)
    if not isinstance(error, KeyError | TypeError | ValueError | OSError):
        text = f"{type(error).__name__}: {text}"
    rule, _, remedy = text.rpartition("\n") if "\n" in text else text.partition("; ")
    return Finding("", rule=rule or type(error).__name__, remedy=remedy)
