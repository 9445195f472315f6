"""What the owner of answers says of how they were made: fields of a result's protocol.

A score without its pixel budget, decoding and limit of tokens is a score of nobody knows what.
"""

from __future__ import annotations

import argparse
from collections.abc import Mapping, Sequence
from typing import Any

NUMBERS = ("max_tokens", "min_pixels", "max_pixels", "seed")
TEXTS = ("decoding", "source", "dtype")
_NEEDED = ("decoding", "max_tokens", "min_pixels", "max_pixels", "seed")


def add_told(parser: argparse.ArgumentParser) -> None:
    """--told, which may be given several times."""
    parser.add_argument(
        "--told",
        action="append",
        type=told_of,
        default=[],
        metavar="NAME=VALUE",
        help=f"how anybody's answers were made: {', '.join((*NUMBERS, *TEXTS))}; repeatable",
    )


def told_of(text: str) -> tuple[str, int | str]:
    """ "max_pixels=1048576" -> ("max_pixels", 1048576)."""
    name, _, value = text.partition("=")
    if name in NUMBERS and value.isdecimal():
        return name, int(value)
    if name in TEXTS and value:
        return name, value
    raise argparse.ArgumentTypeError(
        f"{text!r} is not NAME=VALUE with a number of {', '.join(NUMBERS)} or a text of "
        f"{', '.join(TEXTS)}"
    )


def merged(told: Sequence[tuple[str, Any]], known: Mapping[str, Any]) -> dict[str, Any]:
    """What is known, and what is told beside it; raises ValueError where the two disagree."""
    found = dict(known)
    for name, value in told:
        if found.get(name) not in (None, value):
            raise ValueError(
                f"--told {name}={value}: of these answers {found[name]!r} is known; leave it out"
            )
        found[name] = value
    return found


def not_told(protocol: Mapping[str, Any]) -> list[str]:
    """What must stand beside a score of answers of which too little is known."""
    gone = [name for name in _NEEDED if protocol.get(name) is None]
    return [f"of these answers nobody tells {', '.join(gone)}: see --told"] if gone else []
