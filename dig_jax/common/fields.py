"""What a field of a dataclass may hold, said beside it: a range of numbers, or a place on disk.

    rate: float = number(1e-6, above=0, most=1)  # peak learning rate
    root: str = place("data/tiny")  # folder of the splits

`typed.check_fields` holds every value to it.
"""

import dataclasses
import os
from dataclasses import dataclass
from typing import Any

# The largest seed: `jax.random.key` keeps 32 bits, so that 2**32 would be 0 again; to NumPy it
# would be two numbers, which [0, 1] are too.
SEED = 2**32 - 1
_SHOWN = 400  # characters of a value in an error
CHECK = "check"  # of a field's metadata: (value, field's dotted path) -> value


def require(holds: bool, field: str, value: object, rule: str, remedy: str) -> None:
    """Raises ValueError naming the field, its value, the rule and the remedy unless `holds`."""
    if not holds:
        raise ValueError(f"{field}={shown(value)} {rule}; {remedy}")


def shown(value: object) -> str:
    """A value for an error message, long ones cut; Python refuses to print very long integers."""
    try:
        text = repr(value)
    except ValueError:
        return f"(a {type(value).__name__} too long to print)"
    return text if len(text) <= _SHOWN else f"{text[:_SHOWN]}..."


@dataclass(frozen=True)
class Range:
    """Numbers from `least` on, or above `above`, up to `most`; all of them finite."""

    least: float | None
    above: float | None
    most: float

    def __call__(self, value: float, field: str) -> float:
        low, above, most = self.least, self.above, self.most
        if low is not None:
            require(value >= low, field, value, f"is below {low}", f"use {low} or more")
        if above is not None:
            remedy = f"use more than {above}"
            require(value > above, field, value, f"is not above {above}", remedy)
        require(value <= most, field, value, f"is above {most}", f"use {most} or less")
        return value


def number(
    default: Any = dataclasses.MISSING,
    *,
    least: float | None = None,
    above: float | None = None,
    most: float,
) -> Any:
    """A field whose numbers, those of a tuple or dict included, lie in a range."""
    if (least is None) == (above is None):
        raise TypeError("a range begins at `least` or above `above`: give one of them")
    return dataclasses.field(default=default, metadata={CHECK: Range(least, above, most)})


def place(default: Any = dataclasses.MISSING, *, optional: bool = False) -> Any:
    """A field that names a file or folder, or an address; "" only if `optional`.

    `~` becomes the home folder, as a shell would have it.
    """

    def check(value: str, field: str) -> str:
        ok = bool(value) or optional
        require(ok, field, value, "is empty", "name a folder; . is the one you are in")
        return expanded(value, field)

    return dataclasses.field(default=default, metadata={CHECK: check})


def expanded(text: str, field: str) -> str:
    """A path with the home folder for a leading `~` or `~user`; raises ValueError without one.

    Nor may a path have a NUL, or blanks at an end, which are nearly always a slip.
    """
    ok = "\0" not in text and text == text.strip()
    require(ok, field, text, "has a blank at an end or a NUL", "leave those out")
    found = os.path.expanduser(text)
    ok = not found.startswith("~")
    remedy = "write the folder out, or ./~... for a name that begins so"
    require(ok, field, text, "names no user of this machine", remedy)
    return found
