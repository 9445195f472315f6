"""A command of several verbs: modules with add_arguments(parser, verb) and run(args, verb)."""

from __future__ import annotations

import argparse
import importlib
import sys
from collections.abc import Mapping, Sequence

# what a wrong request, a file that is not what it should be, or a full disk raises
TOLD = (KeyError, TypeError, ValueError, OSError, RuntimeError)


def run_verb(
    program: str,
    doc: str,
    verbs: Mapping[str, str],
    argv: Sequence[str] | None,
    *,
    kept: str,
) -> int:
    """Runs one verb; ->  exit status: 1 or 2 for a wrong request, with its message, 130 for Ctrl-C.

    program   dotted name, for usage lines
    doc       printed without a verb, or with --help
    verbs     verb -> dotted name of its module, imported when it is asked for
    kept      what is said of a stop
    """
    argv = sys.argv[1:] if argv is None else argv
    if not argv or argv[0] not in verbs:
        print(doc.strip())
        known = not argv or argv[0] in ("-h", "--help")
        if not known:
            print(f"\nunknown verb {argv[0]!r}; use one of {', '.join(verbs)}", file=sys.stderr)
        return 0 if known else 2
    verb, *rest = argv
    module = importlib.import_module(verbs[verb])
    parser = argparse.ArgumentParser(prog=f"python -m {program} {verb}")
    module.add_arguments(parser, verb)
    args = parser.parse_args(rest)
    try:
        return module.run(args, verb)
    except TOLD as error:
        text = error.args[0] if isinstance(error, KeyError) else error
        print(f"{verb}: {text}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        print(f"{verb}: stopped; {kept}", file=sys.stderr)
        return 130
