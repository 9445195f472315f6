#!/usr/bin/env bash
# Live parity with Hugging Face's torch model, and the proof that the package works on Python 3.11
# with jax 0.10: a second environment (.venv-parity), the tests that need torch, and all others
# but rendering and those marked slow.
#
#   scripts/parity.sh                             everything
#   scripts/parity.sh tests/model/test_parity_live.py   a part
#   scripts/parity.sh --require [...]             fail where it would be skipped
#
# torch must be a CPU build: a CUDA build drags gigabytes along. Where pip offers one only, name
# the index of CPU builds: DIG_TORCH_PIP="--index-url ADDRESS" scripts/parity.sh
# Skipped, loudly and with exit code 0, where Python 3.11 or such a build cannot be had.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."

torch=2.13.0
older=(transformers==4.57.6 huggingface-hub==0.36.2 tokenizers==0.22.2
       requests==2.34.2 urllib3==2.8.0 certifi==2026.10.18 charset-normalizer==3.5.2)
venv=.venv-parity
old_hf=.cache/transformers-4.57
stamp=$venv/.dig_jax.sha256
want="$(cat constraints-parity.txt pyproject.toml scripts/parity.sh | sha256sum | cut -d' ' -f1) $PWD"
require=0
if [[ ${1:-} == --require ]]; then require=1; shift; fi

say() { printf 'parity: %s\n' "$*" >&2; }

skip() {
    local line="PARITY STAGE SKIPPED: $*"
    printf '\n%s\n%s\n%s\n\n' "${line//?/=}" "$line" "${line//?/=}"
    exit "$require"
}

is_311() { "$1" -c 'import sys, ensurepip; raise SystemExit(sys.version_info[:2] != (3, 11))' 2>/dev/null; }

find_311() {
    local python
    for python in python3.11 "${PYENV_ROOT:-$HOME/.pyenv}"/versions/3.11.*/bin/python python3 python; do
        if is_311 "$python"; then echo "$python"; return; fi
    done
}

offered_torch() {  # the build that pip would take, without taking it
    # shellcheck disable=SC2086  (several arguments are meant)
    $venv/bin/python -m pip install -qq --dry-run --ignore-installed --no-deps \
        ${DIG_TORCH_PIP:-} --report - "torch==$torch" 2>/dev/null |
        $venv/bin/python -c 'import json, sys; print(json.load(sys.stdin)["install"][0]["metadata"]["version"])'
}

make_env() {
    local python build start=$SECONDS
    python=$(find_311)
    [[ -n $python ]] || skip "there is no Python 3.11 here"
    rm -rf $venv $old_hf
    "$python" -m venv $venv
    build=$(offered_torch) || skip "pip finds no torch==$torch for Python 3.11"
    [[ $build == *+cpu* || $(uname) == Darwin ]] ||
        skip "pip offers torch $build, not a CPU build; see DIG_TORCH_PIP in scripts/parity.sh"
    say "making $venv with torch $build (a few minutes the first time)"
    # shellcheck disable=SC2086
    $venv/bin/python -m pip install -qq ${DIG_TORCH_PIP:-} "torch==$torch"
    $venv/bin/python -m pip install -qq -c constraints-parity.txt -e ".[report,parquet,cluster,serve,dev]"
    $venv/bin/python -m pip install -qq --no-deps --target $old_hf "${older[@]}"
    printf '%s' "$want" >$stamp
    say "ready in $((SECONDS - start)) s"
}

[[ -f $stamp && "$(cat $stamp)" == "$want" ]] || make_env
export GLIBC_TUNABLES=${GLIBC_TUNABLES:-glibc.malloc.hugetlb=1}
export DIG_TRANSFORMERS_457=$PWD/$old_hf
say "Python 3.11, $($venv/bin/python -m pip freeze | grep -E '^(jax|torch|transformers)==' | tr '\n' ' ')"
exec $venv/bin/python -m pytest -n "${TEST_JOBS:-2}" --dist loadfile --no-loadscope-reorder \
    --durations=12 -m "not bpy and not slow" "$@"
