#!/usr/bin/env bash
# The tests, on any machine: makes the environment, lints, runs pytest with the arguments given.
#
#   scripts/test.sh                     what a commit must pass
#   scripts/test.sh --all               and the second line: tests marked slow (twice as long again)
#   scripts/test.sh tests/learner       a part, its slow tests too
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."
chosen=()
if (($# == 0)); then chosen=(-m "not slow"); fi
if [[ ${1:-} == --all ]]; then shift; fi
scripts/env.sh
.venv/bin/python -m ruff check .
export GLIBC_TUNABLES=${GLIBC_TUNABLES:-glibc.malloc.hugetlb=1} # large arrays in huge pages
# a process per core, whole files each: their fixtures are compiled once
exec .venv/bin/python -m pytest -n "${TEST_JOBS:-2}" --dist loadfile \
    --no-loadscope-reorder --durations=12 ${chosen[@]+"${chosen[@]}"} "$@"
