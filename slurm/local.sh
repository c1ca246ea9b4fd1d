#!/usr/bin/env bash
# Sets everything up on one machine and runs rankpool there: finds or installs an MPI, builds, starts the ranks.
# It needs only a Rust toolchain (cargo); it is tested on Debian and Ubuntu.
set -euo pipefail

top=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)

usage() {
  cat <<'END'
Usage: slurm/local.sh [-n RANKS] [--mpi openmpi|mpich] [--build-only] [RANKPOOL ARGUMENTS…]

Finds an MPI on this machine or installs one (with apt-get as root, else under target/ without root), builds rankpool
and runs it on RANKS ranks. Without arguments for rankpool it runs the main job: the density of 10 000 samples at the
origin by Parzen windows of twelve widths. Then it measures the same kind of sweep in plain Python, with 100 widths, on one
rank and on all of them, and says where it has put a picture and a report of that. The exit code is rankpool's.

  -n RANKS       how many ranks (4)
  --mpi FLAVOUR  openmpi or mpich (whatever is found first)
  --build-only   stop when the program is built, and print where it is

Examples:
  slurm/local.sh                                         the main job on 4 ranks
  slurm/local.sh -n 2 --mpi mpich                        the same on 2 ranks with MPICH
  slurm/local.sh kernel slow-fn                          a heavier built-in function
  slurm/local.sh -n 8 kernel nop --jobs 100000           the cost of the pool itself
  slurm/local.sh --help; slurm/local.sh -- --help        this text; rankpool's own

A machine with several MPIs: MPICC=/path/to/mpicc slurm/local.sh. On a cluster's compute nodes use
slurm/rankpool.sbatch or slurm/rankpool.pbs; `slurm/local.sh --build-only` builds the program for them.
END
}

misuse() {
  printf 'local.sh: %s\nTry: slurm/local.sh --help\n' "$1" >&2
  exit 2
}

ranks=4
flavour=any
build_only=no
while [ $# -gt 0 ]; do
  case $1 in
    -h | --help)
      usage
      exit 0
      ;;
    -n | --mpi)
      [ $# -ge 2 ] || misuse "$1 needs a value"
      if [ "$1" = -n ]; then ranks=$2; else flavour=$2; fi
      shift 2
      ;;
    --build-only)
      build_only=yes
      shift
      ;;
    --)
      shift
      break
      ;;
    -*) misuse "no such option: $1 (put options for rankpool after --)" ;;
    # The first word that is not an option is rankpool's subcommand; it and the rest are rankpool's arguments.
    *) break ;;
  esac
done
[[ $ranks =~ ^[1-9][0-9]*$ ]] || misuse "-n takes a number of ranks, not '$ranks'"
case $flavour in any | openmpi | mpich) ;; *) misuse "--mpi is openmpi or mpich, not '$flavour'" ;; esac

is_main=no
if [ $# -eq 0 ]; then
  is_main=yes
  set -- kernel parzen --samples "$top/tests/data/gaussian_2d.csv" --point 0,0 --widths 0.1:1.2:12
fi

# shellcheck source=slurm/mpi.sh
source "$top/slurm/mpi.sh"
mpi_setup "$flavour"

printf 'local.sh: building (the first time takes some minutes)\n' >&2
# cargo runs in the repository, so that its settings apply; the job runs in the current folder, so that relative names of
# files are found.
(cd "$top" && cargo build --release --locked)
program=$CARGO_TARGET_DIR/release/rankpool
if [ "$build_only" = yes ]; then
  printf '%s\n' "$program"
  exit 0
fi
if [ -z "$RANKPOOL_MPIEXEC" ]; then
  printf 'local.sh: error: rankpool is built (%s), but this MPI has no mpiexec.\n' "$program" >&2
  printf 'local.sh:   On a cluster submit slurm/rankpool.sbatch; else set MPIEXEC to the launcher.\n' >&2
  exit 1
fi

# The variable holds several words.
read -r -a flags <<<"$RANKPOOL_MPIEXEC_FLAGS"
printf 'local.sh: %s -n %s %s %s %s\n' "$RANKPOOL_MPIEXEC" "$ranks" "${flags[*]}" "$program" "$*" >&2
launch=("$RANKPOOL_MPIEXEC" -n "$ranks" "${flags[@]}" "$program")
[ "$is_main" = yes ] || exec "${launch[@]}" "$@"
"${launch[@]}" "$@"

# What many ranks are good for: a sweep of a tutorial in Python, on one rank and on all of them.
if ! command -v python3 >/dev/null; then
  printf 'local.sh: there is no python3, so the sweep in Python is left out.\n' >&2
  exit 0
fi
work=(map --python "$top/examples/python/parzen_plain.py:density" --range 0.012:1.2:0.012)
shown="$top/target/local"
mkdir -p "$shown"
printf 'local.sh: the density at a point by 100 windows, in plain Python, on 1 rank and on %s\n' "$ranks" >&2
"$program" --quiet bench --launcher "$RANKPOOL_MPIEXEC -n {} ${flags[*]}" --counts "1,$ranks" --each 0.05 --svg "$shown/parzen.svg" "${work[@]}"
rm -f "$shown/parzen.jsonl"
"${launch[@]}" --quiet --output "$shown/parzen.txt" "${work[@]}" --records "$shown/parzen.jsonl"
"$program" report "$shown/parzen.jsonl" -o "$shown/report.html"
printf 'local.sh: the picture is %s, the report of a run is %s (open it in a browser)\n' "$shown/parzen.svg" "$shown/report.html" >&2
