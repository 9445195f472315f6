"""What command lines share: --set, places, a printed line's width, errors without a traceback."""

import argparse
import contextlib
import re
from collections.abc import Callable, Iterator
from pathlib import Path

from dig_jax.common.fields import SEED, expanded

WIDTH = 100  # characters of a line that is printed for a reader


def add_settings(parser: argparse.ArgumentParser, what: str) -> None:
    """Adds the repeatable --set A.B=C; `typed.override` applies the list `settings`."""
    parser.add_argument(
        "--set",
        action="append",
        default=[],
        metavar="A.B=C",
        dest="settings",
        help=f"{what}; repeatable",
    )


def place_of(text: str) -> str:
    """An argument's `type`: a file, folder or address, with the home folder for `~`.

    A shell expands `--out ~/x` by itself, but not `--out=~/x`.
    """
    if not text:
        raise argparse.ArgumentTypeError("is empty; name a file or folder, . is where you are")
    try:
        return expanded(text, "the path")
    except ValueError as error:
        raise argparse.ArgumentTypeError(str(error)) from error


def path_of(text: str) -> Path:
    """`place_of` as a Path of this machine."""
    return Path(place_of(text))


def seed_of(text: str) -> int:
    """An argument's `type`: a seed that JAX and NumPy keep apart from all others."""
    if not (text.isascii() and text.isdecimal()) or int(text) > SEED:
        raise argparse.ArgumentTypeError(f"{text!r} is no seed; use one of 0 to {SEED}")
    return int(text)


def bucket_of(text: str) -> tuple[tuple[int, int], int]:
    """ "640x480:1024" -> ((480, 640), 1024): height and width in pixels, prompt tokens."""
    found = re.fullmatch(r"(\d+)x(\d+):(\d+)", text)
    if not found:
        raise argparse.ArgumentTypeError(f"{text!r} is not WIDTHxHEIGHT:TOKENS, as 640x480:1024")
    width, height, tokens = map(int, found.groups())
    return (height, width), tokens


def within(kind: type, least: float, most: float) -> Callable[[str], float]:
    """An argument's `type`: an int or float of a range, never infinite or NaN."""

    def read(text: str) -> float:
        try:
            value = kind(text)
        except ValueError:
            value = None
        if value is None or not least <= value <= most:
            name = "a whole number" if kind is int else "a number"
            raise argparse.ArgumentTypeError(f"{text!r} is not {name} from {least} to {most}")
        return value

    return read


@contextlib.contextmanager
def clear_errors(*kinds: type[Exception]) -> Iterator[None]:
    """Ends the program with the message alone where a user's input is wrong.

    kinds  of exceptions; by default those by which input is refused

    For the part of an entry point that only opens and checks: past it, an exception is a bug
    and deserves its traceback, but for kinds that say what a user can do about them.
    """
    refused = kinds or (KeyError, TypeError, ValueError, OSError)
    try:
        yield
    except refused as error:
        text = error.args[0] if len(error.args) == 1 else error
        raise SystemExit(f"error: {text}") from error
