"""Frozen dataclass trees as text: checked fields, JSON, dotted overrides, differences.

Nothing here knows what is configured; `config` holds the tree itself. A field's annotation
is its type: `int float bool str`, `Literal`, `X | None`, `tuple[X, ...]`, `dict[str, X]`, or
another dataclass. `fields` says beside a field which of its type's values it may have.
"""

import ast
import dataclasses
import difflib
import functools
import math
import types
import typing
from collections.abc import Callable
from pathlib import Path
from typing import Any, Literal, get_args, get_origin

from dig_jax.common.fields import CHECK, require, shown
from dig_jax.common.userfile import run_path, telling_of

_WORDS = {"true": True, "false": False, "yes": True, "no": False, "1": True, "0": False}


def check_fields(node: object, section: str) -> None:
    """Checks every field of a dataclass against its annotation, inside `__post_init__`.

    Numbers must be finite, and whatever `fields` put beside a field must hold. Ints in float
    fields become floats, lists in tuple fields tuples and -0.0 becomes 0.0, so that equal
    configurations have equal text. Raises TypeError or ValueError naming `section.field`.
    """
    kinds = _kinds(type(node))
    for field in dataclasses.fields(node):
        where, check = _join(section, field.name), field.metadata.get(CHECK, _anything)
        value = _checked(getattr(node, field.name), kinds[field.name], where, check)
        object.__setattr__(node, field.name, value)


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
    """The inverse of `to_plain` for an annotation; unknown names raise naming the nearest.

    Raises TypeError naming the field where a section, tuple or dict is something else, or a
    section lacks a value that has no default.
    """
    _shaped(kind, plain, path)
    if dataclasses.is_dataclass(kind):
        kinds = _kinds(kind)
        for name in plain:
            _known(name, kinds, path)
        inner = {name: from_plain(kinds[name], v, _join(path, name)) for name, v in plain.items()}
        for field in dataclasses.fields(kind):
            has_none = field.default is field.default_factory is dataclasses.MISSING
            if has_none and field.name not in inner:
                where = _join(path, field.name)
                raise TypeError(f"{where} is missing; give it a value beside {[*inner]}")
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
    Python literals, strings as they stand, blanks included; `stages.0.until=5` reaches into
    tuples, `weights.dual=1` into dicts.
    All settings are applied before any cross-section rule is checked again.
    """
    plain = to_plain(tree)
    for setting in settings:
        path, equals, text = setting.partition("=")
        require(bool(equals and path), "--set", setting, "has no value", "write --set a.b=c")
        _assign(type(tree), plain, path.strip().split("."), text, "")
    return from_plain(type(tree), plain)


def run_file(path: Path, kind: type, **kwargs: object) -> Any:
    """What `get_config(**kwargs)` of a Python file returns; it must be a `kind`.

    Raises ValueError naming file, line and exception where the file itself fails.
    """
    if not path.is_file():
        raise FileNotFoundError(f"no config file {path}; configs/ holds the shipped ones")
    make = run_path(path).get("get_config")
    if not callable(make):
        raise TypeError(f"{path} has no get_config(); define get_config() -> {kind.__name__}")
    with telling_of(path):
        tree = make(**kwargs)
    if not isinstance(tree, kind):
        wrong = type(tree).__name__
        raise TypeError(f"{path}: get_config() returned {wrong}; return {kind.__name__}")
    return tree


def differences(
    old: object, new: object, *, lacking: object | None = None
) -> dict[str, tuple[Any, Any]]:
    """Dotted path -> (old, new) for every leaf of two plain or dataclass trees that differs.

    lacking  tree whose leaf stands for one that `old` lacks: of a field that came later
    """
    left, right = dict(leaves(old)), dict(leaves(new))
    known = {} if lacking is None else dict(leaves(lacking))
    paths = [*left, *(path for path in right if path not in left)]
    pairs = {path: (left.get(path, known.get(path)), right.get(path)) for path in paths}
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


@functools.cache
def _kinds(kind: type) -> dict[str, Any]:
    hints = typing.get_type_hints(kind)
    return {f.name: hints[f.name] for f in dataclasses.fields(kind)}


def _join(path: str, name: str) -> str:
    return f"{path}.{name}" if path else name


def _known(name: str, names: Any, path: str) -> None:
    if name in names:
        return
    near = difflib.get_close_matches(str(name), list(names), n=3, cutoff=0.4) or list(names)
    raise KeyError(f"unknown config field {_join(path, name)!r}; nearest: {', '.join(near)}")


def _optional(kind: Any) -> Any | None:
    """The X of `X | None`, else None."""
    if get_origin(kind) in (typing.Union, types.UnionType) and type(None) in get_args(kind):
        return next(arg for arg in get_args(kind) if arg is not type(None))
    return None


def _container(kind: Any) -> type | tuple[type, ...] | None:
    """What a section, dict or tuple is in plain form; None for a single value."""
    if dataclasses.is_dataclass(kind) or get_origin(kind) is dict:
        return dict
    return (list, tuple) if get_origin(kind) is tuple else None


def _shaped(kind: Any, plain: Any, path: str) -> None:
    """Raises TypeError unless a section or dict is a dict, by text, and a tuple a list."""
    wanted = _container(kind)
    if wanted is None:
        return
    if not isinstance(plain, wanted):
        name = "dict" if wanted is dict else "tuple"
        whole = path or "the configuration"
        raise TypeError(f"{whole}={shown(plain)} is a {type(plain).__name__}; give a {name}")
    odd = [key for key in plain if not isinstance(key, str)] if wanted is dict else []
    if odd:
        raise TypeError(f"{_join(path, odd[0])} has a {type(odd[0]).__name__} for its name")


def _anything(value: Any, field: str) -> Any:
    return value


def _checked(value: Any, kind: Any, field: str, check: Callable[[Any, str], Any]) -> Any:
    """The value as its annotation has it, each number and text in it after `check`."""
    if inner := _optional(kind):
        return None if value is None else _checked(value, inner, field, check)
    if get_origin(kind) is Literal:
        return _choice(value, get_args(kind), field)
    if _container(kind) and not dataclasses.is_dataclass(kind):
        _shaped(kind, value, field)
        if get_origin(kind) is dict:
            item = get_args(kind)[1]
            return {k: _checked(v, item, _join(field, k), check) for k, v in value.items()}
        item = get_args(kind)[0]
        return tuple(_checked(v, item, f"{field}.{i}", check) for i, v in enumerate(value))
    is_whole = kind is float and isinstance(value, int) and not isinstance(value, bool)
    if is_whole:
        value = _float(value, field)
    if not isinstance(value, kind) or (kind is int and isinstance(value, bool)):
        raise TypeError(f"{field}={shown(value)} is a {type(value).__name__}; give {kind.__name__}")
    if kind is float:
        rule = "is not a finite number"
        require(math.isfinite(value), field, value, rule, "give a plain one")
        value = float(value) + 0.0  # NumPy's floats would show in the text, and so would -0.0
    if kind is str:
        _text(value, field)
    return value if kind is bool or dataclasses.is_dataclass(kind) else check(kind(value), field)


def _choice(value: Any, choices: tuple[Any, ...], field: str) -> Any:
    """The choice that a value is; True is not 1 here."""
    for choice in choices:
        if isinstance(value, bool) == isinstance(choice, bool) and value == choice:
            return choice
    known = ", ".join(map(repr, choices))
    return require(False, field, value, "is not a choice", f"use one of {known}")


def _float(value: int, field: str) -> float:
    try:
        return float(value)
    except OverflowError:
        return require(False, field, value, "is not a finite number", "give a smaller one")


def _text(value: str, field: str) -> None:
    """Half a surrogate pair, as Python makes of bytes that are no UTF-8, cannot be written."""
    ok = value.isascii() or not any("\ud800" <= letter <= "\udfff" for letter in value)
    require(ok, field, value, "is not text that UTF-8 can hold", "give it as UTF-8")


def _assign(kind: Any, plain: Any, names: list[str], text: str, path: str) -> None:
    """Writes one setting into the plain tree, in place."""
    name, *rest = names
    here = _join(path, name)
    inner, slot = _slot(kind, plain, name, path)
    if not rest:
        plain[slot] = _read(text, inner, here)
        return
    if not _container(_optional(inner) or inner):
        raise KeyError(
            f"config field {here!r} is a single value; {'.'.join([here, *rest])!r} does not exist"
        )
    if get_origin(kind) is dict and slot not in plain:
        raise KeyError(f"config field {here!r} does not exist yet; set it as a whole first")
    _assign(inner, plain[slot], rest, text, here)


def _slot(kind: Any, plain: Any, name: str, path: str) -> tuple[Any, str | int]:
    """A part's annotation, and its key or index in the plain container."""
    kind = _optional(kind) or kind
    _shaped(kind, plain, path)  # an earlier setting may have put something else there
    if dataclasses.is_dataclass(kind):
        kinds = _kinds(kind)
        _known(name, kinds, path)
        return kinds[name], name
    if get_origin(kind) is dict:
        return get_args(kind)[1], name
    ok = name.isascii() and name.isdecimal() and int(name) < len(plain)
    there = f"use 0 to {len(plain) - 1}" if plain else "it is empty: set it as a whole"
    require(ok, path, name, "is not an index", there)
    return get_args(kind)[0], int(name)


def _read(text: str, kind: Any, field: str) -> Any:
    """The text of one setting as a value of the annotation, in plain form."""
    word = text.strip()
    if inner := _optional(kind):
        return None if word.lower() in ("none", "null") else _read(text, inner, field)
    if get_origin(kind) is Literal:
        return next((choice for choice in get_args(kind) if str(choice) == word), word)
    if kind is str:
        return text
    if kind is bool:
        require(word.lower() in _WORDS, field, word, "is not a truth value", "use true or false")
        return _WORDS[word.lower()]
    try:
        if kind in (int, float):
            return kind(word)
        if get_origin(kind) is tuple and word[:1] not in ("(", "["):
            item = get_args(kind)[0]
            return [_read(part.strip(), item, field) for part in word.split(",") if part.strip()]
        return to_plain(ast.literal_eval(word))
    except (ValueError, TypeError, SyntaxError, RecursionError, MemoryError) as error:
        name = getattr(kind, "__name__", str(kind))
        raise ValueError(f"{field}={word!r} does not read as {name}; {error}") from error
