#!/usr/bin/env bash
# Starts a command on every worker of a slice, in ~/dig_jax with its environment.
#
#   tpu/run.sh NAME --zone Z [--wait] [--worker N] [--project P] [--dry-run] -- COMMAND...
#   tpu/run.sh NAME --zone Z --stop
#
#   --wait     until it ends, its output here; otherwise it goes on by itself, its output in
#              ~/dig_jax/log/run.log of each worker, and one such run at a time
#   --worker   this one alone: for programs of one machine
#   --stop     SIGTERM to the run: the running step is finished, a checkpoint saved
set -euo pipefail
# shellcheck source=tpu/arguments.sh
. "$(dirname "${BASH_SOURCE[0]}")/arguments.sh"

worker=all wait=false stop=false command=()
while (($#)); do
    taken=1
    case $1 in
        --worker) value "$@"; worker=$2 taken=2 ;;
        --wait) wait=true ;;
        --stop) stop=true ;;
        --) shift; command=("$@"); break ;;
        *) common "$@" ;;
    esac
    shift "$taken"
done
ready

pid=log/run.pid
if $stop; then
    ((${#command[@]} == 0)) || refuse "--stop takes no COMMAND"
    on "$worker" "cd dig_jax && kill -TERM \"\$(cat $pid)\""
    exit
fi
((${#command[@]})) || refuse "-- COMMAND is missing"
enter="cd dig_jax && . .venv/bin/activate && export PYTHONUNBUFFERED=1"
if $wait; then
    on "$worker" "$enter && $(quoted "${command[@]}")"
    exit
fi
alive="[ -f $pid ] && kill -0 \"\$(cat $pid)\" 2>/dev/null"
# setsid and nohup become the command, so that its number is the one that --stop needs
on "$worker" "$enter && mkdir -p log &&\
 if $alive; then echo 'a run is going on here; --stop ends it' >&2; exit 1; fi &&\
 { setsid nohup $(quoted "${command[@]}") >>log/run.log 2>&1 </dev/null & echo \$! >$pid; }"
