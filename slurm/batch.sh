# shellcheck shell=bash
# What slurm/rankpool.sbatch and slurm/rankpool.pbs have in common. They read this file; it is no command of its own.
#
# It finds the program and its MPI, and runs the program until the run is complete: a run that was stopped early, or whose
# launcher died, is started again with --resume, in the same allocation while there is time for it, and then in the next one.
#
# The script that reads it sets these before:
#   script              its name, for messages
#   identity            a word that names this work in every allocation it gets: the number of the first one
#   array_index         the number of this task of an array (sbatch --array, qsub -J); empty without an array
# then, with the help of the functions here,
#   program             the path of rankpool
#   launch              the command that starts it on all nodes, an array
# and these functions:
#   seconds_left        prints how many seconds the allocation has left; nothing if that is unknown
#   ask_to_end          asks the running program to end in good order
#   put_back            puts the work into the queue for one more allocation; fails if that is not possible
#   clear_away          ends what a dead launcher has left running on the nodes
#
# Limits, changed with `RANKPOOL_TRIES=10 sbatch …`:
#   RANKPOOL_TRIES      how often the program is started in one allocation (5)
#   RANKPOOL_REQUEUES   how often the work is put back into the queue (20)
#   RANKPOOL_MARGIN     with fewer seconds than this left, it is not started again in this allocation (180)

: "${script:?}" "${identity:?}" "${array_index=}"
program=
launch=()

say() { printf '%s: %s\n' "$script" "$*" >&2; }

# Prints an error and exits with 2, rankpool's code for wrong usage.
fail() {
  say "error: $*"
  exit 2
}

tries=${RANKPOOL_TRIES:-5}
requeues=${RANKPOOL_REQUEUES:-20}
margin=${RANKPOOL_MARGIN:-180}
for number in "$tries" "$requeues" "$margin"; do
  [[ $number =~ ^[0-9]+$ ]] || fail "RANKPOOL_TRIES, RANKPOOL_REQUEUES and RANKPOOL_MARGIN are whole numbers, not '$number'"
done

### The program and its MPI

# find_program FOLDER…: prints the path of the program: $RANKPOOL if it is set, else the one that slurm/local.sh has built in
# one of these repositories, else the one in the PATH.
find_program() {
  local folder candidates=("${RANKPOOL:-}") candidate
  for folder in "$@"; do candidates+=("$folder"/target/{openmpi,mpich,.}/release/rankpool); done
  for candidate in "${candidates[@]}" "$(command -v rankpool || true)"; do
    if [ -n "$candidate" ] && [ -x "$candidate" ]; then
      realpath "$candidate"
      return
    fi
  done
  return 1
}

# Sets `flavour` to the program's MPI (openmpi or mpich), and `mpiexec` to its launcher; to nothing if there is none.
find_mpi() {
  local notes candidate found=
  flavour=
  mpiexec=
  # slurm/local.sh has written down the MPI; otherwise the library that the program loads shows it.
  notes=$(dirname "$program")/../mpi.env
  if [ -r "$notes" ]; then
    # shellcheck disable=SC1090  # a file that the build writes
    flavour=$(. "$notes" && printf '%s' "$RANKPOOL_MPI_FLAVOUR")
    # shellcheck disable=SC1090
    mpiexec=$(. "$notes" && printf '%s' "$RANKPOOL_MPIEXEC")
  else
    case $(ldd "$program") in
      *'libmpi.so.40 => not'* | *'libmpi.so.12 => not'* | *'libmpich.so.12 => not'*)
        fail "the MPI library of $program is not found: load the modules it was built with (EDIT 2)" ;;
      *libmpi.so.40*) flavour=openmpi ;;
      *libmpi.so.12* | *libmpich* | *libmpi_abi*) flavour=mpich ;;
      *) fail "$program is built without MPI (--no-default-features), or with one this script does not know" ;;
    esac
  fi
  # The launcher's version is checked, because the launcher of another MPI would start as many separate worlds of one rank.
  for candidate in "$mpiexec" mpiexec "mpiexec.$flavour"; do
    case $flavour:$("$candidate" --version 2>&1 || true) in
      openmpi:*'Open MPI'* | openmpi:*OpenRTE* | mpich:*HYDRA* | mpich:*Intel*)
        found=$(command -v "$candidate")
        break
        ;;
    esac
  done
  mpiexec=$found
}

### The arguments and the journal

# prepare WORD…: sets `arguments` to the words, and `journal` to the name of the file in which the run keeps what it has done.
# If the words do not name a journal, they get one: OUTPUT.journal beside --output OUTPUT, else rankpool-NUMBER.journal, with
# the number of the allocation. `journal` is empty for commands that keep none (rankpool info, a --dry-run), and for a Python
# script unless it is named: for `python --journal FILE script.py`, because it makes short jobs slower. `is_script` is yes or no.
prepare() {
  local word previous='' task='' place=0 output='' named='' resume='' added=()
  arguments=("$@")
  journal=
  is_script=no
  # {array} stands for the number of the task, so that the runs of an array can have different inputs and outputs.
  [ -z "$array_index" ] || arguments=("${arguments[@]//\{array\}/$array_index}")
  for word in "${arguments[@]}"; do
    # What follows `--` is the command of `rankpool run`.
    [ "$word" != -- ] || break
    # What follows a script is its own. The first word that is no option may be the value of one.
    if [ "$task" = python ]; then
      case "$word $previous" in
        -m\ * | -c\ * | *.py\ * | [!-]*\ --*=*) break ;;
        -* | *\ -*) ;;
        *) break ;;
      esac
    fi
    case $previous in
      --output | -o) output=$word ;;
      --journal) named=$word ;;
    esac
    previous=$word
    [ -n "$task" ] || place=$((place + 1))
    case $word in
      run | map | kernel | python) : "${task:=$word}" ;;
      --output=*) output=${word#*=} ;;
      --journal=*) named=${word#*=} ;;
      --resume) resume=yes ;;
      --dry-run | --help | -h) return 0 ;;
    esac
  done
  [ -n "$task" ] || return 0
  if [ "$task" = python ]; then
    is_script=yes
    [ -n "$named" ] || return 0
  fi
  journal=$named
  if [ -z "$journal" ]; then
    case $output in
      '' | - | /dev/*) journal=rankpool-$identity.journal ;;
      *) journal=$output.journal ;;
    esac
    added+=(--journal "$journal")
  fi
  # Without a journal there, this begins one, so it can always be said.
  [ -n "$resume" ] || added+=(--resume)
  # Directly behind the subcommand: options are accepted there, and it is in front of every `--`.
  arguments=("${arguments[@]:0:place}" "${added[@]}" "${arguments[@]:place}")
}

# Reads the journal, and sets
#   complete   yes or no: whether the run is complete. A launcher's exit code can be 0 although a node was lost, or 1 although
#              everything was done; only the journal knows.
#   in_use     yes or no: whether a run has it open
#   failed     how many jobs have failed
#   done_jobs  which is another text when more jobs have ended
#   stamp      which is another text when the file was written
look() {
  local settled
  stamp=$(stat --format='%s %y' "$journal" 2>/dev/null) || stamp=
  read -r complete in_use settled failed < <(timeout 600 "$program" journal show "$journal" 2>/dev/null | awk '
    /^complete: / && !complete { complete = $2 }
    /^in use: / && !in_use { in_use = $3 }
    /^settled: / && !settled { settled = $2; failed = $4 }
    END { print (complete ? complete : "no"), (in_use ? in_use : "no"), settled + 0, failed + 0 }')
  done_jobs="$settled $failed"
}

### The loop

# Set by a signal: `time` (the allocation ends soon: go on in another one) or `user` (the run is to end for good).
ending=
running=

# The scripts set this function as a trap: end_because time|user.
end_because() {
  # Who ends the run for good is right, whatever else was said.
  [ "$ending" = user ] || ending=$1
  case $1 in
    time) say 'the time is nearly up, or the nodes are needed for other work: ending in good order' ;;
    user) say 'asked to end: ending in good order' ;;
  esac
  [ -z "$running" ] || ask_to_end || true
}

# Runs the program once and sets `status` to the exit code of its launcher.
run_once() {
  say "${launch[*]} $program ${arguments[*]}"
  # In the background, because bash handles signals only between two commands or in `wait`.
  "${launch[@]}" "$program" "${arguments[@]}" &
  running=$!
  # A signal that came while it was being started.
  [ -z "$ending" ] || ask_to_end || true
  status=0
  wait "$running" || status=$?
  # A `wait` that a signal has interrupted did not return the exit code.
  while kill -0 "$running" 2>/dev/null; do wait "$running" || true; done
  wait "$running" && status=0 || status=$?
  running=
}

# Whether the allocation has enough time left for another start ($margin seconds), or its end is not known.
has_time() {
  local left
  left=$(seconds_left) || left=
  [ -z "$left" ] || [ "$left" -ge "$margin" ]
}

# Waits until the ranks of a dead launcher, too, have let go of the journal; for a minute at most.
wait_for_journal() {
  local turn
  for turn in {1..30}; do
    sleep 2
    look
    [ "$in_use" = yes ] || return 0
    [ "$turn" != 1 ] || say "$journal is still in use: waiting for the ranks to end"
  done
}

# run_until_complete TIMES: runs the program until the run is complete, or there is no more sense in it, and exits with the
# exit code of the run: 0 all jobs succeeded, 3 some failed, 2 wrong usage, 75 stopped early. TIMES is how often this work was
# put back into the queue before.
run_until_complete() {
  local times=$1 try=0 idle=0 at_first before stamp_before
  # What keeps no journal (rankpool info) is run once.
  if [ -z "$journal" ]; then
    run_once
    exit "$status"
  fi
  look
  at_first=$done_jobs
  while :; do
    try=$((try + 1))
    before=$done_jobs
    stamp_before=$stamp
    run_once
    # Wrong usage, or bad input: the next try would say the same.
    [ "$status" != 2 ] || exit 2
    look
    # A journal that this try has not touched is an earlier run's.
    if [ "$complete" = yes ] && [ "$stamp" != "$stamp_before" ]; then finish; fi
    if [ "$done_jobs" = "$before" ]; then idle=$((idle + 1)); else idle=0; fi
    case $status in
      75) say 'stopped early (75)' ;;
      *) say "the launcher has ended with $status, but the run is not complete" ;;
    esac
    if [ "$ending" = user ]; then stop_here 'it was asked to end'; fi
    if [ "$ending" = time ] || ! has_time; then break; fi
    # One try may have met a bad moment.
    if [ "$idle" -ge 2 ]; then stop_here 'two tries in a row have got nothing done, so another one is useless; see the messages above'; fi
    if [ "$try" -ge "$tries" ]; then
      say "that was try $try of $tries in this allocation (RANKPOOL_TRIES)"
      break
    fi
    clear_away || true
    wait_for_journal
    # It may have been told to end meanwhile.
    if [ "$ending" = user ]; then stop_here 'it was asked to end'; fi
    if [ "$ending" = time ]; then break; fi
    say "try $((try + 1)) of $tries: going on where it stopped"
  done
  # The same allocation again would get as far as this one.
  [ "$done_jobs" != "$at_first" ] ||
    stop_here 'this allocation has got nothing done: a job may need more time than it has (--time, walltime)'
  [ "$times" -lt "$requeues" ] || stop_here "it was put back into the queue $times times (RANKPOOL_REQUEUES)"
  put_back || stop_here 'it could not be put back into the queue'
  say "put back into the queue: return $((times + 1)) of at most $requeues"
  exit 75
}

# Ends a complete run with rankpool's exit code, which the launcher may have changed. That of a script can be any number.
finish() {
  [ "$is_script" = no ] || exit "$status"
  case $status in
    0 | 3) ;;
    *) say "the run is complete, although its launcher has ended with $status" ;;
  esac
  if [ "$failed" -gt 0 ]; then exit 3; fi
  exit 0
}

stop_here() {
  say "$1"
  say "what is done is in $journal: submit the same command again to go on"
  # A failure must not look like a success.
  case $status in
    0 | 3) exit 1 ;;
    *) exit "$status" ;;
  esac
}
