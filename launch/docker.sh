#!/usr/bin/env bash
# Builds the image, or trains in it on this machine's GPUs.
#
#   launch/docker.sh build [--image=IMAGE] [--jax=EXTRA]
#   launch/docker.sh train [--image=IMAGE] [--gpus=GPUS] --shared=DIR --config=FILE --workdir=DIR [flags]
#
# Flags
#   --image=IMAGE          (vla_jax)
#   --jax=EXTRA            build: cuda12 (the default), cuda13 or tpu
#   --gpus=GPUS            train: docker's own flag, "all" (the default), 1, or device=0
#   --shared=DIR           train: a folder of yours with data and models, mounted at /mnt/shared
#   --config=FILE          train: in this repository
#   --workdir=DIR          train: under /mnt/shared
#   --config.a.b=c         train: any number of them
#   --dry-run              print the command instead of running it
set -euo pipefail
cd "$(dirname "$0")/.."
source launch/commands.sh

image=vla_jax jax=cuda12 gpus=all shared=

build() {
  case $jax in
    cuda12 | cuda13 | tpu) ;;
    *) fail "--jax=$jax; choose cuda12, cuda13 or tpu" ;;
  esac
  run docker build --file=launch/Dockerfile --build-arg="JAX=$jax" --tag="$image" .
}

# As the caller, who owns the folder. `docker stop` waits for the checkpoint.
train() {
  require --shared "$shared"
  make_training
  run docker run --rm --init --gpus="$gpus" --user="$(id -u):$(id -g)" --env=HOME=/tmp --shm-size=16g \
    --stop-timeout=300 --volume="$shared:/mnt/shared" "$image" "${training[@]:2}"
}

action=${1:---help}
[ $# -eq 0 ] || shift
for flag; do
  case $flag in
    --image=*) image=${flag#*=} ;;
    --jax=*) jax=${flag#*=} ;;
    --gpus=*) gpus=${flag#*=} ;;
    --shared=*) shared=${flag#*=} ;;
    *) take_flag "$flag" ;;
  esac
done
case $action in
  build | train) "$action" ;;
  -h | --help) take_flag "$action" ;;
  *) fail "unknown action '$action'; see $0 --help" ;;
esac
