#!/usr/bin/env bash
# Starts a small Slurm on this machine, runs a command with it, and stops it again, whatever happens.
#
#   tests/slurm.sh [--nodes N] [--seconds LIMIT] [--keep-logs DIR] [--qsub] COMMAND…
#   tests/slurm.sh --install [--qsub]
#   tests/slurm.sh srun -N3 hostname
#   tests/slurm.sh sbatch --wait slurm/rankpool.sbatch kernel square
#
# The nodes are virtual (n1, n2, …; three unless told, two processors each): every one is a slurmd of its own on this
# machine. Slurm, its munge and their keys, sockets and files live in a temporary directory and use ports of their own, so
# a Slurm that belongs to this machine is not touched. Root with apt-get has missing packages installed; --install does only
# that.
# With --qsub there is the qsub of PBS, too, which submits PBS scripts to this Slurm.
# The exit code is the command's, 124 when it took longer than LIMIT (300 seconds), 1 when Slurm did not start or could not be
# installed.

# Functions that run from a trap look unreachable to shellcheck.
# shellcheck disable=SC2317
set -euo pipefail

usage() { sed -n '2,/^$/s/^# \{0,1\}//p' "${BASH_SOURCE[0]}"; }
say() { printf 'slurm.sh: %s\n' "$*" >&2; }
fail() {
  say "error: $*"
  exit 1
}

nodes=3
limit=300
only_install=no
packages=(slurmctld slurmd slurm-client munge)
programs=(slurmctld slurmd srun sbatch munged mungekey)
keep=
while [ $# -gt 0 ]; do
  case $1 in
    -h | --help)
      usage
      exit 0
      ;;
    --nodes | --seconds | --keep-logs)
      [ $# -ge 2 ] || fail "$1 needs a value"
      case $1 in
        --nodes) nodes=$2 ;;
        --seconds) limit=$2 ;;
        --keep-logs) keep=$2 ;;
      esac
      shift 2
      ;;
    --install)
      only_install=yes
      shift
      ;;
    --qsub)
      packages+=(slurm-wlm-torque)
      programs+=(qsub)
      shift
      ;;
    --)
      shift
      break
      ;;
    -*) fail "no such option: $1" ;;
    *) break ;;
  esac
done
if [ $# -eq 0 ] && [ "$only_install" = no ]; then
  usage >&2
  exit 2
fi

# Debian puts the daemons where only root's PATH looks.
PATH=$PATH:/usr/sbin:/sbin
missing() {
  local program
  for program in "${programs[@]}"; do
    command -v "$program" >/dev/null || return 0
  done
  return 1
}
if missing; then
  if [ "$(id -u)" != 0 ] || ! command -v apt-get >/dev/null; then
    fail "Slurm is not installed. On Debian: apt-get install ${packages[*]}"
  fi
  say "installing with apt-get: ${packages[*]}"
  log=$(mktemp)
  if ! { timeout 300 apt-get update && DEBIAN_FRONTEND=noninteractive timeout 600 apt-get \
    -o DPkg::Lock::Timeout=120 install -y --no-install-recommends "${packages[@]}"; } \
    >"$log" 2>&1 </dev/null; then
    tail -n 15 "$log" >&2
    fail "apt-get could not install Slurm (all of it in $log)"
  fi
  rm -f "$log"
fi
[ "$only_install" = no ] || exit 0

# munge refuses a directory that others can write to, and a socket's name is short: this is why it is under /tmp.
dir=$(mktemp -d /tmp/rankpool-slurm.XXXXXX)
chmod 755 "$dir"
command=
started=()

running() { kill -0 "$1" 2>/dev/null; }

# Waits until none of the given processes is left, at most the given seconds.
gone() {
  local tenths=$(($1 * 10)) pid left
  shift
  while [ "$tenths" -gt 0 ]; do
    left=no
    for pid in "$@"; do ! running "$pid" || left=yes; done
    [ "$left" = yes ] || return 0
    sleep 0.1
    tenths=$((tenths - 1))
  done
  return 1
}

# The ids of all processes of this Slurm, the daemons that run a user's step (slurmstepd) and the user's programs among
# them. They are known by SLURM_CONF in their environment, which names our temporary directory.
ours() {
  local environment pid
  for environment in /proc/[0-9]*/environ; do
    pid=${environment#/proc/}
    pid=${pid%/environ}
    if [ "$pid" != $$ ] && [ "$pid" != "$BASHPID" ] && { tr '\0' '\n' <"$environment"; } 2>/dev/null | grep -qxF "SLURM_CONF=$dir/slurm.conf"; then
      printf '%s\n' "$pid"
    fi
  done
}

stop() {
  local status=$? pid
  # Nothing may interrupt the tidying.
  trap '' INT TERM HUP EXIT
  if [ -n "$command" ] && running "$command"; then
    kill -TERM "$command" 2>/dev/null || true
    gone 5 "$command" || kill -KILL "$command" 2>/dev/null || true
  fi
  if [ ${#started[@]} -gt 0 ]; then
    # Without this the users' programs would be left to the kill at the end.
    timeout 10 scancel --user "$(id -un)" >/dev/null 2>&1 || true
    timeout 10 scontrol shutdown >/dev/null 2>&1 || true
    # munged does not know scontrol; a daemon that has not stopped by now is stopped by its id.
    kill -TERM "${started[0]}" 2>/dev/null || true
    gone 10 "${started[@]}" || for pid in "${started[@]}"; do kill -TERM "$pid" 2>/dev/null || true; done
    gone 5 "${started[@]}" || for pid in "${started[@]}"; do kill -KILL "$pid" 2>/dev/null || true; done
  fi
  for pid in $(ours); do kill -KILL "$pid" 2>/dev/null || true; done
  if [ -n "$keep" ]; then
    mkdir -p "$keep"
    cp "$dir"/log/* "$keep"/ 2>/dev/null || true
  fi
  rm -rf "$dir"
  exit "$status"
}
trap stop EXIT
trap 'exit 130' INT
trap 'exit 143' TERM HUP

mkdir -p "$dir/state" "$dir/log" "$dir/munge"
for node in $(seq "$nodes"); do mkdir -p "$dir/spool/n$node" "$dir/tmp/n$node"; done
chmod 700 "$dir/munge"

# The ports come from this process's id, so that two of these can run at once.
port=$((20000 + $$ % 300 * 32))
host=$(hostname)
processors=2
memory=$(($(awk '/^MemTotal/ {print $2}' /proc/meminfo) / 1024 / (nodes + 1)))
cat >"$dir/slurm.conf" <<END
ClusterName=rankpool
SlurmctldHost=$host(127.0.0.1)
SlurmctldPort=$port
AuthType=auth/munge
AuthInfo=socket=$dir/munge/socket,cred_expire=5
CredType=cred/munge
SlurmUser=$(id -un)
SlurmdUser=$(id -un)
StateSaveLocation=$dir/state
SlurmdSpoolDir=$dir/spool/%n
TmpFS=$dir/tmp/%n
SlurmctldPidFile=$dir/ctld.pid
SlurmdPidFile=$dir/slurmd-%n.pid
SlurmctldLogFile=$dir/log/ctld.log
SlurmdLogFile=$dir/log/slurmd-%n.log
ProctrackType=proctrack/linuxproc
TaskPlugin=task/none
JobAcctGatherType=jobacct_gather/none
SelectType=select/cons_tres
SelectTypeParameters=CR_Core
ReturnToService=2
MpiDefault=none
PlugStackConfig=$dir/plugstack.conf
TaskProlog=$dir/prolog
# Short waits: a test of the time limit should not take minutes, and a requeued job should start again at once (not after
# cred_expire, which is two minutes otherwise).
KillWait=5
SchedulerParameters=sched_interval=2,bf_interval=2
SlurmdParameters=config_overrides
NodeName=n[1-$nodes] NodeHostname=$host NodeAddr=127.0.0.1 Port=[$((port + 1))-$((port + nodes))] CPUs=$processors RealMemory=$memory State=UNKNOWN
PartitionName=main Nodes=ALL Default=YES MaxTime=INFINITE State=UP OverSubscribe=FORCE:4
END
# For job scripts of PBS, which qsub of slurm-wlm-torque submits: a plugin of Slurm sets the variables of PBS, except for one.
for spank in /usr/lib/*/slurm-wlm/spank_pbs.so; do echo "optional $spank" >"$dir/plugstack.conf"; done
cat >"$dir/prolog" <<END
#!/bin/sh
scontrol show hostnames "\$SLURM_JOB_NODELIST" >"$dir/nodes.\$SLURM_JOB_ID"
echo "export PBS_NODEFILE=$dir/nodes.\$SLURM_JOB_ID"
END
chmod +x "$dir/prolog"
export SLURM_CONF=$dir/slurm.conf
# The virtual nodes share one host name, by which Open MPI believes that they share memory: it must use TCP.
export OMPI_MCA_btl=tcp,self
if [ "$(id -u)" = 0 ]; then
  export OMPI_ALLOW_RUN_AS_ROOT=1 OMPI_ALLOW_RUN_AS_ROOT_CONFIRM=1
fi
# slurm.conf is for programs of this Slurm only; these could lead them to another one.
unset SLURM_JOB_ID SLURM_JOBID SLURM_NODELIST SLURM_JOB_NODELIST

# Every daemon stays in the foreground, as a child of this script, so that its id is known.
mungekey --create --keyfile="$dir/munge/key" >/dev/null
munged --foreground --force --key-file="$dir/munge/key" --socket="$dir/munge/socket" --pid-file="$dir/munge/pid" \
  --log-file="$dir/log/munged.log" --seed-file="$dir/munge/seed" >"$dir/log/munged.out" 2>&1 </dev/null &
started+=($!)
for _ in $(seq 50); do
  [ ! -S "$dir/munge/socket" ] || break
  sleep 0.1
done
slurmctld -D -c >"$dir/log/ctld.out" 2>&1 </dev/null &
started+=($!)
for node in $(seq "$nodes"); do
  slurmd -D -N "n$node" >"$dir/log/slurmd-n$node.out" 2>&1 </dev/null &
  started+=($!)
done

idle=0
for _ in $(seq 60); do
  idle=$(timeout 5 sinfo --noheader --Node --states=idle --format=%N 2>/dev/null | wc -l) || idle=0
  [ "$idle" -lt "$nodes" ] || break
  sleep 0.5
done
if [ "$idle" -lt "$nodes" ]; then
  say "only $idle of $nodes nodes came up; the ends of the logs:"
  tail -n 5 "$dir"/log/* >&2
  exit 1
fi
say "$nodes nodes are up"

timeout --kill-after=10 "$limit" "$@" <&0 &
command=$!
status=0
wait "$command" || status=$?
[ "$status" != 124 ] || say "the command took longer than $limit seconds"
exit "$status"
