#!/usr/bin/env bash
# Tests what slurm/rankpool.sbatch and slurm/rankpool.pbs do when a run is stopped, a launcher dies or the time is up: with a
# pretended rankpool, launcher, Slurm and PBS, so that everything can be made to happen, in seconds and without MPI.
#
#   tests/scripts.sh [WORDS]        only the tests with these words in their names
#
# The pretended rankpool takes its fate from the file `plan`, a line for each start:
#   N CODE      does N more jobs and ends with CODE, which is what its launcher says
#   all CODE    does all that are left, which makes the run complete, and ends with CODE (with 3 they have failed)
#   N wait      does N more jobs, then waits for a signal and ends with 75
#   N deaf      the same, but does not end at a signal
#   none CODE   does not even open its journal, as a launcher that fails at once
# Its jobs are the numbers 1 to 10. Its journal is their list; its output is made of the journal when that is whole.

# Functions that a test calls look unreachable to shellcheck, and the pretended programs are written with single quotes.
# shellcheck disable=SC2317,SC2016
set -euo pipefail

top=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)
only=${*:-}
work=$(mktemp -d "${TMPDIR:-/tmp}/rankpool-scripts.XXXXXX")
alive=
# A test that fails may leave its script and the pretended programs, which have the path of this folder in their commands.
tidy() {
  pkill -KILL -f "$work/" || true
  rm -rf "$work"
}
trap tidy EXIT
trap 'exit 130' INT TERM
failures=0
count=0

### The pretended programs

mkdir -p "$work/bin" "$work/target/openmpi/release"
# By the path of the program the scripts find what they have in common.
ln -s "$top/slurm" "$work/slurm"
put() {
  { printf '#!/usr/bin/env bash\n' && cat; } >"$1"
  chmod +x "$1"
}
put "$work/target/openmpi/release/rankpool" <<'FAKE'
if [ "$1" = journal ]; then
  [ "$2" = show ] && [ -r "$3" ] || exit 1
  if [ "$(tail -n 1 "$3" | cut -c1-8)" = complete ]; then echo 'complete: yes'; else echo 'complete: no'; fi
  echo "settled: $(grep -c '^[0-9]' "$3") job(s), $(grep -c '^[0-9]* failed' "$3") of them failed"
  if [ -e "$FAKE/held" ]; then sed -i 1d "$FAKE/held"; fi
  if [ -s "$FAKE/held" ]; then echo 'in use: yes'; else echo 'in use: no'; fi
  exit
fi
printf '%s\n' "$*" >>"$FAKE/starts"
journal=
output=
while [ $# -gt 0 ] && [ "$1" != -- ]; do
  case $1 in
    --journal) journal=$2 ;;
    --journal=*) journal=${1#*=} ;;
    --output) output=$2 ;;
    --output=*) output=${1#*=} ;;
  esac
  shift
done
read -r jobs fate <"$FAKE/plan" || exit 99
sed -i 1d "$FAKE/plan"
if [ -z "$journal" ] || [ "$jobs" = none ]; then exit "$fate"; fi
echo 'opened' >>"$journal"
have=$(grep -c '^[0-9]' "$journal")
[ "$jobs" != all ] || jobs=$((10 - have))
for job in $(seq $((have + 1)) $((have + jobs))); do echo "$job$([ "$fate" != 3 ] || echo ' failed')" >>"$journal"; done
if [ $((have + jobs)) = 10 ]; then
  [ -z "$output" ] || grep -o '^[0-9]*' "$journal" >"$output"
  echo complete >>"$journal"
fi
case $fate in
  wait)
    trap 'exit 75' USR2
    trap 'exit "${FAKE_TERM:-75}"' TERM
    ;;
  deaf) trap '' TERM USR2 ;;
  *) exit "$fate" ;;
esac
touch "$FAKE/waiting"
while :; do /bin/sleep 0.02; done
FAKE
put "$work/bin/mpiexec" <<'FAKE'
[ "$1" != --version ] || { echo 'mpiexec (Open MPI) 0.0'; exit; }
while [ "${1##*/}" != rankpool ]; do shift; done
# Open MPI kills the ranks at TERM, and hands on USR2.
FAKE_TERM=143 exec "$@"
FAKE
printf 'RANKPOOL_MPI_FLAVOUR=openmpi\nRANKPOOL_MPIEXEC=%q\n' "$work/bin/mpiexec" >"$work/target/openmpi/mpi.env"
# The pause between two tries is over at once.
put "$work/bin/sleep" <<'FAKE'
[ "$1" != 2 ] || exit 0
[ ! -e "$FAKE/quick" ] || { echo "$1" >>"$FAKE/naps"; exit; }
exec /bin/sleep "$@"
FAKE
put "$work/bin/scontrol" <<'FAKE'
case $1 in
  show) echo "   Command=$FAKE_SCRIPT" ;;
  requeue)
    [ ! -e "$FAKE/refuse" ] || { echo 'scontrol: disabled' >&2; exit 1; }
    echo "$2" >>"$FAKE/requeued"
    ;;
esac
FAKE
put "$work/bin/squeue" <<'FAKE'
case $* in
  *%T*) cat "$FAKE/state" ;;
  *%e*) if [ -s "$FAKE/left" ]; then date --date="$(cat "$FAKE/left") seconds" +%FT%T; else echo N/A; fi ;;
esac
FAKE
put "$work/bin/scancel" <<'FAKE'
echo "$*" >>"$FAKE/scancelled"
FAKE
put "$work/bin/qstat" <<'FAKE'
printf 'Job Id: 7.server\n    Job_Name = rankpool\n    Resource_List.select = 2:ncpus=32:mpip\n\trocs=1\n'
printf '    Resource_List.place = scatter:excl\n    Account_Name = pi\n'
[ ! -s "$FAKE/left" ] || printf '    Resource_List.walltime = 00:00:%s\n\n' "$(cat "$FAKE/left")"
FAKE
put "$work/bin/qsub" <<'FAKE'
[ ! -e "$FAKE/refuse" ] || { echo 'qsub: not from here' >&2; exit 1; }
echo "$*" >>"$FAKE/requeued"
env | grep -a '^RANKPOOL_' >"$FAKE/given"
FAKE
PATH=$work/bin:$PATH
# Nothing of an allocation that the tests run in.
for name in "${!SLURM_@}" "${!PBS_@}" "${!RANKPOOL_@}"; do unset "$name"; done

### What a test says

# Begins an allocation: `plan LINE…`; `left SECONDS` says how long it lasts.
plan() { printf '%s\n' "$@" >plan; }
left() { echo "$1" >left; }

# What Slurm and PBS set.
settings() {
  export FAKE=$PWD RANKPOOL=$work/target/openmpi/release/rankpool FAKE_SCRIPT=$top/slurm/rankpool.sbatch
  if [ "$kind" = sbatch ]; then
    export SLURM_JOB_ID=7 SLURM_SUBMIT_DIR=$PWD SLURM_CPUS_ON_NODE=1 SLURM_JOB_CPUS_PER_NODE='1(x2)'
  else
    export PBS_JOBID=${number:-7}.server PBS_O_WORKDIR=$PWD PBS_NODEFILE=$PWD/nodes
    printf 'n1\nn1\nn2\n' >nodes
  fi
}

# The script as the scheduler runs it: a copy, in another place.
start() {
  cp "$top/slurm/rankpool.$kind" "$work/copy"
  exec "$work/copy" "$@"
}

# run EXPECTED-CODE ARGUMENTS…: one allocation.
run() {
  local expected=$1 status=0
  shift
  (settings && start "$@") >log 2>&1 </dev/null || status=$?
  [ "$status" = "$expected" ] || complain "the exit code is $status, not $expected"
}
# The same in the background, until the pretended rankpool waits; then `finish CODE` waits for its end.
begin() {
  local tries
  (settings && start "$@") >log 2>&1 </dev/null &
  alive=$!
  for tries in $(seq 500); do
    [ ! -e waiting ] || return 0
    /bin/sleep 0.02
  done
  complain "the program did not start in $tries tries"
}
signal() { kill "$1" "$alive" 2>/dev/null || complain "it has ended before $1"; }
finish() {
  local status=0
  wait "$alive" || status=$?
  alive=
  [ "$status" = "$1" ] || complain "the exit code is $status, not $1"
}

complain() {
  printf '    %s\n' "$*"
  bad=yes
}
lines() { if [ -e "$1" ]; then wc -l <"$1"; else echo 0; fi; }
starts() { [ "$(lines starts)" = "$1" ] || complain "the program was started $(lines starts) times, not $1"; }
requeued() { [ "$(lines requeued)" = "$1" ] || complain "it was put back $(lines requeued) times, not $1"; }
# The output is that of a run that nobody disturbed.
whole() { cmp -s "${1:-out}" <(seq 10) || complain 'the output is not whole'; }
no_output() { [ ! -e out ] || complain 'there is an output'; }
started_as() { grep -qxF -- "$1" starts || complain "it was not started as: $1, but as: $(cat starts || true)"; }
says() { grep -qF -- "$1" log || complain "it does not say: $1"; }

# test_case NAME: runs the function `case` for each of `kinds` in an empty folder.
test_case() {
  local name=$1 kind
  shift
  for kind in "${kinds[@]}"; do
    [[ "$kind: $name" == *"$only"* ]] || continue
    count=$((count + 1))
    bad=no
    rm -rf "$work/here"
    mkdir "$work/here"
    cd "$work/here"
    echo RUNNING >state
    "$@"
    if [ "$bad" = yes ]; then
      printf 'FAILED %s: %s; its log:\n' "$kind" "$name"
      sed 's/^/    | /' log
      failures=$((failures + 1))
    fi
    cd "$work"
  done
}
job=(kernel square --output out)
kinds=(sbatch pbs)

### The tests

complete_at_once() {
  plan 'all 0' 'all 0'
  run 0 "${job[@]}"
  starts 1 && requeued 0 && whole
  started_as 'kernel --journal out.journal --resume square --output out'
}
test_case 'a run that completes is started once' complete_at_once

failed_jobs() {
  plan 'all 3' 'all 3'
  run 3 "${job[@]}"
  starts 1 && requeued 0 && whole
}
test_case 'jobs that failed are an end, with exit code 3' failed_jobs

wrong_usage() {
  plan '0 2' 'all 0'
  run 2 "${job[@]}"
  starts 1 && requeued 0
}
test_case 'wrong usage is not tried again' wrong_usage

goes_on() {
  local code=$1
  plan "4 $code" "3 $code" 'all 0'
  run 0 "${job[@]}"
  starts 3 && requeued 0 && whole
}
for code in 75 1 137 255 0; do
  test_case "a run that ends with $code before it is complete goes on" goes_on "$code"
done

loses_jobs() {
  plan '4 0' '0 3' 'all 0'
  run 0 "${job[@]}"
  starts 3 && whole
}
test_case 'a run that ends with 3 before it is complete goes on' loses_jobs

some_failed() {
  plan '4 3' 'all 137'
  run 3 "${job[@]}"
  starts 2 && whole
  says 'the run is complete, although'
}
test_case 'jobs that failed are in the exit code, although the launcher was killed' some_failed

not_this_run() {
  plan 'all 0' 'none 1' 'none 1' 'all 0'
  run 0 "${job[@]}"
  # More inputs, perhaps.
  run 1 "${job[@]}"
  starts 3
}
test_case 'that an earlier run was complete is no success of this one' not_this_run

still_held() {
  # For the look at the start, the one after the first try, and two turns of waiting.
  printf 'held\n%.0s' 1 2 3 4 5 >held
  plan '4 137' 'all 0'
  run 0 "${job[@]}"
  starts 2 && whole
  says 'waiting for the ranks'
}
test_case 'it waits until the ranks of a dead launcher have let go of the journal' still_held

launcher_lies() {
  plan "all $1" 'all 0'
  run 0 "${job[@]}"
  starts 1 && requeued 0 && whole
}
test_case 'a complete run is a success, although its launcher ends with 1' launcher_lies 1
test_case 'a complete run is a success, although its launcher was killed' launcher_lies 137

no_progress() {
  plan '4 1' '0 1' '0 1' 'all 0'
  run 1 "${job[@]}"
  starts 3 && requeued 0 && no_output
  says out.journal
}
test_case 'two tries in a row without progress are the last ones' no_progress

never_a_success() {
  plan '0 0' '0 0' 'all 0'
  run 1 "${job[@]}"
  starts 2 && requeued 0 && no_output
}
test_case 'a launcher that says 0 and has done nothing is no success' never_a_success

one_bad_moment() {
  plan '0 1' '5 75' '0 1' 'all 0'
  run 0 "${job[@]}"
  starts 4 && whole
}
test_case 'one try without progress is forgiven' one_bad_moment

time_is_up() {
  left 59
  plan '4 75' 'all 0'
  run 75 "${job[@]}"
  starts 1 && requeued 1 && no_output
  run 0 "${job[@]}"
  starts 2 && requeued 1 && whole
}
test_case 'without time for another try it goes back into the queue, and goes on there' time_is_up

too_short() {
  left 59
  plan '0 75' 'all 0'
  run 75 "${job[@]}"
  starts 1 && requeued 0
  says 'more time'
}
test_case 'an allocation that has got nothing done is not repeated' too_short

tries_used_up() {
  plan '1 9' '1 9' '1 9' '1 9' '1 9' 'all 0'
  run 75 "${job[@]}"
  starts 5 && requeued 1
  rm -f requeued
  plan '1 9' '1 9' 'all 0'
  RANKPOOL_TRIES=2 run 75 "${job[@]}"
  starts 7 && requeued 1
}
test_case 'after five tries it goes back into the queue' tries_used_up

returns_used_up() {
  left 59
  plan '4 75' 'all 0'
  SLURM_RESTART_COUNT=20 RANKPOOL_TIMES=20 run 75 "${job[@]}"
  starts 1 && requeued 0
  says 'submit the same command again'
  plan '1 75' 'all 0'
  SLURM_RESTART_COUNT=20 RANKPOOL_TIMES=20 RANKPOOL_REQUEUES=21 run 75 "${job[@]}"
  requeued 1
}
test_case 'after twenty returns to the queue it stops' returns_used_up

refused() {
  left 59
  plan '4 75'
  touch refuse
  run 75 "${job[@]}"
  requeued 0
  says 'submit the same command again'
}
test_case 'a queue that refuses it is told, and how to go on' refused

ended_by_user() {
  plan '4 wait' 'all 0'
  begin "${job[@]}"
  [ "$1" != CANCELLED ] || echo CANCELLED >state
  signal "-$2"
  finish 75
  starts 1 && requeued 0 && no_output
}
test_case 'INT ends it for good' ended_by_user RUNNING INT
test_case 'a cancelled allocation is not put back into the queue' ended_by_user CANCELLED TERM

warned() {
  plan '4 wait' 'all 0'
  begin "${job[@]}"
  signal "-$1"
  finish 75
  starts 1 && requeued 1 && no_output
  says 'stopped early (75)'
  run 0 "${job[@]}"
  starts 2 && whole
}
test_case 'USR1 is a warning, too' warned USR1

warned_and_cancelled() {
  plan '4 deaf'
  begin "${job[@]}"
  signal -USR1
  until grep -q 'time is nearly up' log; do /bin/sleep 0.02; done
  signal -INT
  until grep -q 'asked to end' log; do /bin/sleep 0.02; done
  signal -USR1
  until [ "$(grep -c 'time is nearly up' log)" = 2 ]; do /bin/sleep 0.02; done
  pkill -KILL -P "$alive" -f "$work/target/openmpi/release/rankpool"
  finish 137
  starts 1 && requeued 0
}
test_case 'who ends it after the warning is obeyed' warned_and_cancelled

named_journal() {
  plan 'all 0'
  run 0 --threads 2 run --range 1:9 --journal mine --output out -- cat --resume --journal other
  starts 1 && whole
  started_as '--threads 2 run --resume --range 1:9 --journal mine --output out -- cat --resume --journal other'
}
test_case 'a journal that is named is used' named_journal

all_named() {
  plan 'all 0'
  run 0 map --resume --output=out --journal=mine -- cat
  started_as 'map --resume --output=out --journal=mine -- cat'
}
test_case 'what is there is not added again' all_named

no_output_named() {
  local named=$1
  shift
  plan '4 75' 'all 0'
  run 0 kernel square "$@"
  starts 2
  started_as "kernel --journal $named --resume square${*:+ $*}"
}
test_case 'without an output the journal has the number of the allocation' no_output_named rankpool-7.journal
test_case 'a device has no journal beside it' no_output_named rankpool-7.journal --output /dev/null

no_journal() {
  plan "0 $1" '0 0'
  run "$1" "${@:2}"
  starts 1 && requeued 0
  started_as "${*:2}"
}
test_case 'a command without jobs is run once, as it is' no_journal 0 info
test_case 'its exit code is passed on' no_journal 1 info --json
test_case 'nothing is written for a dry run' no_journal 0 run --range 1:3 --dry-run -- echo {}

# A script has words of its own, which may look like ours.
python_script() {
  plan "0 $1" '0 0'
  run "$1" "${@:2}"
  starts 1 && requeued 0
  started_as "${*:2}"
}
test_case 'a Python script is run once, and its words are its own' python_script 0 python s.py run --journal x --resume
test_case 'the exit code of a Python script is passed on' python_script 7 --threads 2 python --quiet s.py map --output x
test_case 'the same for a module' python_script 5 python --log-level=info -m run --journal x
test_case 'the same for a script whose name says nothing' python_script 5 python --log-level=info analyse --journal x
named_journal_of_script() {
  plan '4 75' "all $1"
  run "$1" python --journal mine --threads 2 s.py run --resume
  starts 2
  started_as 'python --resume --journal mine --threads 2 s.py run --resume'
}
test_case 'a Python script with a journal goes on' named_journal_of_script 0
test_case 'a Python script with a journal has its own exit code' named_journal_of_script 9

nothing_to_do() {
  plan 'all 0'
  run 2
  starts 0
}
test_case 'without arguments it says what is missing' nothing_to_do

bad_number() {
  plan 'all 0'
  RANKPOOL_TRIES=many run 2 "${job[@]}"
  starts 0
}
test_case 'a limit that is no number is wrong usage' bad_number

array_task() {
  plan 'all 0'
  SLURM_ARRAY_JOB_ID=5 SLURM_ARRAY_TASK_ID=3 PBS_ARRAY_INDEX=3 \
    run 0 run --seed '{array}' --output '{array}-{array}.txt' -- ./simulate --run '{array}' {}
  started_as 'run --journal 3-3.txt.journal --resume --seed 3 --output 3-3.txt -- ./simulate --run 3 {}'
  whole 3-3.txt
}
test_case 'each run of an array has its own files' array_task

kinds=(sbatch)
test_case 'TERM is the warning of Slurm' warned TERM
array_allocation() {
  left 59
  plan '4 75'
  SLURM_ARRAY_JOB_ID=5 SLURM_ARRAY_TASK_ID=3 run 75 kernel square
  started_as 'kernel --journal rankpool-5_3.journal --resume square'
  grep -qx 5_3 requeued || complain "not this run alone goes back: $(cat requeued)"
}
test_case 'only this run of an array is put back into the queue' array_allocation
put_back_already() {
  left 59
  plan '4 75'
  echo PENDING >state
  run 75 "${job[@]}"
  requeued 0
}
test_case 'what Slurm has put back is not put back again' put_back_already
step_launcher() {
  plan '4 wait'
  RANKPOOL_LAUNCHER='env' begin "${job[@]}"
  signal -TERM
  until [ -s scancelled ]; do /bin/sleep 0.02; done
  [ "$(cat scancelled)" = '--signal=TERM 7' ] || complain "scancel was called with $(cat scancelled)"
  pkill -TERM -P "$alive" -f "$work/target/openmpi/release/rankpool"
  finish 75
}
test_case 'ranks that srun has started are told by scancel' step_launcher

kinds=(pbs)
qdel() {
  left "$1"
  plan '4 wait' 'all 0'
  begin "${job[@]}"
  signal -TERM
  finish 75
  starts 1 && requeued "$2"
}
test_case 'TERM is qdel' qdel 59 0
test_case 'TERM is the end of the time, if there is none left' qdel 10 1
own_timer() {
  # Two minutes and a second.
  left 121
  plan '4 wait'
  begin "${job[@]}"
  finish 75
  starts 1 && requeued 1
}
test_case 'it warns itself two minutes before the end' own_timer
ends_its_timer() {
  # A number that is nobody else's.
  local nap=$((9000000 + $$))
  left $((nap + 120))
  plan 'all 0'
  run 0 "${job[@]}"
  ! pgrep -f "sleep $nap" >/dev/null || complain 'its timer is left running'
}
test_case 'its timer ends with it' ends_its_timer
submits_itself() {
  left 59
  plan '4 75' '3 75' 'all 0'
  RANKPOOL_ARGS='kernel square --output /dev/null' run 75
  started_as 'kernel --journal rankpool-7.journal --resume square --output /dev/null'
  [ "$(cat requeued)" = "-V -l select=2:ncpus=32:mpiprocs=1,place=scatter:excl,walltime=00:00:59 -A pi $work/copy" ] ||
    complain "qsub was called with: $(cat requeued)"
  # The next allocation has another number; what qsub was given leads to the same journal.
  local -x RANKPOOL_IDENTITY RANKPOOL_TIMES RANKPOOL_ARRAY
  RANKPOOL_IDENTITY=$(sed -n 's/^RANKPOOL_IDENTITY=//p' given)
  RANKPOOL_TIMES=$(sed -n 's/^RANKPOOL_TIMES=//p' given)
  RANKPOOL_ARRAY=$(sed -n 's/^RANKPOOL_ARRAY=//p' given)
  number=8 RANKPOOL_ARGS='kernel square --output /dev/null' run 75
  says 'return 2 of at most 20'
  [ "$(sort -u starts | wc -l)" = 1 ] || complain "the journals differ: $(cat starts)"
  [ "$(grep -c '^[0-9]' rankpool-7.journal)" = 7 ] || complain 'it did not go on'
}
test_case 'it submits itself with what it was given' submits_itself
waits_for_the_dead() {
  plan 'all 0' 'all 0' 'all 0'
  : >quick
  RANKPOOL_LAST=137 run 0 "${job[@]}"
  [ ! -s naps ] || complain 'it has waited for nothing'
  RANKPOOL_LAST=75 run 0 "${job[@]}"
  [ ! -s naps ] || complain 'it has waited, although the run before has closed its journal'
  RANKPOOL_LAST=137 run 0 "${job[@]}"
  grep -qE '^(60|61)$' naps || complain 'it has not waited'
}
test_case 'after a run that died it begins when the journal is a minute old' waits_for_the_dead

printf '%s tests, %s failed\n' "$count" "$failures"
[ "$failures" = 0 ] && [ "$count" -gt 0 ]
