"""The data engine's command line.

    python -m dig_jax.data make   --preset tiny --root data/tiny    plan, render, verify, stats
    python -m dig_jax.data plan   --preset paper --root data/paper  decide every scene (NumPy)
    python -m dig_jax.data render --preset paper --root data/paper  render what is missing
    python -m dig_jax.data verify --root data/paper                 certificates, again
    python -m dig_jax.data stats  --root data/paper                 histograms, overlap, baseline
    python -m dig_jax.data show   --root data/paper                 a contact sheet in HTML
    python -m dig_jax.data export --root data/paper --out DIR       parquet, COCO, jsonl, a card
    python -m dig_jax.data import FILE --root R --split S           parquet to records
    python -m dig_jax.data questions --root data/paper --out DIR    in the formats of benchmarks

Each verb has --help.
"""

from __future__ import annotations

import sys

from dig_jax.common.verbs import run_verb

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
    "questions": "dig_jax.data.questions.command",
}


def main(argv: list[str] | None = None) -> int:
    """Run one verb; a wrong request ends with its message and status 1 or 2."""
    kept = "what is whole is kept, the same command continues"
    return run_verb("dig_jax.data", __doc__, VERBS, argv, kept=kept)


if __name__ == "__main__":
    sys.exit(main())
