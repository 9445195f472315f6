"""The data engine's command line.

    python -m dig_jax.data make   --preset tiny --root data/tiny    plan, render, verify, stats
    python -m dig_jax.data plan   --preset paper --root data/paper  decide every scene (NumPy)
    python -m dig_jax.data render --preset paper --root data/paper  render what is missing
    python -m dig_jax.data verify --root data/paper                 certificates, again
    python -m dig_jax.data stats  --root data/paper                 histograms, overlap, baseline
    python -m dig_jax.data show   --root data/paper                 a contact sheet in HTML
    python -m dig_jax.data export --root data/paper --out DIR       parquet, COCO, jsonl, a card
    python -m dig_jax.data import FILE --root R --split S           parquet to records

Each verb has --help.
"""

from __future__ import annotations

import argparse
import importlib
import sys

from dig_jax.data.render.supervise import RenderFailed

# verb -> the module with its add_arguments(parser, verb) and run(args, verb) -> exit status
VERBS = {
    "make": "dig_jax.data.make",
    "plan": "dig_jax.data.make",
    "render": "dig_jax.data.make",
    "verify": "dig_jax.data.corpus.verify",
    "export": "dig_jax.data.exchange.export",
    "import": "dig_jax.data.exchange.imports",
    "stats": "dig_jax.data.inspect.stats",
    "show": "dig_jax.data.inspect.show",
}


def main(argv: list[str] | None = None) -> int:
    """Run one verb; a wrong request ends with its message and status 1 or 2."""
    argv = sys.argv[1:] if argv is None else argv
    if not argv or argv[0] not in VERBS:
        print(__doc__.strip())
        known = not argv or argv[0] in ("-h", "--help")
        if not known:
            print(f"\nunknown verb {argv[0]!r}; use one of {', '.join(VERBS)}", file=sys.stderr)
        return 0 if known else 2
    verb, *rest = argv
    module = importlib.import_module(VERBS[verb])
    parser = argparse.ArgumentParser(prog=f"python -m dig_jax.data {verb}")
    module.add_arguments(parser, verb)
    args = parser.parse_args(rest)
    try:
        return module.run(args, verb)
    except (KeyError, TypeError, ValueError, OSError, RenderFailed, RuntimeError) as error:
        text = error.args[0] if isinstance(error, KeyError) else error
        print(f"{verb}: {text}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        note = "what is whole is kept, the same command continues"
        print(f"{verb}: stopped; {note}", file=sys.stderr)
        return 130


if __name__ == "__main__":
    sys.exit(main())
