#!/usr/bin/env bash
# Runs the training command where a scheduler takes exit status 0 for the end of the run, as Kubernetes does.
#
#   launch/until_finished.sh python -m vla_jax.train --config=FILE --workdir=DIR ...
#
# Passes SIGTERM on, and exits with 75 (try again) where the command was stopped before the run was finished.
set -euo pipefail

workdir=
for flag; do
  case $flag in
    --workdir=*) workdir=${flag#*=} ;;
  esac
done
if [ -z "$workdir" ]; then
  echo "error: the command has no --workdir=DIR; see the top of $0" >&2
  exit 2
fi

stopped=no
"$@" &
child=$!
trap 'trap "" TERM; stopped=yes; kill -TERM "$child"' TERM
status=0
wait "$child" || status=$?
# The signal ended the waiting, not the command.
if [ "$stopped" = yes ]; then
  status=0
  wait "$child" || status=$?
fi
if [ "$status" -eq 0 ] && [ ! -f "$workdir/summary.json" ]; then
  status=75
fi
exit "$status"
