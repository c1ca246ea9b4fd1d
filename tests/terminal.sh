#!/usr/bin/env bash
# Shows what users see: runs rankpool in a real terminal (tmux) and looks at the screen.
#
#   tests/terminal.sh RANKPOOL                       the bar and `rankpool top`
#   tests/terminal.sh RANKPOOL MPIEXEC [FLAG…]       the bar under a launcher, whose ranks have pipes instead of a terminal
#
# It needs tmux. Its server, its files and its programs are its own, and are gone at the end.
# Functions that are called by name look unreachable to shellcheck.
# shellcheck disable=SC2317
set -euo pipefail

[ $# -ge 1 ] || {
  sed -n '2,/^$/s/^# \{0,1\}//p' "${BASH_SOURCE[0]}" >&2
  exit 2
}
rankpool=$(realpath "$1")
shift
launcher="$*"

folder=$(mktemp -d)
socket=rankpool-test-$$
# Every wait ends after this number of tenths of a second, also on a machine that is very busy.
limit=${RANKPOOL_TERMINAL_LIMIT:-900}
failed=0

mux() { tmux -L "$socket" -f /dev/null "$@"; }
cleanup() {
  # The shell in the terminal ends with its programs.
  mux kill-server 2>/dev/null || true
  rm -rf "$folder"
}
trap cleanup EXIT
trap 'exit 130' INT TERM HUP

screen() { mux capture-pane -p; }
keys() { mux send-keys "$@"; }

# The shell has nothing to do. (A launcher takes what is typed before that.)
has_prompt() {
  local try
  for ((try = 0; try < limit; try++)); do
    if [ "$(screen | grep -v '^ *$' | tail -n 1)" = '>' ]; then return 0; fi
    sleep 0.1
  done
  return 1
}

# Types a command on an empty screen.
enter() {
  has_prompt || true
  keys C-l
  keys -l "$1"
  keys Enter
}

# Waits until the screen has this extended regular expression.
sees() {
  local try
  for ((try = 0; try < limit; try++)); do
    if screen | grep -qE -- "$1"; then return 0; fi
    sleep 0.1
  done
  return 1
}

# check NAME COMMAND…: one line for each expectation.
check() {
  local name=$1
  shift
  if "$@"; then
    printf 'ok      %s\n' "$name"
  else
    printf 'FAILED  %s; the screen:\n' "$name"
    screen | grep -v '^ *$' | sed 's/^/  | /'
    failed=1
  fi
}

lacks() { ! screen | grep -qE -- "$1"; }

export LC_ALL=C.UTF-8
cd "$folder"
printf "PS1='> '\nPROMPT_COMMAND=\n" >rc
mux new-session -d -x 100 -y 30 'bash --noprofile --rcfile rc'
has_prompt

# A job that lasts until the file `go` is gone.
wait_job='while [ -e go ]; do sleep 0.05; done'
bar='\[[=> ]{8,}\] [0-9]+/[0-9]+ \([0-9]+ %\)'
program="$rankpool"
local2='--local 2 --threads 1'
if [ -n "$launcher" ]; then
  program="$launcher -n 2 $rankpool"
  local2='--threads 1'
fi

# Some jobs end, and one goes on until it may end.
batch="run $local2 --range 1:5 -o out"
jobs="-- sh -c 'case {} in 4) echo \"message of job 4\" >&2; exit 1;; 5) $wait_job;; esac'"

echo "--- ${launcher:-without a launcher}"
touch go
enter "$program $batch $jobs"
check 'a bar has what is done and what has failed' sees "^run $bar, 1 failed"
check 'a message of a job has a line of its own' sees '^message of job 4 *$'
check 'there is one bar, below the messages' test "$(screen | grep -cE "^run $bar")" = 1
rm go
check 'the last bar says how long it took' sees "^run \[=+\] 5/5 \(100 %\), 1 failed.* in [0-9.]+ s"
check 'the summary is below the bar' sees '^run: 5 jobs \(1 failed\) in '

touch go
enter "$program $batch 2>said $jobs"
for ((try = 0; try < limit; try++)); do
  [ ! -s said ] || ! grep -q 'jobs' said || break
  sleep 0.1
done
check 'a file gets lines' grep -qE '^run: 4 of 5 jobs \(80 %\), 1 failed, ' said
check 'and nothing that only a terminal understands' bash -c '! grep -q "[^[:print:][:space:]]" said'
rm go
check 'the run ends' has_prompt

touch go
enter "$program $batch --progress bar 2>said $jobs"
for ((try = 0; try < limit; try++)); do
  grep -qE "$bar" said 2>/dev/null && break
  sleep 0.1
done
check '--progress bar draws into a file, too' grep -qE "run $bar" said
rm go
check 'the run ends' has_prompt

touch go
enter "$program $batch $jobs & sleep 1; $program run $local2 --range 1:5 -o out2 $jobs; wait"
check 'of two programs at one terminal one has a bar' sees "^run $bar"
check 'and the other one writes lines' sees '^run: [0-9]+ of 5 jobs'
rm go
check 'both end' has_prompt

touch go
enter "$program run $local2 --range 1:5 $jobs"
sleep 1
check 'no bar is between results on the same terminal' lacks "^run \["
rm go
check 'the run ends' has_prompt

if [ -n "$launcher" ]; then
  tag=-prepend-rank
  case $($launcher --version 2>&1 </dev/null) in *'Open MPI'* | *OpenRTE*) tag=--tag-output ;; esac
  touch go
  enter "$launcher $tag -n 2 $rankpool $batch $jobs"
  check 'a launcher that tags lines gets lines' sees '(^|[]>:]) ?run: 4 of 5 jobs \(80 %\)'
  check 'and no bar' lacks "run $bar"
  rm go
  check 'the run ends' has_prompt
  exit "$failed"
fi

# `rankpool top`: whatever ends it, the terminal is as it was.
touch go
"$rankpool" run --local 40 --threads 1 --progress off --status s.json --range 1:40 -- sh -c "$wait_job" 2>/dev/null &
run=$!
for ((try = 0; try < limit; try++)); do
  [ ! -e s.json ] || break
  sleep 0.1
done
before=$(mux display-message -p '#{pane_tty}' | xargs stty -a -F)
is_as_before() {
  sees '^above' && [ "$(mux display-message -p '#{alternate_on} #{cursor_flag}')" = '0 1' ] &&
    [ "$(mux display-message -p '#{pane_tty}' | xargs stty -a -F)" = "$before" ]
}
for how in q C-c TERM; do
  enter "echo above; $rankpool top s.json"
  check 'top shows the worst ranks, as many as fit' sees 'ranks 1 to 2[0-9] of 40'
  check 'with their slowest jobs' sees 'job [0-9]+ for [0-9.]+ (s|min)'
  case $how in
    TERM) kill -TERM "$(pgrep -P "$(mux display-message -p '#{pane_pid}')")" ;;
    *)
      keys s
      check 's sorts' sees 'least busy first'
      keys End
      check 'End scrolls' sees 'to 40 of 40'
      keys "$how"
      ;;
  esac
  check "$how leaves the terminal as it was" is_as_before
done
enter "$rankpool top s.json"
sees 'running for'
rm go
check 'top shows the end of the run' sees 'ended after .* with exit code 0'
keys q
wait "$run" || true
enter "$rankpool top s.json | head -n 1"
check 'not on a terminal, top prints a snapshot' sees '^run: ended after '
exit "$failed"
