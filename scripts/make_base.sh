#!/usr/bin/env bash
# A base like the shipped one from nothing: renders, questions, three trainings and what comes between them.
#
#   scripts/make_base.sh          reckoned: 80 to 95 minutes on 2 idle CPU cores -> runs/tiny_qwen3vl
#   scripts/make_base.sh OUT      another new folder
#
# Every part is made once: after a stop the same command goes on. docs/base.md tells why so.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."
out=${1:-runs/tiny_qwen3vl}

export JAX_PLATFORMS=cpu JAX_COMPILATION_CACHE_DIR=$PWD/.cache/jax TRANSFORMERS_VERBOSITY=error
export GLIBC_TUNABLES=${GLIBC_TUNABLES:-glibc.malloc.hugetlb=1}
scripts/env.sh
python=.venv/bin/python

once() { # FOLDER MODULE...: makes the folder where it is not there
    [[ -e $1 ]] || "$python" -m "${@:2}"
}

"$python" -m dig_jax.data render --root data/base --preset base
once data/base_questions dig_jax.data questions --root data/base --splits base --allow-training \
    --out data/base_questions
once runs/tiny_tokenizer scripts.make.tiny_tokenizer --out runs/tiny_tokenizer --patch 8
once runs/tiny_fresh scripts.make.base --tokenizer runs/tiny_tokenizer --out runs/tiny_fresh
"$python" -m dig_jax.sft --config configs/tiny_base.py
once runs/tiny_halfway dig_jax.convert export --run runs/tiny_base --step 2400 --out runs/tiny_halfway
once runs/tiny_matched scripts.make.base --tokenizer runs/tiny_tokenizer \
    --trained runs/tiny_halfway --out runs/tiny_matched
"$python" -m dig_jax.sft --config configs/tiny_base_end.py
once runs/tiny_unpolished dig_jax.convert export --run runs/tiny_base_end --step 1200 \
    --out runs/tiny_unpolished
"$python" -m dig_jax.sft --config configs/tiny_base_polish.py
once "$out" dig_jax.convert export --run runs/tiny_base_polish --step 800 --out "$out"
