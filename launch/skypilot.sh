#!/usr/bin/env bash
# Trains on a spot machine that SkyPilot finds, and finds again after a preemption.
#
#   launch/skypilot.sh --name=NAME --bucket=BUCKET --config=FILE --workdir=DIR [flags]
#
# Flags
#   --name=NAME            of the managed job
#   --bucket=BUCKET        mounted at /mnt/shared; made where there is none
#   --config=FILE          in this repository
#   --workdir=DIR          under /mnt/shared
#   --config.a.b=c         any number of them
#   --gpus=NAME:COUNT      instead of the file's A100-80GB:8
#   --dry-run              print the command instead of running it
set -euo pipefail
cd "$(dirname "$0")/.."
source launch/commands.sh

name='' bucket='' gpus=''
for flag; do
  case $flag in
    --name=*) name=${flag#*=} ;;
    --bucket=*) bucket=${flag#*=} ;;
    --gpus=*) gpus=${flag#*=} ;;
    *) take_flag "$flag" ;;
  esac
done
require --name "$name" --bucket "$bucket"
make_training

run sky jobs launch --yes --name "$name" ${gpus:+--gpus "$gpus"} --env "BUCKET=$bucket" --env "CONFIG=$config" \
  --env "WORKDIR=$workdir" --env "OVERRIDES=$(quoted ${overrides[@]+"${overrides[@]}"})" launch/skypilot.yaml
