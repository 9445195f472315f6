#!/usr/bin/env bash
# The controls of the main job, at its budget: GRPO without curriculum, GRPO without KL, and
# continued SFT on the same training pairs. Needs the renders that scripts/quickstart.sh made.
#
#   scripts/controls.sh [SFT_STEPS]    SFT_STEPS: as many as take the CPU seconds of the GRPO run
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

time "$python" -m scripts.make.base --start assets/tiny_qwen3vl --data data/tiny \
    --splits single,dual,mixed --dev data/tiny --dev-split heldout --steps "${1:-900}" \
    --rate 1e-3 --decay 0.5 --evaluate 100000 --work runs/tiny_sft --out runs/tiny_sft/hf
score runs/tiny_sft configs/tiny_cpu.py --source runs/tiny_sft/hf
