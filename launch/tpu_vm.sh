#!/usr/bin/env bash
# Trains on a Cloud TPU VM, one host or a whole slice, and goes on after preemptions.
#
#   launch/tpu_vm.sh ACTION --name=NAME --zone=ZONE [flags]
#
# Actions
#   keep       create, set up and train; after a preemption all of it again, until the run is finished
#   create     ask for the TPU, as a queued resource
#   setup      copy the last commit to every host, install it, mount the shared folder
#   train      start the training command on every host and follow it
#   stop       let the run save and end
#   delete     give the TPU back
#
# Flags
#   --name=NAME            of the queued resource and its node
#   --zone=ZONE
#   --project=PROJECT      by default gcloud's
#   --type=TYPE            create: accelerator type, such as v5litepod-16, v5p-8, v6e-8
#   --runtime=VERSION      create: such as v2-alpha-tpuv5-lite, v2-alpha-tpuv5, v2-alpha-tpuv6e
#   --on-demand            create: not a spot TPU
#   --shared=HOST:/PATH    setup: NFS export, mounted at /mnt/shared
#   --config=FILE          train: in this repository
#   --workdir=DIR          train: under /mnt/shared
#   --config.a.b=c         train: any number of them
#   --poll=SECONDS         keep: between looks at the TPU's state (60)
#   --dry-run              print the commands instead of running them
set -euo pipefail
cd "$(dirname "$0")/.."
source launch/commands.sh

name='' zone='' project='' type='' runtime='' shared='' spot=--spot poll=60

create() {
  require --type "$type" --runtime "$runtime"
  run gcloud compute tpus queued-resources create "$name" "${place[@]}" --node-id="$name" \
    --accelerator-type="$type" --runtime-version="$runtime" ${spot:+"$spot"} --async --quiet
  created=yes
}

delete() {
  run gcloud compute tpus queued-resources delete "$name" "${place[@]}" --force --quiet
}

# What a lost connection left running is stopped, which saves it, before its files or its chips are taken.
end_run='sudo systemctl stop vla_jax 2>/dev/null || true'

# on WORKERS COMMAND
on() {
  run gcloud compute tpus tpu-vm ssh "$name" "${place[@]}" --worker="$1" --command="$2" --quiet
}

# The images' own Python is older than ours needs.
setup() {
  require --shared "$shared"
  local archive=${TMPDIR:-/tmp}/$name.tar.gz
  run git archive --format=tar.gz --output="$archive" HEAD &&
    run gcloud compute tpus tpu-vm scp "$archive" "$name:vla_jax.tar.gz" "${place[@]}" --worker=all --quiet &&
    on all "set -e
$end_run
sudo apt-get -qq update
sudo apt-get -qq install -y nfs-common
sudo mkdir -p /mnt/shared
mountpoint -q /mnt/shared || sudo mount -t nfs $(quoted "$shared") /mnt/shared
rm -rf vla_jax
mkdir vla_jax
tar -xzf vla_jax.tar.gz -C vla_jax
python3 -m pip install -q --user uv
~/.local/bin/uv venv -q --python=3.12 vla_jax/.venv
~/.local/bin/uv pip install -q --python=vla_jax/.venv/bin/python -e './vla_jax[tpu]'"
}

# A service of systemd's, so that the run outlives a lost connection, and shutting down sends it SIGTERM.
train() {
  make_training
  on all "$end_run
sudo systemd-run --unit=vla_jax --collect --wait --pipe --quiet --uid=\$USER \
--working-directory=\$HOME/vla_jax --property=KillMode=mixed --property=TimeoutStopSec=300 \
\$HOME/vla_jax/.venv/bin/python $(quoted "${training[@]}")"
}

stop() {
  on all 'sudo systemctl stop vla_jax'
}

finished() {
  on 0 "test -f $(quoted "$workdir/summary.json")"
}

# Sets `state` to the queued resource's. A dry run takes what is created for ready.
look() {
  local describe=(gcloud compute tpus queued-resources describe "$name" "${place[@]}" "--format=value(state.state)")
  if [ "$dry_run" = yes ]; then
    run "${describe[@]}"
    [ "$created" = yes ] && state=ACTIVE || state=ABSENT
  elif ! state=$("${describe[@]}" 2>&1); then
    case $state in
      *NOT_FOUND*) state=ABSENT ;;
      *) echo "$state" >&2 && state=UNKNOWN ;;
    esac
  fi
}

# A TPU that stays while the run fails on it three times is not to blame.
keep() {
  local failures=0
  make_training
  require --type "$type" --runtime "$runtime" --shared "$shared"
  while [ "$failures" -lt 3 ]; do
    look
    case $state in
      ABSENT) create ;;
      ACTIVE)
        if setup && train && finished; then
          return
        fi
        sleep "$poll"
        look
        [ "$state" = ACTIVE ] && failures=$((failures + 1)) || failures=0
        ;;
      SUSPENDED) delete && create ;;
      FAILED)
        echo "error: the request for $name failed; look at it, and delete it: $0 delete" >&2
        return 1
        ;;
      *) sleep "$poll" ;;
    esac
  done
  echo "error: the run failed three times, and $name was there all the time; it is not given back" >&2
  return 1
}

action=${1:---help}
[ $# -eq 0 ] || shift
for flag; do
  case $flag in
    --name=*) name=${flag#*=} ;;
    --zone=*) zone=${flag#*=} ;;
    --project=*) project=${flag#*=} ;;
    --type=*) type=${flag#*=} ;;
    --runtime=*) runtime=${flag#*=} ;;
    --shared=*) shared=${flag#*=} ;;
    --poll=*) poll=${flag#*=} ;;
    --on-demand) spot= ;;
    *) take_flag "$flag" ;;
  esac
done
case $action in
  keep | create | setup | train | stop | delete) require --name "$name" --zone "$zone" ;;
  -h | --help) take_flag "$action" ;;
  *) fail "unknown action '$action'; see $0 --help" ;;
esac
place=(--zone="$zone" ${project:+--project="$project"})
created=no
"$action"
