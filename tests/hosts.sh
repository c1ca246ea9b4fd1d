#!/usr/bin/env bash
# Runs rankpool on three hosts that are made of network namespaces on this machine, and lets one of them fail in many ways.
#
#   tests/hosts.sh RANKPOOL [SCENARIO…]
#
# RANKPOOL is the program, built with the MPI that slurm/mpi.sh has set up: RANKPOOL_MPIEXEC and RANKPOOL_MPI_FLAVOUR are its
# launcher and openmpi or mpich. Rank 0 and the launcher are on h1. The scenarios, all of them unless told:
#
#   undisturbed   nothing happens, and `rankpool info` shows three hosts
#   script        nothing happens, and a Python script gets results from three hosts
#   killed        the rank on h3 is killed, and nothing else
#   vanishes      all processes on h3 are killed
#   cut           the link of h3 is cut
#   cut-and-back  the link of h3 is cut for a moment
#   frozen        all processes on h3 are stopped
#   thawed        all processes on h3 are stopped for a moment
#   late          the link of h3 is cut for longer than its rank may be silent, and then is there again
#
# Each run has to end by itself with the whole output in order and a summary that names the lost rank and its host. Where
# the launcher ends the run, the finished jobs have to be on disk. Needs root and `ip`; exit code 77 if that is not here.

# Functions that run from a trap look unreachable to shellcheck.
# shellcheck disable=SC2317
set -euo pipefail

usage() { sed -n '2,/^$/s/^# \{0,1\}//p' "${BASH_SOURCE[0]}"; }
say() { printf 'hosts.sh: %s\n' "$*" >&2; }
skip() {
  say "skipped: $*"
  exit 77
}

case ${1:-} in
  '' | -h | --help)
    usage
    [ $# -gt 0 ]
    exit
    ;;
esac
program=$(realpath "$1")
shift
scenarios=("$@")
[ ${#scenarios[@]} -gt 0 ] || scenarios=(undisturbed script killed vanishes cut cut-and-back frozen thawed late)
launcher=${RANKPOOL_MPIEXEC:-mpiexec}
flavour=${RANKPOOL_MPI_FLAVOUR:?set up an MPI first, with slurm/mpi.sh}

PATH=$PATH:/usr/sbin:/sbin
[ "$(id -u)" = 0 ] || skip 'only root can make network namespaces'
command -v ip >/dev/null || skip 'there is no program ip here (package iproute2)'

### The hosts: a namespace for each, and one for the switch between them. Their names have the number of this process.

mark=rp$$
hosts='h1 h2 h3'
folder=$(mktemp -d)
running=
made_netns=no
[ -d /etc/netns ] || made_netns=yes

remove() {
  local host
  trap '' INT TERM HUP
  if [ -n "$running" ]; then kill -KILL "$running" 2>/dev/null || true; fi
  end_all
  for host in $hosts switch; do
    ip netns delete "$mark$host" 2>/dev/null || true
    rm -rf "/etc/netns/${mark:?}$host"
  done
  [ "$made_netns" = no ] || rmdir /etc/netns 2>/dev/null || true
  rm -rf "$folder"
}
trap remove EXIT
trap 'exit 130' INT TERM HUP

make_hosts() {
  local host number=0
  ip netns add "${mark}switch" 2>/dev/null || skip 'this machine does not allow network namespaces'
  ip -n "${mark}switch" link add bridge type bridge || skip 'this machine does not allow bridges'
  ip -n "${mark}switch" link set bridge up
  for host in $hosts; do
    number=$((number + 1))
    ip netns add "$mark$host"
    ip -n "${mark}switch" link add "$host" type veth peer name e0 netns "$mark$host"
    ip -n "${mark}switch" link set "$host" master bridge up
    ip -n "$mark$host" address add "10.77.0.$number/24" dev e0
    ip -n "$mark$host" link set e0 up
    ip -n "$mark$host" link set lo up
    mkdir -p "/etc/netns/$mark$host"
    printf '127.0.0.1 localhost\n10.77.0.1 h1\n10.77.0.2 h2\n10.77.0.3 h3\n' >"/etc/netns/$mark$host/hosts"
  done
  cat >"$folder/agent" <<AGENT
#!/bin/sh
host=\$1
shift
exec ip netns exec "$mark\$host" unshare -u sh -c 'hostname "\$0"; exec sh -c "\$*"' "\$host" "\$@"
AGENT
  chmod +x "$folder/agent"
}

### A run: its launcher with one rank on each host.

launch() {
  local command=("$launcher")
  case $flavour in
    openmpi)
      # shellcheck disable=SC2054  # the commas are the launcher's
      command+=(--enable-recovery --mca plm_rsh_agent "$folder/agent" --mca btl_tcp_if_include e0 --mca oob_tcp_if_include e0
        --host h1:1,h2:1,h3:1 --bind-to none)
      ;;
    mpich)
      # shellcheck disable=SC2054  # the commas are the launcher's
      command+=(-disable-auto-cleanup -launcher rsh -launcher-exec "$folder/agent" -iface e0 -hosts h1,h2,h3)
      # Processes on these hosts share the machine's memory, which UCX uses unless told. Over TCP alone it sometimes hangs when MPI
      # starts or ends, also if nothing happens to the hosts.
      [ "$over_tcp" = no ] || command+=(-genv UCX_TLS "tcp,self" -genv UCX_NET_DEVICES e0)
      ;;
    *) skip "no scenarios for $flavour" ;;
  esac
  exec "$folder/agent" h1 "${command[@]}" -n 3 "$program" "$@"
}

jobs=600
lost_after=3
over_tcp=no
# Seconds that a run may take from its disturbance to its end: the silence, the lost work, and a busy machine.
bound=75

# Starts the run and waits until it has written some results; tries again if it does not begin.
start() {
  local try
  for try in 1 2 3; do
    rm -f "$folder"/out*
    launch kernel sleep --seconds 0.015 --jobs "$jobs" --threads 1 --chunk 1 --lost-after "$lost_after" --progress off \
      --output "$folder/out" >"$folder/said" 2>&1 &
    running=$!
    if begins; then
      disturbed=$(date +%s.%N)
      return
    fi
    end_all
    wait "$running" || true
  done
  broken 'the run does not begin'
}

begins() {
  local try
  for try in $(seq 150); do
    [ "$(written)" -lt 60 ] || return 0
    sleep 0.1
  done
  return 1
}

# Ends all processes on the hosts.
end_all() {
  local host pid
  for host in $hosts; do
    for pid in $(ip netns pids "$mark$host" 2>/dev/null); do kill -KILL "$pid" 2>/dev/null || true; done
  done
}

written() { cat "$folder"/out* 2>/dev/null | wc -l; }

broken() {
  say "$scenario: $*; the run said:"
  cat "$folder/said" >&2
  exit 1
}

# Waits for the launcher's end; its exit code is in `code`.
finish() {
  local try
  for try in $(seq $((bound * 10))); do
    kill -0 "$running" 2>/dev/null || break
    [ "$try" -lt $((bound * 10)) ] || broken "the run has not ended within $bound s"
    sleep 0.1
  done
  code=0
  wait "$running" || code=$?
  running=
  took=$(awk -v from="$disturbed" -v to="$(date +%s.%N)" 'BEGIN { printf "%.1f", to - from }')
}

pids() { ip netns pids "${mark}h3"; }
signal_all() {
  local pid
  for pid in $(pids); do kill -"$1" "$pid" 2>/dev/null || true; done
}
rank_on_h3() {
  local pid
  for pid in $(pids); do
    [ "$(readlink "/proc/$pid/exe")" != "$program" ] || ! grep -qz kernel "/proc/$pid/cmdline" || printf '%s\n' "$pid"
  done | head -n 1
}
link_of_h3() { ip -n "${mark}switch" link set h3 "$1"; }

# Open MPI's launcher, which waits for a host that is gone, is ended by rank 0 and then returns 1.
expect_complete() {
  if grep -q 'has not left the run within 60 s' "$folder/said"; then
    say "$scenario: MPI_Finalize did not end"
  else
    [ "$code" = "${1:-0}" ] || broken "exit code $code"
  fi
  seq 0 $((jobs - 1)) | cmp -s - "$folder/out" || broken "the output is wrong: $(written) lines"
}
expect_lost() {
  expect_complete "${1:-0}"
  grep -q '^rank 2 on h3 was lost after ' "$folder/said" || broken 'the summary does not name the lost rank and its host'
}
expect_not_lost() {
  expect_complete
  ! grep -q 'was lost\|has sent no message' "$folder/said" || broken 'a rank was lost'
}
# The launcher has ended the run: what was finished is there, in order, under a name of its own.
expect_partial() {
  local file=$folder/out
  [ -e "$file" ] || file=$folder/out.partial
  [ "$(wc -l <"$file")" -ge 60 ] || broken "finished jobs are missing: $(wc -l <"$file") lines"
  head -n "$(wc -l <"$file")" <(seq 0 $((jobs - 1))) | cmp -s - "$file" || broken 'the finished jobs are not in order'
}

undisturbed() {
  local seen
  seen=$(launch info 2>&1) || broken "rankpool info failed: $seen"
  for host in $hosts; do grep -qw "$host" <<<"$seen" || broken "rankpool info does not show $host: $seen"; done
  start
  finish
  expect_not_lost
}
script() {
  cat >"$folder/script.py" <<'SCRIPT'
import os, socket, sys, time
from rankpool import Executor

def host(folder):
    open(os.path.join(folder, socket.gethostname()), "w").close()
    deadline = time.monotonic() + 60
    while len(os.listdir(folder)) < 3 and time.monotonic() < deadline:
        time.sleep(0.01)
    return socket.gethostname()

# Without cloudpickle, the workers import this file.
if __name__ == "__main__":
    with Executor() as executor:
        print(*sorted(set(executor.map(host, [sys.argv[1]] * 30, chunksize=1))))
SCRIPT
  mkdir "$folder/hosts"
  disturbed=$(date +%s.%N)
  launch python --threads 1 "$folder/script.py" "$folder/hosts" >"$folder/said" 2>&1 &
  running=$!
  finish
  [ "$code" = 0 ] || broken "exit code $code"
  grep -qx 'h1 h2 h3' "$folder/said" || broken 'the script has not seen three hosts'
}
killed() {
  start
  kill -KILL "$(rank_on_h3)"
  finish
  expect_lost
}
vanishes() {
  start
  signal_all KILL
  finish
  if [ -e "$folder/out" ]; then expect_lost; else expect_partial; fi
}
cut() {
  over_tcp=yes
  start
  link_of_h3 down
  finish
  link_of_h3 up
  expect_lost "$of_hanging_launcher"
}
cut-and-back() {
  lost_after=8
  over_tcp=yes
  start
  link_of_h3 down
  sleep 1
  link_of_h3 up
  finish
  expect_not_lost
}
late() {
  jobs=1200
  over_tcp=yes
  start
  link_of_h3 down
  sleep 4
  link_of_h3 up
  finish
  expect_lost
}
frozen() {
  start
  signal_all STOP
  finish
  expect_lost "$of_hanging_launcher"
}
thawed() {
  start
  signal_all STOP
  sleep 1
  signal_all CONT
  finish
  expect_not_lost
}

# The launcher's exit code if a daemon of its own does not answer.
of_hanging_launcher=0
[ "$flavour" = mpich ] || of_hanging_launcher=1

make_hosts
for scenario in "${scenarios[@]}"; do
  # Each has settings of its own.
  jobs=600 lost_after=3 over_tcp=no
  "$scenario"
  say "$flavour: $scenario: ended $took s later, with exit code $code and $(written) of $jobs results"
  end_all
done
