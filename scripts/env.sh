#!/usr/bin/env bash
# Makes .venv: Python 3.13, the versions of constraints.txt, this checkout in place.
#
#   scripts/env.sh            does nothing when .venv is up to date (about 0.05 s)
#   DIG_EXTRAS=dev scripts/env.sh       other extras than those below
#
# Uses uv, fetched into .cache/uv when it is not installed; without it, python3.13 -m venv.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."

extras=${DIG_EXTRAS:-render,report,parquet,cluster,serve,dev}
stamp=.venv/.dig_jax.sha256
want="$(cat .python-version constraints.txt pyproject.toml | sha256sum | cut -d' ' -f1) $extras $PWD"

up_to_date() { [[ -x .venv/bin/python && -f $stamp && "$(cat "$stamp")" == "$want" ]]; }
say() { printf 'env: %s\n' "$*" >&2; }

up_to_date && exit 0
mkdir -p .cache
if command -v flock >/dev/null; then  # two commands started together make one environment
    exec 9>.cache/env.lock
    flock 9
    up_to_date && exit 0
fi

find_uv() {  # a shim on PATH may exist and not run, so ask for the version
    local uv
    for uv in uv .cache/uv/bin/uv; do
        if "$uv" --version >/dev/null 2>&1; then echo "$uv"; return; fi
    done
    say "fetching uv into .cache/uv"
    if python3 -m venv .cache/uv >/dev/null 2>&1 && .cache/uv/bin/python -m pip install -q uv >&2; then
        echo .cache/uv/bin/uv
    fi
}

is_313() { "$1" -c 'import sys; raise SystemExit(sys.version_info[:2] != (3, 13))' 2>/dev/null; }

make_venv() {
    local python
    if [[ -x .venv/bin/python ]] && is_313 .venv/bin/python; then return; fi
    rm -rf .venv
    for python in python3.13 python3 python; do
        if is_313 "$python" && "$python" -m venv --without-pip .venv; then return; fi
    done
    [[ -n $uv ]] && "$uv" venv -q --python 3.13 .venv && return
    say "no Python 3.13 here and none could be fetched; install Python 3.13 and run this again"
    exit 1
}

start=$SECONDS
uv=$(find_uv)
make_venv
say "installing the packages of constraints.txt into .venv (a few minutes the first time)"
if [[ -n $uv ]]; then
    "$uv" pip install -q --python .venv/bin/python -c constraints.txt -e ".[$extras]"
else
    .venv/bin/python -m ensurepip -q
    .venv/bin/python -m pip install -q -c constraints.txt -e ".[$extras]"
fi
printf '%s' "$want" >"$stamp"
say "ready in $((SECONDS - start)) s"
