"""The boxes that an answer lists, in thousandths of the picture's sides, as Qwen3-VL writes them.

Of these the first that gives any box, named in the reading's `how`:

json         the last ```json fence, or what lies between the outermost brackets, as JSON
python       the same as a Python literal: single quotes, tuples, a trailing comma
bbox_2d      every "bbox_2d": [four numbers] of the answer; also bbox and box
quadruple    every bracketed list of four numbers, unless it is the value of another key

Numbers without brackets are no box: "2 dogs, 1 cat, 3 birds, 4 groups". Corners that are swapped
are put in order ("+fixed") and coordinates beyond 0..1000 clipped ("+out_of_range"). Where none is
above 1.5 the model may have meant parts of 1 ("+unit_suspect"): they are left as they are, for the
question asked for thousandths, and count as wrong.
"""

import ast
import json
import math
import re
import warnings

from dig_jax.benchmarks.reading import NONE, Reading

SIDE = 1000.0
UNIT = 1.5  # largest coordinate of an answer in parts of 1
KEYS = ("bbox_2d", "bbox", "box")
_MOST = 200_000  # characters that are tried as JSON; longer ones go to the patterns
_FENCE = re.compile(r"```(?:json|JSON)?[ \t]*\n?(.*?)(?:```|\Z)", re.DOTALL)
_NUMBER = r"""["']?+([+-]?+(?:\d++(?:\.\d*+)?|\.\d++)(?:[eE][+-]?+\d++)?)["']?+"""
_FOUR = r"[\[(]\s*+" + r"\s*+,\s*+".join([_NUMBER] * 4) + r"\s*+,?+\s*+[\])]"
_KEYED = re.compile(rf"""\b(?:{"|".join(KEYS)})["']?+\s*+:\s*+(?:[\[(]\s*+)??{_FOUR}""")
_BRACKETED = re.compile(_FOUR)
_OTHER_KEY = re.compile(r"""["']\w+["']\s*:\s*\Z""")


def read_boxes(text: str) -> Reading:
    """Boxes of an answer in the order in which they stand; see the module."""
    body = _body(text)
    empty = False
    for how, load in (("json", json.loads), ("python", _literal)):
        found = _loaded(load, body)
        corners = [] if found is None else _walk(found, key=None)
        if corners:
            return _reading(corners, how)
        empty = empty or found in ([], (), {})
    for how, pattern in (("bbox_2d", _KEYED), ("quadruple", _BRACKETED)):
        found = [_numbers(m.groups()) for m in pattern.finditer(text) if not _is_other(text, m)]
        corners = [each for each in found if each]
        if corners:
            return _reading(corners, how)
    return Reading((), "json") if empty else NONE


def _body(text: str) -> str:
    """What is in the last fence, or else from the first bracket to the last."""
    fences = _FENCE.findall(text)
    inside = fences[-1] if fences else text
    starts = [at for at in (inside.find("["), inside.find("{")) if at >= 0]
    end = max(inside.rfind("]"), inside.rfind("}"))
    return inside[min(starts) : end + 1] if starts else ""


def _literal(body: str) -> object:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of an escape in a label
        return ast.literal_eval(body)


def _loaded(load, body: str) -> object:
    """What is loaded, or None where it cannot be."""
    if not body or len(body) > _MOST:
        return None
    try:
        return load(body)
    except (ValueError, SyntaxError, TypeError, RecursionError, MemoryError):
        return None


def _walk(value: object, key: str | None) -> list[tuple]:
    """Boxes in a JSON value: lists of four numbers, at the top or under a key that names boxes."""
    if isinstance(value, dict):
        return [box for name, each in value.items() for box in _walk(each, str(name))]
    if not isinstance(value, list | tuple):
        return []
    box = _numbers(value) if key is None or key.lower() in KEYS else None
    if box:
        return [box]
    return [found for each in value for found in _walk(each, key)]


def _numbers(values) -> tuple | None:
    """Four finite numbers, also as strings; None where they are something else."""
    if len(values) != 4 or any(isinstance(each, bool) for each in values):
        return None
    try:
        numbers = tuple(float(each) for each in values)
    except (TypeError, ValueError, OverflowError):
        return None
    return numbers if all(map(math.isfinite, numbers)) else None


def _is_other(text: str, match: re.Match) -> bool:
    """Whether a bracketed list is the value of a quoted key that names no box."""
    key = _OTHER_KEY.search(text, max(0, match.start() - 40), match.start())
    return key is not None and not any(name in key[0] for name in KEYS)


def _reading(corners: list[tuple], how: str) -> Reading:
    unit = all(abs(each) <= UNIT for box in corners for each in box)
    x0, y0, x1, y1 = corners[0]
    flags = {
        "fixed": x0 > x1 or y0 > y1,
        "out_of_range": min(corners[0]) < 0 or max(corners[0]) > SIDE,
        "unit_suspect": unit,
    }
    how = "+".join([how, *(name for name, is_so in flags.items() if is_so)])
    return Reading(tuple(map(ordered, corners)), how)


def ordered(corners: tuple) -> tuple[float, float, float, float]:
    """x0 <= x1, y0 <= y1, all within 0..1000."""
    x0, y0, x1, y1 = (min(max(each, 0.0), SIDE) for each in corners)
    return min(x0, x1), min(y0, y1), max(x0, x1), max(y0, y1)
