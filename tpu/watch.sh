#!/usr/bin/env bash
# Shows what a slice does.
#
#   tpu/watch.sh NAME --zone Z [--project P] [--dry-run]     the run's console, as it grows
#   tpu/watch.sh NAME --zone Z --state                       of the request: ACTIVE, SUSPENDED, ...
#   tpu/watch.sh NAME --zone Z --mirror RUN_DIR --to gs://BUCKET/FOLDER
#
#   --mirror   copies a run folder but for its weights: rows, event files, pictures, evaluations
set -euo pipefail
# shellcheck source=tpu/arguments.sh
. "$(dirname "${BASH_SOURCE[0]}")/arguments.sh"

state=false mirror='' to=''
while (($#)); do
    taken=1
    case $1 in
        --state) state=true ;;
        --mirror) value "$@"; mirror=$2 taken=2 ;;
        --to) value "$@"; to=$2 taken=2 ;;
        *) common "$@" ;;
    esac
    shift "$taken"
done
ready

if $state; then
    tpu queued-resources describe "$name" --format="value(state.state)"
elif [[ -n $mirror || -n $to ]]; then
    [[ -n $mirror && $to == gs://*/* ]] || refuse "--mirror RUN_DIR goes --to gs://BUCKET/FOLDER"
    # matched from the start of a path; a leading ^ would be gcloud's way to name a delimiter
    on 0 "cd dig_jax && gcloud storage rsync --recursive\
 --exclude='(checkpoints|hf)/|best/[0-9]+/params/' $(quoted "$mirror" "$to")"
else
    on 0 "tail -n 100 -F dig_jax/log/run.log"
fi
