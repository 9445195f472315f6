#!/usr/bin/env bash
# Makes every worker of a slice ready: code, environment, and what they share. Repeat it at will.
#
#   tpu/setup.sh NAME --zone Z [--commit C] [--share HOST:/EXPORT] [--data gs://BUCKET/FOLDER]
#                [--extras tpu,gcs] [--project P] [--dry-run]
#
#   --commit   of this checkout, HEAD or what it descends from; becomes ~/dig_jax by a git bundle.
#              What is not committed stays here
#   --share    an NFS export, mounted at /mnt/dig: run folders of slices with several hosts
#   --data     pairs, copied to ~/dig_jax/data/FOLDER of each worker; repeatable
#   --extras   of pyproject.toml, installed into ~/dig_jax/.venv with constraints.txt's versions
set -euo pipefail
# shellcheck source=tpu/arguments.sh
. "$(dirname "${BASH_SOURCE[0]}")/arguments.sh"

commit=HEAD share='' extras=tpu,gcs data=()
while (($#)); do
    taken=1
    case $1 in
        --commit) value "$@"; commit=$2 taken=2 ;;
        --share) value "$@"; share=$2 taken=2 ;;
        --extras) value "$@"; extras=$2 taken=2 ;;
        --data)
            value "$@"
            [[ $2 == gs://*/* ]] || refuse "--data $2 is not gs://BUCKET/FOLDER"
            data+=("${2%/}") taken=2
            ;;
        *) common "$@" ;;
    esac
    shift "$taken"
done
ready
[[ -z $share || $share == *:/* ]] || refuse "--share $share is not HOST:/EXPORT"
here=$(dirname "${BASH_SOURCE[0]}")/..
commit=$(git -C "$here" rev-parse --verify --quiet "$commit^{commit}") || refuse "--commit is unknown"
git -C "$here" merge-base --is-ancestor "$commit" HEAD || refuse "HEAD does not descend from $commit"
bundle=${TMPDIR:-/tmp}/dig_jax-$commit.bundle

run git -C "$here" bundle create --quiet "$bundle" HEAD
tpu tpu-vm scp "$bundle" "$name:dig_jax.bundle" --worker=all
on all "git init -q dig_jax && git -C dig_jax fetch -q ~/dig_jax.bundle HEAD &&\
 git -C dig_jax checkout -q --detach $commit"
# scripts/env.sh makes do with any uv; Ubuntu's python3 cannot make the environment it puts one in
on all "cd dig_jax && export PATH=~/.local/bin:\$PATH && { uv --version >/dev/null 2>&1 ||\
 python3 -m pip install -q --user uv; } && DIG_EXTRAS=$(quoted "$extras") scripts/env.sh"
# a new machine is often still updating itself: wait for the lock
[[ -z $share ]] || on all "sudo apt-get -qq update &&\
 sudo apt-get -qqy -o DPkg::Lock::Timeout=300 install nfs-common &&\
 sudo mkdir -p /mnt/dig && { mountpoint -q /mnt/dig || sudo mount -t nfs $(quoted "$share")\
 /mnt/dig; } && sudo chmod 1777 /mnt/dig"
for from in ${data[@]+"${data[@]}"}; do
    to=$(quoted "dig_jax/data/${from##*/}")
    on all "mkdir -p $to && gcloud storage rsync --recursive $(quoted "$from") $to"
done
