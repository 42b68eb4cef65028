#!/usr/bin/env bash
#SBATCH --job-name=vla_jax
#SBATCH --nodes=2
#SBATCH --gpus-per-node=8
#SBATCH --ntasks-per-node=8
#SBATCH --cpus-per-task=8
#SBATCH --time=24:00:00
#SBATCH --signal=TERM@120
#SBATCH --requeue
#SBATCH --open-mode=append
#SBATCH --output=slurm-%j.log
# Trains on the GPUs of several Slurm nodes, one task a GPU, and goes on in another job after a time limit or
# a preemption. To be submitted from the repository's root; flags of sbatch stand before the script.
#
#   sbatch [--nodes=N ...] launch/slurm.sh --config=FILE --workdir=DIR [flags]
#   launch/slurm.sh --dry-run --config=FILE --workdir=DIR [flags]
#
# Flags
#   --config=FILE          in this repository
#   --workdir=DIR          on storage that all nodes share
#   --config.a.b=c         any number of them
#   --python=PATH          which Python (.venv/bin/python; in a container: python)
#   --container=IMAGE      where the cluster has pyxis: the image of launch/Dockerfile
#   --mounts=A:B,C:D       what the container sees of the storage
#   --dry-run              print the commands instead of running them
set -euo pipefail
cd "${SLURM_SUBMIT_DIR:-$(dirname "$0")/..}"
[ -f launch/commands.sh ] || { echo "error: submit from the repository's root, not $PWD" >&2 && exit 2; }
source launch/commands.sh

python='' container='' mounts=''
for flag; do
  case $flag in
    --python=*) python=${flag#*=} ;;
    --container=*) container=${flag#*=} ;;
    --mounts=*) mounts=${flag#*=} ;;
    *) take_flag "$flag" ;;
  esac
done
[ -n "$container" ] || [ -z "$mounts" ] || fail "--mounts is for a container; give --container too"
make_training
[ "$dry_run" = yes ] || [ -n "${SLURM_JOB_ID:-}" ] || fail "this is a batch script: sbatch $0 ..."

if [ -n "$container" ]; then
  inside=(--container-image="$container" ${mounts:+--container-mounts="$mounts"})
  python=${python:-python}
else
  inside=()
  python=${python:-.venv/bin/python}
fi
# JAX gives task i of a node its i-th GPU, so every task must see all of them.
run srun --gpu-bind=none --kill-on-bad-exit=1 ${inside[@]+"${inside[@]}"} "$python" "${training[@]}"

# A run that was asked to stop has saved and ended well, and is not finished.
if [ "$dry_run" = yes ]; then
  echo "test -f $(quoted "$workdir/summary.json") || scontrol requeue \$SLURM_JOB_ID"
elif [ ! -f "$workdir/summary.json" ]; then
  scontrol requeue "$SLURM_JOB_ID"
fi
