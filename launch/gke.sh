#!/usr/bin/env bash
# Trains on a TPU slice of a GKE cluster, as a JobSet; kubectl must know the cluster.
#
#   launch/gke.sh --name=NAME --image=IMAGE --claim=CLAIM --config=FILE --workdir=DIR [flags]
#
# Flags
#   --name=NAME            of the JobSet
#   --image=IMAGE          made by launch/docker.sh build --jax=tpu, and pushed
#   --claim=CLAIM          a persistent volume claim that all pods can write (Filestore), mounted at /mnt/shared
#   --config=FILE          in this repository
#   --workdir=DIR          under /mnt/shared
#   --config.a.b=c         any number of them
#   --accelerator=NAME     tpu-v5-lite-podslice (the default), tpu-v4-podslice, tpu-v5p-slice, tpu-v6e-slice
#   --topology=AxB[xC]     chips of the slice (4x4)
#   --chips=N              chips of a host (4)
#   --namespace=NAME       (default)
#   --dry-run              print the command and its manifest instead of applying it
set -euo pipefail
cd "$(dirname "$0")/.."
source launch/commands.sh

name='' image='' claim='' accelerator=tpu-v5-lite-podslice topology=4x4 chips=4 namespace=default
for flag; do
  case $flag in
    --name=*) name=${flag#*=} ;;
    --image=*) image=${flag#*=} ;;
    --claim=*) claim=${flag#*=} ;;
    --accelerator=*) accelerator=${flag#*=} ;;
    --topology=*) topology=${flag#*=} ;;
    --chips=*) chips=${flag#*=} ;;
    --namespace=*) namespace=${flag#*=} ;;
    *) take_flag "$flag" ;;
  esac
done
require --name "$name" --image "$image" --claim "$claim"
make_training
[[ $topology =~ ^[1-9][0-9]*(x[1-9][0-9]*){1,2}$ ]] || fail "--topology=$topology: give it as 4x4 or 2x2x2"
[[ $chips =~ ^[1-9][0-9]*$ ]] || fail "--chips=$chips is no number of chips"
((${topology//x/*} % chips == 0)) || fail "--topology=$topology has no whole number of hosts of $chips chips"

# The words as a list of YAML's (and JSON's).
listed() {
  local word list=
  for word; do
    word=${word//\\/\\\\}
    list+="${list:+, }\"${word//\"/\\\"}\""
  done
  printf '[%s]' "$list"
}

manifest=$(< launch/gke_jobset.yaml)
fill() {
  manifest=${manifest//"\${$1}"/"$2"}
}
fill NAME "$name"
fill NAMESPACE "$namespace"
fill IMAGE "$image"
fill CLAIM "$claim"
fill ACCELERATOR "$accelerator"
fill TOPOLOGY "$topology"
fill CHIPS "$chips"
fill HOSTS "$((${topology//x/*} / chips))"
fill COMMAND "$(listed launch/until_finished.sh python "${training[@]}")"

if [ "$dry_run" = yes ]; then
  printf "kubectl apply --filename=- <<'MANIFEST'\n%s\nMANIFEST\n" "$manifest"
else
  kubectl apply --filename=- <<< "$manifest"
fi
