"""The benchmarks' command line.

    python -m dig_jax.benchmark list      --root R                    what is there, what is missing
    python -m dig_jax.benchmark questions --root R --name pope --out q.jsonl    to answer anywhere
    python -m dig_jax.benchmark run       --root R --suite paper --source FOLDER --out D
    python -m dig_jax.benchmark score     --root R --name pope --answers a.jsonl --out result.json
    python -m dig_jax.benchmark compare   A B [C ...]                 result folders, paired
    python -m dig_jax.benchmark report    D [D ...] --out report.html one file

Each verb has --help.
"""

from __future__ import annotations

import sys

from dig_jax.common.verbs import run_verb

# verb -> the module with its add_arguments(parser, verb) and run(args, verb) -> exit status
VERBS = {
    "list": "dig_jax.benchmark.listing",
    "questions": "dig_jax.benchmark.listing",
    "run": "dig_jax.benchmark.run",
    "score": "dig_jax.benchmark.score",
    "compare": "dig_jax.benchmark.compare",
    "report": "dig_jax.benchmark.report",
}


def main(argv: list[str] | None = None) -> int:
    """Run one verb; a wrong request ends with its message and status 1 or 2."""
    kept = "the same command continues with what is whole"
    return run_verb("dig_jax.benchmark", __doc__, VERBS, argv, kept=kept)


if __name__ == "__main__":
    sys.exit(main())
