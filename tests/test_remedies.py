"""Every remedy that a message names is followed once by a test, or the register says why not.

tests/remedies/ROOM.toml has a table per module and in it a row per message: a piece of its text,
and the test that does what the message advises and then gets through, as path::name below tests/.
In place of a test there may be

    states: ...   the message says what is wrong or has happened and advises nothing; why
    cannot: ...   nobody can follow it here (a cloud, a GPU, a package that is missing); why
    untried       nobody has followed it yet
"""

import ast
import re
import tomllib
from functools import cache
from pathlib import Path

import pytest

from tests import ROOT
from tests.messages import messages

UNTRIED = 0  # may only become smaller
ROOMS = sorted((ROOT / "tests" / "remedies").glob("*.toml"))
MESSAGES = messages()


def rows(path: Path) -> list[tuple[str, str, str]]:
    """(module, piece of a message's text, who follows it) of a room's file."""
    tables = tomllib.loads(path.read_text())
    return [(module, piece, by) for module, table in tables.items() for piece, by in table.items()]


REGISTER = [row for path in ROOMS for row in rows(path)]


@cache
def names_in(file: str) -> frozenset[str]:
    """The names of a test file's tests."""
    tree = ast.parse((ROOT / "tests" / file).read_text())
    found = (node for node in ast.walk(tree) if isinstance(node, ast.FunctionDef))
    return frozenset(node.name for node in found if node.name.startswith("test_"))


def test_every_message_that_advises_has_a_row():
    missing = [
        f"{message.module} line {message.line}: {message.text}"
        for message in MESSAGES
        if not any(m == message.module and piece in message.text for m, piece, _ in REGISTER)
    ]
    assert not missing, "\n".join(["follow it in a test and add its row:", *missing])


@pytest.mark.parametrize("path", ROOMS, ids=lambda path: path.stem)
def test_every_row_has_a_message_and_a_test(path):
    for module, piece, by in rows(path):
        said = [m for m in MESSAGES if m.module == module and piece in m.text]
        assert said, f"no message of {module} says {piece!r}; drop the row"
        if re.match(r"(states|cannot): \w", by) or by == "untried":
            continue
        file, _, name = by.partition("::")
        assert (ROOT / "tests" / file).is_file(), f"{piece!r}: no file tests/{file}"
        assert name in names_in(file), f"{piece!r}: tests/{file} has no {name}"


def test_the_untried_become_fewer():
    untried = [f"{module}: {piece}" for module, piece, by in REGISTER if by == "untried"]
    left = len(untried)
    print(f"{len(MESSAGES)} messages advise, {left} rows are untried:", *untried, sep="\n")
    assert left == UNTRIED, "set UNTRIED to the number of rows that are left"
