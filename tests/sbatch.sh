#!/usr/bin/env bash
# Tries slurm/rankpool.sbatch in the Slurm that tests/slurm.sh started, with the program that RANKPOOL names.
set -euo pipefail

top=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)
work=$(mktemp -d "${TMPDIR:-/tmp}/rankpool-sbatch.XXXXXX")
trap 'rm -rf "$work"' EXIT
# A relative name of a file means the folder of submission, which is not the repository here.
cd "$work"
failures=0

# submit NAME EXPECTED-CODE SBATCH-OPTIONS… -- RANKPOOL-ARGUMENTS…
submit() {
  local name=$1 expected=$2 options=() status=0
  shift 2
  while [ "$1" != -- ]; do
    options+=("$1")
    shift
  done
  shift
  printf '%s: ' "$name"
  sbatch --quiet --wait --output="$work/log" --open-mode=truncate "${options[@]}" \
    "$top/slurm/rankpool.sbatch" "$@" || status=$?
  if [ "$status" = "$expected" ]; then
    echo ok
  else
    printf 'FAILED: code %s, not %s; the log:\n' "$status" "$expected"
    cat "$work/log"
    failures=$((failures + 1))
  fi
}

for nodes in 1 2 3; do
  submit "a rank on each of $nodes node(s)" 0 --nodes="$nodes" -- info
  if ! grep -q "^$nodes rank(s)" "$work/log"; then
    echo "FAILED: not $nodes rank(s):"
    cat "$work/log"
    failures=$((failures + 1))
  fi
done
submit 'results in a file' 0 --nodes=3 -- kernel square --output squares.jsonl
if [ "$(tr '\n' ' ' <squares.jsonl)" != '0 1 4 9 16 25 36 49 64 81 ' ]; then
  echo 'FAILED: these are not the squares:'
  cat squares.jsonl
  failures=$((failures + 1))
fi
submit 'a command for every record' 0 --nodes=3 -- run --range 1:30 --records jobs.jsonl --output out.txt -- echo {}
if [ "$(tr '\n' ' ' <out.txt)" != "$(seq 30 | tr '\n' ' ')" ] || [ "$(wc -l <jobs.jsonl)" != 30 ]; then
  echo 'FAILED: these are not the numbers, or not their records:'
  cat out.txt jobs.jsonl
  failures=$((failures + 1))
fi
echo 'def twice(x): return 2 * x' >twice.py
submit 'a Python function for every record' 0 --nodes=2 -- map --python twice.py:twice --range 1:5 --output twice.jsonl
if [ "$(tr '\n' ' ' <twice.jsonl)" != '2 4 6 8 10 ' ]; then
  echo 'FAILED: these are not the doubles:'
  cat twice.jsonl
  failures=$((failures + 1))
fi
submit 'wrong usage is told' 2 --nodes=2 -- kernel nosuch
# Slurm looks at time limits about every half minute; the job would take ten.
submit 'a warning before the time is up ends in good order' 75 --nodes=3 --time=1 --signal=B:TERM@50 -- \
  kernel sleep --jobs 10000 --seconds 0.2 --output /dev/null
exit $((failures > 0))
