"""Frozen dataclass trees as text: checked fields, JSON, dotted overrides, differences.

Nothing here knows what is configured; `config` holds the tree itself. A field's annotation
is its type: `int float bool str`, `Literal`, `X | None`, `tuple[X, ...]`, `dict[str, X]`, or
another dataclass.
"""

import ast
import dataclasses
import difflib
import runpy
import types
import typing
from pathlib import Path
from typing import Any, Literal, get_args, get_origin

_WORDS = {"true": True, "false": False, "yes": True, "no": False, "1": True, "0": False}


def require(holds: bool, field: str, value: object, rule: str, remedy: str) -> None:
    """Raises ValueError naming the field, its value, the rule and the remedy unless `holds`."""
    if not holds:
        raise ValueError(f"{field}={value!r} {rule}; {remedy}")


def at_least(section: str, node: object, **floors: float) -> None:
    """Requires each named numeric field of a dataclass to reach its floor."""
    for name, floor in floors.items():
        value, where = getattr(node, name), _join(section, name)
        require(value >= floor, where, value, f"is below {floor}", f"use {floor} or more")


def above(section: str, node: object, **floors: float) -> None:
    """Requires each named numeric field of a dataclass to lie above its bound."""
    for name, floor in floors.items():
        value, where = getattr(node, name), _join(section, name)
        require(value > floor, where, value, f"is not above {floor}", f"use more than {floor}")


def check_fields(node: object, section: str) -> None:
    """Checks every field of a dataclass against its annotation, inside `__post_init__`.

    Ints in float fields become floats and lists in tuple fields become tuples, so that equal
    configurations have equal text. Raises TypeError or ValueError naming `section.field`.
    """
    for name, kind in _kinds(type(node)).items():
        value = _checked(getattr(node, name), kind, f"{section}.{name}" if section else name)
        object.__setattr__(node, name, value)


def to_plain(node: object) -> Any:
    """The tree as dicts, lists and scalars, ready for `json.dumps`."""
    if dataclasses.is_dataclass(node):
        return {f.name: to_plain(getattr(node, f.name)) for f in dataclasses.fields(node)}
    if isinstance(node, dict):
        return {key: to_plain(value) for key, value in node.items()}
    if isinstance(node, tuple | list):
        return [to_plain(value) for value in node]
    return node


def from_plain(kind: Any, plain: Any, path: str = "") -> Any:
    """The inverse of `to_plain` for an annotation; unknown names raise naming the nearest."""
    if dataclasses.is_dataclass(kind):
        kinds = _kinds(kind)
        for name in plain:
            _known(name, kinds, path)
        inner = {name: from_plain(kinds[name], v, _join(path, name)) for name, v in plain.items()}
        return kind(**inner)
    if get_origin(kind) is tuple:
        item = get_args(kind)[0]
        return tuple(from_plain(item, v, _join(path, str(i))) for i, v in enumerate(plain))
    if get_origin(kind) is dict:
        item = get_args(kind)[1]
        return {key: from_plain(item, v, _join(path, key)) for key, v in plain.items()}
    return plain


def override(tree: Any, settings: list[str]) -> Any:
    """A copy of a dataclass tree with dotted settings such as `optim.rate=5e-7` applied.

    Values are read by the annotation: tuples as `a,b` or a Python literal, dicts and None as
    Python literals; `stages.0.until=5` reaches into tuples, `weights.dual=1` into dicts.
    All settings are applied before any cross-section rule is checked again.
    """
    plain = to_plain(tree)
    for setting in settings:
        path, equals, text = setting.partition("=")
        require(bool(equals and path), "--set", setting, "has no value", "write --set a.b=c")
        _assign(type(tree), plain, path.strip().split("."), text.strip(), "")
    return from_plain(type(tree), plain)


def run_file(path: Path, kind: type, **kwargs: object) -> Any:
    """What `get_config(**kwargs)` of a Python file returns; it must be a `kind`."""
    if not path.is_file():
        raise FileNotFoundError(f"no config file {path}; configs/ holds the shipped ones")
    names = runpy.run_path(str(path))
    if "get_config" not in names:
        raise TypeError(f"{path} has no get_config(); define get_config() -> {kind.__name__}")
    tree = names["get_config"](**kwargs)
    if not isinstance(tree, kind):
        wrong = type(tree).__name__
        raise TypeError(f"{path}: get_config() returned {wrong}; return {kind.__name__}")
    return tree


def differences(old: object, new: object) -> dict[str, tuple[Any, Any]]:
    """Dotted path -> (old, new) for every leaf of two plain or dataclass trees that differs."""
    left, right = dict(leaves(old)), dict(leaves(new))
    paths = [*left, *(path for path in right if path not in left)]
    pairs = {path: (left.get(path), right.get(path)) for path in paths}
    return {path: pair for path, pair in pairs.items() if pair[0] != pair[1]}


def leaves(tree: object, path: str = "") -> list[tuple[str, Any]]:
    """(dotted path, value) of every leaf, in declaration order; an empty container is a leaf."""
    plain = to_plain(tree)
    if isinstance(plain, dict):
        items = list(plain.items())
    elif isinstance(plain, list) and any(isinstance(item, dict) for item in plain):
        items = [(str(i), item) for i, item in enumerate(plain)]
    else:
        items = []
    if not items:
        return [(path, plain)]
    return [leaf for name, value in items for leaf in leaves(value, _join(path, name))]


def tree_text(tree: object) -> str:
    """The tree for a reader: one indented line per leaf, sections as headings."""
    lines, open_sections = [], []
    for path, value in leaves(tree):
        *sections, name = path.split(".")
        for depth, section in enumerate(sections):
            if sections[: depth + 1] != open_sections[: depth + 1]:
                lines.append(f"{'  ' * depth}{section}")
        lines.append(f"{'  ' * len(sections)}{name} = {value!r}")
        open_sections = sections
    return "\n".join(lines)


def _kinds(kind: type) -> dict[str, Any]:
    hints = typing.get_type_hints(kind)
    return {f.name: hints[f.name] for f in dataclasses.fields(kind)}


def _join(path: str, name: str) -> str:
    return f"{path}.{name}" if path else name


def _known(name: str, names: Any, path: str) -> None:
    if name in names:
        return
    near = difflib.get_close_matches(name, list(names), n=3, cutoff=0.4) or list(names)
    raise KeyError(f"unknown config field {_join(path, name)!r}; nearest: {', '.join(near)}")


def _optional(kind: Any) -> Any | None:
    """The X of `X | None`, else None."""
    if get_origin(kind) in (typing.Union, types.UnionType) and type(None) in get_args(kind):
        return next(arg for arg in get_args(kind) if arg is not type(None))
    return None


def _checked(value: Any, kind: Any, field: str) -> Any:
    if inner := _optional(kind):
        return None if value is None else _checked(value, inner, field)
    if get_origin(kind) is Literal:
        choices = ", ".join(map(repr, get_args(kind)))
        require(value in get_args(kind), field, value, "is not a choice", f"use one of {choices}")
        return value
    if get_origin(kind) is tuple and isinstance(value, tuple | list):
        item = get_args(kind)[0]
        return tuple(_checked(v, item, f"{field}.{i}") for i, v in enumerate(value))
    if get_origin(kind) is dict and isinstance(value, dict):
        item = get_args(kind)[1]
        return {key: _checked(v, item, f"{field}.{key}") for key, v in value.items()}
    if kind is float and isinstance(value, int) and not isinstance(value, bool):
        return float(value)
    plain_kind = get_origin(kind) or kind
    if not isinstance(value, plain_kind) or (kind is int and isinstance(value, bool)):
        name = getattr(plain_kind, "__name__", str(plain_kind))
        raise TypeError(f"{field}={value!r} is a {type(value).__name__}; give {name}")
    return value


def _assign(kind: Any, plain: Any, names: list[str], text: str, path: str) -> None:
    """Writes one setting into the plain tree, in place."""
    name, *rest = names
    here = _join(path, name)
    if dataclasses.is_dataclass(kind):
        kinds = _kinds(kind)
        _known(name, kinds, path)
        inner, slot = kinds[name], name
    elif get_origin(kind) is tuple:
        ok = name.isdigit() and int(name) < len(plain)
        require(ok, path, name, "is not an index", f"use 0 to {len(plain) - 1}")
        inner, slot = get_args(kind)[0], int(name)
    elif get_origin(kind) is dict:
        inner, slot = get_args(kind)[1], name
    else:
        raise KeyError(f"config field {path!r} is a single value; {here!r} does not exist")
    if rest:
        _assign(inner, plain[slot], rest, text, here)
    else:
        plain[slot] = _read(text, inner, here)


def _read(text: str, kind: Any, field: str) -> Any:
    """The text of one setting as a value of the annotation, in plain form."""
    if inner := _optional(kind):
        return None if text.lower() in ("none", "null") else _read(text, inner, field)
    if kind is str or get_origin(kind) is Literal:
        return text
    if kind is bool:
        require(text.lower() in _WORDS, field, text, "is not a truth value", "use true or false")
        return _WORDS[text.lower()]
    try:
        if kind in (int, float):
            return kind(text)
        if get_origin(kind) is tuple and text[:1] not in ("(", "["):
            item = get_args(kind)[0]
            return [_read(part.strip(), item, field) for part in text.split(",") if part.strip()]
        return to_plain(ast.literal_eval(text))
    except (ValueError, SyntaxError) as error:
        name = getattr(kind, "__name__", str(kind))
        raise ValueError(f"{field}={text!r} does not read as {name}; {error}") from error
