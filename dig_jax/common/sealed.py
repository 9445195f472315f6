"""JSON objects that tell whether they still are what was written: a checksum among their fields.

Objects without one, as older versions wrote them, are taken as they are.
"""

import hashlib
import json
from typing import Any

FIELD = "seal"


def sealed(value: dict) -> dict:
    """The object with the checksum of all its other fields, last."""
    rest = {name: field for name, field in value.items() if name != FIELD}
    return {**rest, FIELD: checksum(rest)}


def parse(text: str) -> dict:
    """The object of a file's text; raises ValueError saying what is wrong with it."""
    try:
        value = json.loads(text)
    except ValueError as error:
        raise ValueError(f"is not valid JSON ({error})" if text.strip() else "is empty") from error
    if not isinstance(value, dict):
        raise ValueError(f"holds a {type(value).__name__} in place of an object")
    if FIELD in value and sealed(value)[FIELD] != value[FIELD]:
        raise ValueError(f"was changed: its fields do not have the checksum {value[FIELD]!r}")
    if value and FIELD not in value and checksum(dict([*value.items()][:-1])) in value.values():
        raise ValueError(f"was changed: its checksum is not called {FIELD!r}")
    return value


def checksum(fields: Any) -> str:
    """Sixteen hex digits of a JSON value, the same of what is read back from its text."""
    text = json.dumps(fields, separators=(",", ":"))  # JSON keeps the order of fields
    return hashlib.sha256(text.encode()).hexdigest()[:16]
