#!/usr/bin/env bash
# Runs a training command for a scheduler: succeeds only when the run's last checkpoint is there.
#
#   tpu/complete.sh RUN_DIR STEPS COMMAND...
#
# RUN_DIR is the run's checkpoint.root where it has one, a folder or gs://BUCKET/FOLDER.
# A run that was asked to end ends well, in the middle: to JobSet, XPK or Slurm it would look done.
# This ends with 143 then, as a program does that SIGTERM ended, which all of them start again; the
# run goes on. SIGTERM is passed on to the command.
set -euo pipefail
# shellcheck source=tpu/arguments.sh
. "$(dirname "${BASH_SOURCE[0]}")/arguments.sh"

[[ ${1:-} != --help ]] || { usage; exit 0; }
(($# >= 3)) || refuse "RUN_DIR, STEPS and COMMAND are needed"
run_dir=$1 steps=$2
shift 2
[[ $steps =~ ^[1-9][0-9]*$ ]] || refuse "STEPS=$steps is not the number of the config's steps"

"$@" &
child=$! asked=false code=0
trap 'asked=true; kill -TERM "$child" 2>/dev/null || true' TERM INT
wait "$child" || code=$?
while $asked && ((code > 128)); do # the signal ended the waiting, not the command
    asked=false code=0
    wait "$child" || code=$?
done
((code == 0)) || exit "$code"
if [[ $run_dir == *://* ]]; then
    python -c 'import sys; from dig_jax.run.checkpoint import saved_steps
sys.exit(int(sys.argv[2]) not in saved_steps(sys.argv[1]))' "$run_dir" "$steps" || exit 143
else
    [[ -d $run_dir/checkpoints/$steps ]] || exit 143
fi
