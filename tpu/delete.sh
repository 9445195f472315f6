#!/usr/bin/env bash
# Gives a slice back, and with it whatever lies on its workers' disks.
#
#   tpu/delete.sh NAME --zone Z [--now] [--yes] [--project P] [--dry-run]
#
#   --now   it was made by `create.sh --now`, without a queue
#   --yes   do not ask
set -euo pipefail
# shellcheck source=tpu/arguments.sh
. "$(dirname "${BASH_SOURCE[0]}")/arguments.sh"

what=(queued-resources delete) options=()
while (($#)); do
    taken=1
    case $1 in
        --now) what=(tpu-vm delete) ;;
        --yes) options=(--quiet) ;;
        *) common "$@" ;;
    esac
    shift "$taken"
done
ready
[[ ${what[0]} == tpu-vm ]] || what+=(--force) # its machines too

tpu "${what[@]}" "$name" ${options[@]+"${options[@]}"}
