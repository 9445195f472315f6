#!/usr/bin/env bash
# The controls of the main job, at its budget: GRPO without curriculum, GRPO without KL, and
# continued supervised training on the same pairs. Needs the renders that scripts/quickstart.sh made.
#
#   scripts/controls.sh [STEPS]    of the supervised run: as many as take the CPU seconds of GRPO
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."
scripts/env.sh
export JAX_PLATFORMS=cpu PYTHONPATH=$PWD PYTHONUNBUFFERED=1 TRANSFORMERS_VERBOSITY=error
export JAX_COMPILATION_CACHE_DIR=$PWD/.cache/jax
export GLIBC_TUNABLES=${GLIBC_TUNABLES:-glibc.malloc.hugetlb=1}
python=.venv/bin/python
TIMEFORMAT='%R s of wall time, CPU seconds %U + %S'

score() { # RUN_DIR CONFIG ARGUMENTS...: sampled as in training, and greedy
    "$python" -m dig_jax.evaluate --config "$2" --run-dir "$1" --name after "${@:3}"
    "$python" -m dig_jax.evaluate --config "$2" --run-dir "$1" --name after_greedy \
        --set eval.samples=0 "${@:3}"
}

for config in tiny_no_curriculum tiny_no_kl; do
    time "$python" -m dig_jax.train --config configs/$config.py
    score runs/$config configs/$config.py --from-run
done

steps=${1:-450}
time "$python" -m dig_jax.sft --config configs/tiny_sft.py --set "steps=$steps" \
    --set "curriculum.stages.0.until=$steps"
score runs/tiny_sft configs/tiny_sft.py --from-run
