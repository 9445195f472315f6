#!/usr/bin/env bash
# The tests, on any machine: makes the environment, lints, runs pytest with the arguments given.
#
#   scripts/test.sh                     everything that must be green
#   scripts/test.sh tests/test_grpo.py  a part
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."
scripts/env.sh
.venv/bin/python -m ruff check .
exec .venv/bin/python -m pytest "$@"
