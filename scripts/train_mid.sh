#!/usr/bin/env bash
# The mid-size model on one GPU: cold start, GRPO, evaluation, report; the Table-4 ablation.
#
#   scripts/train_mid.sh DATA OUT               cold start -> OUT/base, GRPO -> OUT/grpo
#   scripts/train_mid.sh DATA OUT --ablate      and the four arms of Table 4 -> OUT/ablation
#   scripts/train_mid.sh DATA OUT --set A.B=C   any field of the config; repeatable
#   scripts/train_mid.sh DATA OUT --config F    instead of configs/mid_gpu.py
#
# DATA holds the splits base, dev, single, dual, mixed and heldout at 256x192; rendered elsewhere:
# docs/mid_size.md has the commands, and how they and the missing packages reach the machine.
# The same command continues after a kill: what is finished is skipped, the cold start, GRPO
# and each arm go on from their last checkpoint. Everything small of OUT is packed
# into OUT/results.tar.gz whenever the command ends. No .venv is used: PYTHON=python3.
#
# What a trial may shrink, by the environment (defaults in brackets):
#   SHAPE [mid]  SFT_STEPS [2500]  SFT_BATCH [128]  SFT_RATE [5e-4]  SFT_EVERY [250]
#   ABLATE_STEPS [60]  ABLATE_SEEDS ["0"]
set -euo pipefail
here=$(pwd)
cd "$(dirname "${BASH_SOURCE[0]}")/.."
repository=$PWD

refuse() { echo "train_mid: $1; see scripts/train_mid.sh --help" >&2 && exit 2; }
absolute() { [[ $1 == /* ]] && echo "$1" || echo "$here/$1"; }
config=configs/mid_gpu.py
ablate=
settings=()
folders=()
while (($#)); do
    case $1 in
        --ablate) ablate=yes && shift ;;
        --config) config=$(absolute "${2:?--config needs a file}") && shift 2 ;;
        --set) settings+=(--set "${2:?--set needs A.B=C}") && shift 2 ;;
        -h | --help) sed -n '2,18s/^# \{0,1\}//p' scripts/train_mid.sh && exit 0 ;;
        -*) refuse "unknown argument $1" ;;
        *) folders+=("$(absolute "$1")") && shift ;;
    esac
done
((${#folders[@]} == 2)) || refuse "DATA and OUT are wanted, ${#folders[@]} folders were given"
data=${folders[0]} out=${folders[1]}

python=${PYTHON:-python3}
shape=${SHAPE:-mid}
case $shape in
    mid) patch=16 ;;
    tiny) patch=8 ;;
    *) refuse "SHAPE=$shape is neither mid nor tiny" ;;
esac
steps=${SFT_STEPS:-2500} every=${SFT_EVERY:-250}
seeds=${ABLATE_SEEDS:-0}

missing=()
for split in base dev single dual mixed heldout; do
    [[ -f $data/$split/manifest.json ]] || missing+=("$split")
done
if ((${#missing[@]})); then
    {
        echo "train_mid: $data lacks the splits ${missing[*]}; render them on a machine with bpy:"
        for preset in base quickstart; do
            echo "  python -m dig_jax.data render --root data/mid --preset $preset" \
                "--set look.width=256 --set look.height=192"
        done
        echo "and carry the shards along: docs/mid_size.md"
    } >&2
    exit 2
fi
"$python" - <<'CHECK' || exit 2
import importlib.util
import sys

packages = {"grain": "grain", "array_record": "array-record", "portpicker": "portpicker"}
others = "jax flax optax orbax.checkpoint etils.epath transformers safetensors msgpack".split()
others += ["jinja2", "rich", "scipy", "PIL", "matplotlib"]


def found(name):
    try:
        return importlib.util.find_spec(name) is not None
    except ModuleNotFoundError:
        return False


missing = [packages.get(name, name) for name in (*packages, *others) if not found(name)]
if missing:
    print(
        f"train_mid: {sys.executable} has no {', '.join(missing)}; install them, or carry their "
        f"wheels: docs/mid_size.md (PYTHON names another interpreter)",
        file=sys.stderr,
    )
sys.exit(bool(missing))
CHECK

mkdir -p "$out"
export PYTHONPATH=$repository${PYTHONPATH:+:$PYTHONPATH} PYTHONUNBUFFERED=1
export JAX_COMPILATION_CACHE_DIR=${JAX_COMPILATION_CACHE_DIR:-$repository/.cache/jax}
export JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS=${JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS:-1}
export HF_HUB_OFFLINE=1 TRANSFORMERS_VERBOSITY=error TF_CPP_MIN_LOG_LEVEL=2
export MPLCONFIGDIR=${MPLCONFIGDIR:-$repository/.cache/matplotlib}

phase=start
begin() { # NAME
    phase=$1
    printf '\n== %s, after %d s\n' "$phase" "$SECONDS"
}
pack() { # results.tar.gz: no weights, checkpoints, compiled programs or pictures of single steps
    (cd "$out" && find . -type f -size -4M \
        \( -name '*.json' -o -name '*.jsonl' -o -name '*.md' -o -name '*.png' -o -name '*.log' \) \
        -not -path '*/checkpoints/*' -not -path '*/best/*' -not -path '*/samples/*' \
        -not -path './tokenizer/*' -not -name 'tokenizer*.json' -not -name 'vocab.json' -print0 |
        tar czf results.part --null -T - && mv results.part results.tar.gz)
}
finish() {
    local status=$?
    pack || echo "train_mid: $out/results.tar.gz could not be written" >&2
    case $status in
        0) printf '\nfinished after %d s; %s\n' "$SECONDS" "$out/results.tar.gz" ;;
        *) echo "train_mid: stopped in '$phase' after $SECONDS s; the same command continues" >&2 ;;
    esac
}
trap finish EXIT
trap 'exit 130' INT
trap 'exit 143' TERM

run=$out/grpo
common=(--config "$config" --set "data.root=$data" --set "model.source=$out/base"
    ${settings[@]+"${settings[@]}"})

if [[ ! -f $out/base/config.json ]]; then
    begin "cold start"
    [[ -f $out/tokenizer/video_preprocessor_config.json ]] ||
        "$python" -m scripts.make.tiny_tokenizer --out "$out/tokenizer" --patch "$patch"
    [[ -f $out/fresh/config.json ]] || "$python" -m scripts.make.base --shape "$shape" \
        --tokenizer "$out/tokenizer" --out "$out/fresh"
    cold=(--config configs/mid_base.py --run-dir "$out/cold_start" --set "data.root=$data"
        --set "model.source=$out/fresh" --set "steps=$steps"
        --set "curriculum.stages.0.until=$steps" --set "pairs_per_step=${SFT_BATCH:-128}"
        --set "optim.rate=${SFT_RATE:-5e-4}"
        --set "optim.warmup=$((steps < 400 ? steps / 4 : 100))"
        --set "eval.every=$every" --set "checkpoint.every=$every")
    for setting in ${settings[@]+"${settings[@]}"}; do # where pairs lie, and of what size
        [[ $setting == data.* || $setting == eval.pairs=* || $setting == eval.batch=* ]] &&
            cold+=(--set "$setting")
    done
    "$python" -m dig_jax.sft "${cold[@]}"
    "$python" -m dig_jax.convert export --run "$out/cold_start" --out "$out/base"
fi

exam() { # NAME ARGUMENTS...
    [[ -f $run/eval_$1.json ]] && return
    begin "evaluate $1"
    "$python" -m dig_jax.evaluate "${common[@]}" --run-dir "$run" --name "$@"
}
exam pixel_diff --pixel-diff
exam before
if [[ ! -f $run/eval_after.json ]]; then
    begin "train"
    "$python" -m dig_jax.train "${common[@]}" --run-dir "$run"
fi
exam after --from-run
begin "report"
"$python" -m dig_jax.report "$run"

if [[ -n $ablate ]]; then
    begin "ablation"
    # shellcheck disable=SC2086 # one word per seed
    "$python" -m scripts.study.ablate --only table4 "${common[@]}" --root "$out/ablation" \
        --steps "${ABLATE_STEPS:-60}" --seeds $seeds --modes sampled
fi
