#!/usr/bin/env bash
# Asks for a TPU slice: a queued resource, which becomes a TPU VM per host when there is room.
#
#   tpu/create.sh NAME --zone Z --type v5litepod-16 [--spot] [--now] [--runtime V] [--project P]
#                 [--dry-run] [-- MORE FLAGS OF gcloud]
#
#   --type     v5litepod-N (v5e-N is understood), v5p-N or v6e-N
#   --spot     cheaper, and taken back at any time
#   --now      at once or not at all, without a queue
#   --runtime  image of the VMs; default: the one that Google lists for JAX on that type
set -euo pipefail
# shellcheck source=tpu/arguments.sh
. "$(dirname "${BASH_SOURCE[0]}")/arguments.sh"

type='' runtime='' now=false options=()
while (($#)); do
    taken=1
    case $1 in
        --type) value "$@"; type=$2 taken=2 ;;
        --runtime) value "$@"; runtime=$2 taken=2 ;;
        --spot) options+=(--spot) ;;
        --now) now=true ;;
        --) shift; options+=("$@"); break ;;
        *) common "$@" ;;
    esac
    shift "$taken"
done
ready
[[ -n $type ]] || refuse "--type is missing"
type=${type/#v5e-/v5litepod-}

if [[ -z $runtime ]]; then
    case $type in
        v5litepod-*) runtime=v2-alpha-tpuv5-lite ;;
        v5p-*) runtime=v2-alpha-tpuv5 ;;
        v6e-*) runtime=v2-alpha-tpuv6e ;;
        *) refuse "no image is known for --type $type; name one by --runtime" ;;
    esac
fi

options=(--accelerator-type="$type" ${options[@]+"${options[@]}"})
if $now; then
    tpu tpu-vm create "$name" --version="$runtime" "${options[@]}"
else
    tpu queued-resources create "$name" --node-id="$name" --runtime-version="$runtime" \
        "${options[@]}"
fi
