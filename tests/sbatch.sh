#!/usr/bin/env bash
# Tries slurm/rankpool.sbatch and slurm/rankpool.pbs in the Slurm that tests/slurm.sh started, with the program that RANKPOOL
# names and its MPI: runs that are cut short, killed, cancelled and put back into the queue must give what an undisturbed run gives.
#
#   RANKPOOL=target/openmpi/release/rankpool tests/slurm.sh bash tests/sbatch.sh [--short] [WORDS]
#
# --short runs the tests that take a few seconds; WORDS only those with these words in their names.
# shellcheck disable=SC2016  # jobs that are shell scripts are written with single quotes
set -euo pipefail

top=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)
short=no
if [ "${1:-}" = --short ]; then
  short=yes
  shift
fi
only=${*:-}
work=$(mktemp -d "${TMPDIR:-/tmp}/rankpool-sbatch.XXXXXX")
trap 'rm -rf "$work"' EXIT
trap 'exit 130' INT TERM
flavour=$(sed -n 's/^RANKPOOL_MPI_FLAVOUR=//p' "$(dirname "$RANKPOOL")/../mpi.env")
count=0
failures=0

### What a test says

complain() {
  printf '    %s\n' "$*"
  bad=yes
}

# wait_until SECONDS WHAT COMMAND…: waits until the command succeeds.
wait_until() {
  local tenths=$(($1 * 10)) what=$2
  shift 2
  until "$@"; do
    tenths=$((tenths - 1))
    if [ "$tenths" -le 0 ]; then
      complain "waited in vain until $what"
      return 0
    fi
    sleep 0.1
  done
}

# The jobs of most tests: each says that it runs, in the file `ran`, takes the time that is in the file `nap`, and prints two
# lines. From number 31 on they do not end while the file `gate` is there.
job=(run --range 1:60 --output out -- sh job.sh '{}')
job_script='
echo "$1" >>ran
sleep "$(cat nap)"
while [ "$1" -gt 30 ] && [ -e gate ]; do sleep 0.1; done
echo "the result of $1"
echo $(($1 * $1))'
results() { seq 60 | awk '{ print "the result of " $1; print $1 * $1 }'; }

# begin SBATCH-OPTIONS… -- ARGUMENTS…: submits it, and sets `id`.
begin() {
  local options=()
  while [ "$1" != -- ]; do
    options+=("$1")
    shift
  done
  shift
  id=$(sbatch --parsable --output="$PWD/log" --nodes=3 "${options[@]}" "$top/slurm/rankpool.sbatch" "$@")
}
# Waits until the allocation is over: one that was put back into the queue is not.
over() { wait_until 150 'the allocation is over' is_over; }
is_over() { case $(field JobState) in PENDING | RUNNING | COMPLETING | REQUEUED | CONFIGURING | '') return 1 ;; esac; }
# finish CODE: waits for that, and for this exit code.
finish() {
  over
  [ "$(field ExitCode)" = "$1:0" ] || complain "the exit code is $(field ExitCode), not $1"
}
# submit CODE SBATCH-OPTIONS… -- ARGUMENTS…: both.
submit() {
  local code=$1
  shift
  begin "$@"
  finish "$code"
}
field() { scontrol show job "$id" | grep -o "$1=[^ ]*" | head -n 1 | cut -d= -f2; }
restarts() { [ "$(field Restarts)" = "$1" ] || complain "it was put back into the queue $(field Restarts) times, not $1"; }
half_have_run() { [ "$(wc -l <ran)" -ge 31 ]; }
# Results are written within 0.2 s. A kill before that would cost more jobs than those that run.
many_are_saved() {
  local settled
  settled=$("$RANKPOOL" journal show ./*.journal 2>/dev/null | sed -n 's/^settled: \([0-9]*\) .*/\1/p')
  [ "${settled:-0}" -ge 22 ]
}
# Begins it, and returns when half of the jobs have run, their results are saved, and the others wait at the gate.
begin_half() {
  touch gate
  begin "$@"
  wait_until 60 'half of the jobs have run' half_have_run
  wait_until 60 'the finished jobs are saved' many_are_saved
}
# The output is that of the undisturbed run, and no more than so many jobs were run twice.
whole() {
  local again=$(($(wc -l <ran) - $(sort -u ran | wc -l)))
  cmp -s out <(results) || complain "the output is not that of the undisturbed run: $(diff out <(results) | head -n 5)"
  [ "$again" -le "$1" ] || complain "$again jobs were run again, more than the $1 that may have been running"
}
# Three ranks with two threads each, and two jobs of each thread.
at_most_twice=12

# Prints the process of a rank. (Its spawn helper is the same program, but its child.)
rank_process() {
  local pid parent
  for pid in $(pgrep -f "^$RANKPOOL run "); do
    parent=$(awk '/^PPid/ { print $2 }' "/proc/$pid/status") || continue
    if [[ $(tr '\0' ' ' <"/proc/$parent/cmdline") != "$RANKPOOL"* ]] &&
      [[ " $(tr '\0' ' ' <"/proc/$pid/environ")" =~ \ (OMPI_COMM_WORLD_RANK|PMI_RANK|PMIX_RANK)=$1\  ]]; then
      printf '%s\n' "$pid"
      return
    fi
  done
  return 1
}
kill_rank() {
  local pid
  if pid=$(rank_process "$1"); then kill -KILL "$pid"; else complain "there is no rank $1"; fi
}

# test_case short|long NAME FUNCTION ARGUMENTS…: runs the function in an empty folder. (A relative name of a file means the
# folder of submission, which is not the repository here.)
test_case() {
  local length=$1 name=$2 start=$SECONDS
  shift 2
  [ "$length" = short ] || [ "$short" = no ] || return 0
  [[ $name == *"$only"* ]] || return 0
  count=$((count + 1))
  bad=no
  rm -rf "$work/here"
  mkdir "$work/here"
  cd "$work/here"
  printf '%s\n' "$job_script" >job.sh
  echo 0.02 >nap
  : >ran
  "$@"
  if [ "$bad" = no ]; then
    printf '%s: ok (%s s)\n' "$name" $((SECONDS - start))
  else
    printf '%s: FAILED; the log:\n' "$name"
    sed 's/^/    | /' log* || true
    failures=$((failures + 1))
    scancel --user="$(id -un)" || true
  fi
  cd "$work"
}

### The tests

a_rank_on_each_node() {
  submit 0 --nodes="$1" -- info
  grep -q "^$1 rank(s)" log || complain "these are not $1 ranks"
}
test_case long 'a rank on one node' a_rank_on_each_node 1
test_case short 'a rank on each of three nodes' a_rank_on_each_node 3

undisturbed() {
  submit 0 -- "${job[@]}"
  restarts 0
  whole 0
}
test_case short 'an undisturbed run' undisturbed

killed() {
  begin_half -- "${job[@]}"
  "$@"
  rm -f gate
  finish 0
  restarts 0
  whole "$at_most_twice"
}
test_case short 'a killed rank: it goes on in the same allocation' killed kill_rank 1
test_case long 'a killed rank 0' killed kill_rank 0
kill_launcher() {
  local pid
  # It is the child of the batch script that has rankpool's arguments.
  pid=$(pgrep -f "^(/[^ ]*/)?(srun|mpiexec[^ ]*) .*$RANKPOOL run" | head -n 1)
  kill -KILL "$pid" || complain 'there is no launcher'
}
test_case long 'a killed launcher' killed kill_launcher

warned() {
  begin_half -- "${job[@]}"
  # What Slurm sends when the time is nearly up.
  scancel --batch --signal=TERM "$id"
  rm -f gate
  finish 0
  restarts 1
  whole "$at_most_twice"
}
test_case short 'warned: back into the queue, and finished there' warned

is_back() { [ "$(field Restarts)" = 1 ]; }
time_limit() {
  begin_half --time=1 --signal="B:TERM@$1" -- "${job[@]}"
  wait_until 90 'it is back in the queue' is_back
  rm -f gate
  finish 0
  [ "$(field Restarts)" -ge 1 ] || complain 'its time limit did not cut it'
  whole "$at_most_twice"
}
test_case long 'warned of its time limit: back into the queue, and finished there' time_limit 50
# Slurm's warning comes too late: rankpool knows the time by itself.
test_case long 'without a warning of its time limit: the same' time_limit 1

signalled() {
  begin_half -- "${job[@]}"
  # To the ranks, and not to the script.
  scancel --signal="$1" "$id"
  rm -f gate
  finish 0
  restarts 0
  whole "$at_most_twice"
}
test_case long 'scancel --signal=TERM: it goes on in the same allocation' signalled TERM
test_case long 'scancel --signal=USR2: it goes on in the same allocation' signalled USR2

ended() {
  begin_half -- "${job[@]}"
  scancel "$@" "$id"
  rm -f gate
  over
  restarts 0
  [ ! -e out ] || complain 'there is an output'
  submit 0 -- "${job[@]}"
  whole "$at_most_twice"
}
test_case long 'scancel: not put back into the queue; submitted again, it goes on' ended
test_case long 'scancel --batch --signal=INT: the same' ended --batch --signal=INT

nothing_is_queued() { [ -z "$(squeue --noheader --name=rankpool)" ]; }
array() {
  id=$(sbatch --parsable --output="$PWD/log-%a" --nodes=1 --array=1-3 "$top/slurm/rankpool.sbatch" \
    run --range 1:5 --output 'out-{array}' -- sh -c 'echo "$0 $1"' '{array}' '{}')
  wait_until 60 'the array is over' nothing_is_queued
  for task in 1 2 3; do
    cmp -s "out-$task" <(seq 5 | sed "s/^/$task /") || complain "task $task has another output"
  done
}
test_case long 'an array: a run for each task' array

functions() {
  submit 0 -- kernel square --output squares.jsonl
  [ "$(tr '\n' ' ' <squares.jsonl)" = '0 1 4 9 16 25 36 49 64 81 ' ] || complain "these are not the squares: $(cat squares.jsonl)"
  echo 'def twice(x): return 2 * x' >twice.py
  submit 0 --nodes=2 -- map --python twice.py:twice --range 1:5 --output twice.jsonl
  [ "$(tr '\n' ' ' <twice.jsonl)" = '2 4 6 8 10 ' ] || complain "these are not the doubles: $(cat twice.jsonl)"
}
test_case long 'a built-in function, a Python function' functions

# A script runs once, and its jobs on the nodes: srun starts a rank on each.
script() {
  [ "$flavour" = mpich ] || local -x RANKPOOL_LAUNCHER='srun -K1 --mpi=pmix --cpu-bind=none'
  cat >script.py <<'SCRIPT'
import os, sys, time
from rankpool import Executor

def node(path):
    # Until a job has run on each node.
    open(os.path.join(path, os.environ["SLURMD_NODENAME"]), "w").close()
    deadline = time.monotonic() + 60
    while len(os.listdir(path)) < 2 and time.monotonic() < deadline:
        time.sleep(0.01)
    return os.environ["SLURMD_NODENAME"]

if __name__ == "__main__":
    os.mkdir("nodes")
    with Executor() as executor:
        seen = set(executor.map(node, ["nodes"] * 20, chunksize=1))
        print(len(seen), "nodes, for", sys.argv[1:])
SCRIPT
  submit 0 --nodes=2 -- python script.py run --journal x
  [ "$(grep -cFx "2 nodes, for ['run', '--journal', 'x']" log)" = 1 ] ||
    complain 'these are not the jobs of a script on two nodes'
}
test_case short 'a Python script on two nodes, started by srun' script

codes() {
  submit 2 --nodes=2 -- kernel nosuch
  submit 3 --nodes=2 -- run --range 1:3 --output out -- sh -c 'exit 1'
}
test_case long 'exit codes' codes

# With Open MPI mpiexec is the default, with MPICH srun; each once with the other one.
other_launcher() {
  case $flavour in
    openmpi) local -x RANKPOOL_LAUNCHER='srun -K1 --mpi=pmix --cpu-bind=none' ;;
    mpich) local -x RANKPOOL_LAUNCHER='mpiexec.mpich -ppn 1' ;;
  esac
  a_rank_on_each_node 3
  "$@"
}
test_case long 'the other launcher: a killed rank' other_launcher killed kill_rank 1
test_case long 'the other launcher: warned' other_launcher warned

### The script for PBS, through the qsub of slurm-wlm-torque

# pbs SETTING… -- ARGUMENTS…: submits it; `id` is its number.
pbs() {
  sed 's/select=2:ncpus=32/select=3:ncpus=2/' "$top/slurm/rankpool.pbs" >my.pbs
  grep -q 'select=3:ncpus=2' my.pbs || complain 'the script has no line to edit'
  id=$(RANKPOOL_ARGS=$* qsub -V my.pbs | tail -n 1)
}
pbs_undisturbed() {
  pbs "${job[@]}"
  wait_until 60 'it is over' nothing_is_queued
  cat ./*.[oe][0-9]* >log 2>/dev/null || true
  [ "$(field ExitCode)" = 0:0 ] || complain "the exit code is $(field ExitCode)"
  whole 0
}
pbs_killed() {
  local first
  touch gate
  # With so little time left for another try it submits itself again.
  RANKPOOL_MARGIN=100000 pbs "${job[@]}"
  first=$id
  wait_until 60 'half of the jobs have run' half_have_run
  wait_until 60 'the finished jobs are saved' many_are_saved
  kill_rank 1
  rm -f gate
  wait_until 60 'it is over' nothing_is_queued
  cat ./*.[oe][0-9]* >log 2>/dev/null || true
  [ "$(field ExitCode)" != 0:0 ] || complain 'the first allocation has exit code 0'
  id=$((first + 1))
  [ "$(field ExitCode)" = 0:0 ] || complain "the exit code of the second allocation is $(field ExitCode)"
  whole "$at_most_twice"
}
if command -v qsub >/dev/null; then
  test_case long 'PBS: an undisturbed run' pbs_undisturbed
  test_case long 'PBS: a killed rank, and submitted again by itself' pbs_killed
elif [ "$short" = no ]; then
  echo 'the script for PBS: skipped, because there is no qsub (slurm-wlm-torque)'
fi

printf '%s tests with %s, %s failed\n' "$count" "$flavour" "$failures"
[ "$failures" = 0 ] && [ "$count" -gt 0 ]
