"""Every message of dig_jax/ and tpu/ that advises something, read from the source."""

import ast
import re
from pathlib import Path
from typing import NamedTuple

from tests import ROOT

SAYS = ("require", "error", "print", "warn", "warning", "info", "read_json", "read_sealed")
# Arguments and variables that are a remedy by their name, whoever puts them into a message.
REMEDY = re.compile(r"(^|_)(remed(y|ies)|advice|again|hint|merge)$", re.I)
_VERBS = (
    "use set run make delete move choose copy give name install raise lower write add take free "
    "look try start fetch download put end"
).replace(" ", "|")
# What behind "; ", or anywhere in a remedy, tells someone what to do.
ADVICE = re.compile(rf"; |\?$|(?<![\w.])({_VERBS})(?![\w.]\w)")
# The same in a text that is only returned or named, as no other text has it.
PASSED_ON = re.compile(rf"; ({_VERBS}) |^({_VERBS}) \S+ ")


class Message(NamedTuple):
    """`text` has {} where a value stands; `line` and `end` are the lines of its statement."""

    module: str
    text: str
    line: int
    end: int


def messages() -> list[Message]:
    """All of them, by file and line."""
    found = []
    for top in ("dig_jax", "tpu"):
        for path in sorted((ROOT / top).rglob("*.py")):
            name = ".".join(path.relative_to(ROOT).with_suffix("").parts)
            found += _of_file(name.removeprefix("dig_jax."), path)
    return found


def _of_file(module: str, path: Path) -> list[Message]:
    found = []
    for node in ast.walk(ast.parse(path.read_text())):
        text = _said(node)
        if ADVICE.search(text) and re.search(r"[a-z]", text):
            found.append(Message(module, text, node.lineno, node.end_lineno))
    kept = []
    for message in sorted(found, key=lambda m: (m.line, -m.end)):
        if not kept or message.line > kept[-1].end:  # else it is a part of the one before
            kept.append(message)
    return kept


def _said(node: ast.AST) -> str:
    """What a statement or call tells a person, or ""."""
    if isinstance(node, ast.Raise) and isinstance(node.exc, ast.Call):
        return _text(node.exc.args)
    if isinstance(node, ast.Call):
        called = getattr(node.func, "attr", getattr(node.func, "id", ""))
        if called in SAYS or called.endswith("Error"):
            return _text(node.args)
        return _text([k.value for k in node.keywords if k.arg and REMEDY.search(k.arg)])
    if isinstance(node, ast.Assign) and REMEDY.search(ast.unparse(node.targets[0])):
        return _text([node.value])
    if isinstance(node, ast.Return | ast.Assign) and not isinstance(node.value, ast.Call):
        pieces = _pieces(node.value) if node.value else []
        return " ".join(piece for piece in pieces if PASSED_ON.search(piece))
    return ""


def _text(nodes: list) -> str:
    """The texts in expressions, in order; {} for a value in one."""
    return " ".join(" ".join(_pieces(node)) for node in nodes).strip()


def _pieces(node: ast.AST) -> list[str]:
    if isinstance(node, ast.Constant):
        return [node.value] if isinstance(node.value, str) else []
    if isinstance(node, ast.JoinedStr):
        parts = (v.value if isinstance(v, ast.Constant) else "{}" for v in node.values)
        return ["".join(parts)]
    return [piece for child in ast.iter_child_nodes(node) for piece in _pieces(child)]
