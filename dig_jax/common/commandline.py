"""What command lines share: --set, the width of a printed line, errors without a traceback."""

import argparse
import contextlib
from collections.abc import Iterator

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
