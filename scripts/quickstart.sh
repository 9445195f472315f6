#!/usr/bin/env bash
# The main job on this machine: environment, renders, GRPO on the tiny model, before and after.
#
#   scripts/quickstart.sh                          at most 20 minutes on 2 CPU cores
#   scripts/quickstart.sh --set optim.rate=1e-4    any field of the config; repeatable
#   scripts/quickstart.sh --config F --run-dir D   another config, another run folder
#
# The environment (.venv), the renders (data/tiny) and compiled programs (.cache/jax) are made
# once and used again. Every call makes a new run: runs/quickstart-1, -2, ... One that was stopped
# half-way is continued instead, from its last checkpoint; to start it afresh, delete its folder.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."

config=configs/tiny_cpu.py
run=
settings=()
while (($#)); do
    case $1 in
        --config) config=${2:?--config needs a file} && shift 2 ;;
        --run-dir) run=${2:?--run-dir needs a folder} && shift 2 ;;
        --set) settings+=(--set "${2:?--set needs A.B=C}") && shift 2 ;;
        -h | --help) sed -n '2,10s/^# \{0,1\}//p' scripts/quickstart.sh && exit 0 ;;
        *) echo "quickstart: unknown argument $1; see scripts/quickstart.sh --help" >&2 && exit 2 ;;
    esac
done
if [[ -z $run ]]; then # the first that is not finished: report.md is written last
    number=1
    while [[ -e runs/quickstart-$number/report.md ]]; do number=$((number + 1)); done
    run=runs/quickstart-$number
fi
setup=(--config "$config" ${settings[@]+"${settings[@]}"} --run-dir "$run")

export JAX_PLATFORMS=cpu
export JAX_COMPILATION_CACHE_DIR=$PWD/.cache/jax JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS=0.2
export MPLCONFIGDIR=$PWD/.cache/matplotlib
export HF_HUB_OFFLINE=1 TRANSFORMERS_VERBOSITY=error TF_CPP_MIN_LOG_LEVEL=2 PYTHONUNBUFFERED=1
export GLIBC_TUNABLES=${GLIBC_TUNABLES:-glibc.malloc.hugetlb=1} # large arrays in huge pages
python=.venv/bin/python

times=()
phase=start
begin() { # NAME: closes the phase before it
    end
    phase=$1 phase_start=$SECONDS
    printf '\n== %s\n' "$phase"
}
end() {
    [[ $phase == start ]] || times+=("$(printf '%-28s %5d s' "$phase" $((SECONDS - phase_start)))")
}
finish() { # also after a failure or Ctrl-C: what took how long, and how to go on
    local status=$?
    end
    printf '\n'
    ((${#times[@]} == 0)) || printf '%s\n' "${times[@]}"
    printf '%-28s %5d s\n' total "$SECONDS"
    case $status in
        0) ;;
        2) echo "quickstart: stopped in '$phase'" >&2 ;; # what was asked for is wrong
        *) echo "quickstart: stopped in '$phase'; the same command continues" >&2 ;;
    esac
}
trap finish EXIT
trap 'exit 130' INT
trap 'exit 143' TERM

begin "environment"
scripts/env.sh

begin "configuration" # a wrong field stops here, before minutes of rendering
read -r width height root <<<"$("$python" - "${setup[@]}" <<'CHECK'
from dig_jax.config.commandline import parse_config
cfg = parse_config()
print(cfg.data.image_width, cfg.data.image_height, cfg.data.root)
CHECK
)"
[[ -n $root ]] || exit 2
echo "run folder $run, pairs $root"

begin "render pairs"
"$python" -m dig_jax.data render --preset quickstart --root "$root" \
    --set look.width="$width" --set look.height="$height"

begin "evaluate before"
"$python" -m dig_jax.evaluate "${setup[@]}" --name pixel_diff --pixel-diff --more
"$python" -m dig_jax.evaluate "${setup[@]}" --name before --more

begin "train"
"$python" -m dig_jax.train "${setup[@]}"

begin "evaluate after"
"$python" -m dig_jax.evaluate "${setup[@]}" --name after --from-run --more

begin "export"
"$python" -m dig_jax.convert export --run "$run" --out "$run/hf" --overwrite
"$python" -m dig_jax.convert check "$run/hf" --run "$run"

begin "report"
"$python" -m dig_jax.report "$run"
