# What the scripts of this folder share: arguments, and commands that are run or only printed.
# To be sourced. A script's --help is its own first comment.
# shellcheck shell=bash disable=SC2034

name='' zone='' dry=false taken=0
where=() # --zone and --project, as gcloud takes them; filled by `ready`
project=''

usage() { sed -n '2,${/^#/!q; s/^# \{0,1\}//; p;}' "$0"; }

refuse() { # WHY
    printf '%s: %s\n\n' "${0##*/}" "$1" >&2
    usage >&2
    exit 2
}

value() { # "$@": its second word is the value of its first
    [[ $# -ge 2 && -n $2 && $2 != --* ]] || refuse "$1 needs a value"
}

common() { # "$@": takes what every script knows; `taken` says how many words that were
    taken=1
    case $1 in
        --help | -h) usage; exit 0 ;;
        --dry-run) dry=true ;;
        --zone) value "$@"; zone=$2 taken=2 ;;
        --project) value "$@"; project=$2 taken=2 ;;
        -*) refuse "unknown argument $1" ;;
        *) [[ -z $name ]] || refuse "one NAME, not $name and $1"; name=$1 ;;
    esac
}

ready() { # NAME and --zone are there
    [[ -n $name ]] || refuse "NAME is missing"
    [[ -n $zone ]] || refuse "--zone is missing"
    where=(--zone="$zone")
    [[ -z $project ]] || where+=(--project="$project")
}

run() { # COMMAND...: runs it, or prints it as one line that a shell reads back
    local line
    $dry || { "$@"; return; }
    printf -v line ' %q' "$@"
    printf '%s\n' "${line:1}"
}

tpu() { run gcloud compute tpus "$@" "${where[@]}"; } # COMMAND NAME ...

on() { # WORKERS COMMAND: a shell's text on some or all workers
    tpu tpu-vm ssh "$name" --worker="$1" --command="$2"
}

quoted() { # WORDS...: as one text for a worker's bash
    local line
    printf -v line ' %q' "$@"
    printf '%s' "${line:1}"
}
