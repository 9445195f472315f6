"""JSON files that others wrote: read as an object, their values with type and range.

Whatever is wrong is a ValueError naming the file, the section, the field, the value and the rule.
"""

import json
import math
import reprlib
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from etils import epath

_LFS = "version https://git-lfs.github.com/spec/"  # how a pointer to a large file begins
_SHORT = reprlib.Repr()
_SHORT.maxstring = _SHORT.maxother = _SHORT.maxlong = 60
MOST = 2**31 - 1  # of counts: they become shapes and int32 ids


def read_json(path: epath.Path | Path, *, missing: dict | None = None) -> dict:
    """The object of a JSON file; `missing`, if given, where there is no such file."""
    if missing is not None and not path.is_file():
        return missing
    try:
        text = path.read_text(encoding="utf-8")
    except UnicodeDecodeError as error:
        raise ValueError(f"{path} is not a text in UTF-8: {error}; fetch it again") from error
    refuse_pointer(path, text)
    try:
        found = json.loads(text)
    except (ValueError, RecursionError) as error:  # too deep, or a number of 5000 digits
        raise ValueError(f"{path} is not valid JSON: {error}; fetch it again") from error
    if not isinstance(found, dict):
        raise ValueError(f"{path} holds {shown(found)}, not an object {{...}}; fetch it again")
    return found


def refuse_pointer(path: epath.Path | Path, start: str) -> None:
    """Raises ValueError where a file begins like a git-LFS pointer instead of its content."""
    if start.startswith(_LFS):
        raise ValueError(
            f"{path} is a git-LFS pointer, not the file itself; run `git lfs pull` in the clone "
            f"that it comes from"
        )


def shown(value: object) -> str:
    """A value in at most about 100 characters."""
    return _SHORT.repr(value)


@dataclass(frozen=True)
class Fields:
    """An object of a JSON file.

    values  name -> value; null is as good as absent
    where   file and section, for messages
    """

    values: Mapping[str, Any]
    where: str

    def has(self, name: str) -> bool:
        return self.values.get(name) is not None

    def get(self, name: str, default: Any = None) -> Any:
        """As it is, whatever its type."""
        return self.values[name] if self.has(name) else default

    def section(self, name: str, *, optional: bool = False) -> "Fields":
        """An object within; empty if it is optional and absent."""
        found = {} if optional and not self.has(name) else self._need(name)
        self._check(isinstance(found, dict), name, "is not an object {...}")
        return Fields(found, f"{self.where}: {name}")

    def count(self, name: str, *, least: int = 1, most: int = MOST) -> int:
        found = self._need(name)
        ok = type(found) is int and least <= found <= most
        self._check(ok, name, f"is not a whole number from {least} to {most}")
        return found

    def counts(self, name: str, *, least: int = 1, most: int = MOST) -> tuple[int, ...]:
        found = self._need(name)
        ok = isinstance(found, list) and all(type(n) is int and least <= n <= most for n in found)
        self._check(ok, name, f"is not a list of whole numbers from {least} to {most}")
        return tuple(found)

    def number(self, name: str, *, above: float = 0.0, most: float = 1e30) -> float:
        found = self._need(name)
        ok = type(found) in (int, float) and math.isfinite(found) and above < found <= most
        self._check(ok, name, f"is not a number above {above:g} and up to {most:g}")
        return float(found)

    def flag(self, name: str) -> bool:
        found = self._need(name)
        self._check(isinstance(found, bool), name, "is not true or false")
        return found

    def text(self, name: str) -> str:
        found = self._need(name)
        self._check(isinstance(found, str), name, "is not a text")
        return found

    def only(self, name: str, value: Any, *, default: Any = None) -> None:
        """Raises unless the field, or what it is by default, is the one value computed here."""
        found = self.get(name, default)
        if found != value or isinstance(found, bool) != isinstance(value, bool):
            raise ValueError(f"{self.where}: {name}={shown(found)}; only {value!r} is implemented")

    def _need(self, name: str) -> Any:
        if not self.has(name):
            raise ValueError(f"{self.where} has no {name}; is it a Qwen3-VL's?")
        return self.values[name]

    def _check(self, ok: bool, name: str, rule: str) -> None:
        if not ok:
            value = shown(self.values[name])
            raise ValueError(
                f"{self.where}: {name}={value} {rule}; take the value of the checkpoint's makers"
            )
