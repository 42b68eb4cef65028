# shellcheck shell=bash
# What the launchers share, to be sourced: errors of one line, a dry run, and the training command.

dry_run=no
config=
workdir=
overrides=()

fail() {
  echo "error: $*" >&2
  exit 2
}

# The comment at the top of a script, which is its manual.
usage() {
  sed -n '1d; /^#SBATCH/d; /^#/!q; s/^# \{0,1\}//p' "$1"
}

# The words as one could type them: those that need quotes get them.
quoted() {
  local word line=
  for word; do
    case $word in
      '' | *[!A-Za-z0-9_./:=,@%+-]*) word="'${word//\'/\'\\\'\'}'" ;;
    esac
    line+="${line:+ }$word"
  done
  printf '%s\n' "$line"
}

# Runs a command; in a dry run, prints it.
run() {
  if [ "$dry_run" = yes ]; then quoted "$@"; else "$@"; fi
}

# Takes a flag that every launcher has.
take_flag() {
  case $1 in
    --dry-run) dry_run=yes ;;
    --config=*) config=${1#*=} ;;
    --workdir=*) workdir=${1#*=} ;;
    --config.*=*) overrides+=("$1") ;;
    -h | --help) usage "$0" && exit ;;
    *) fail "unknown argument '$1'; see $0 --help" ;;
  esac
}

# Refuses flags without a value: require NAME VALUE ...
require() {
  while [ $# -gt 0 ]; do
    [ -n "$2" ] || fail "$1 is missing; see $0 --help"
    shift 2
  done
}

# What `python` is to be called with, in the array `training`.
make_training() {
  require --config "$config" --workdir "$workdir"
  [ -f "$config" ] || fail "--config=$config: there is no such file in $PWD"
  case $workdir in
    *://*) fail "--workdir=$workdir is an object store; the trainer needs a folder (docs/launch.md)" ;;
    /*) ;;
    *) fail "--workdir=$workdir: give an absolute path, the same on every host" ;;
  esac
  # shellcheck disable=SC2034  # read by the launchers
  training=(-m vla_jax.train "--config=$config" "--workdir=$workdir" ${overrides[@]+"${overrides[@]}"})
}
