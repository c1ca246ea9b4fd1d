#!/usr/bin/env bash
# Runs every test, in a fresh clone too: it installs what is missing (an MPI, with slurm/mpi.sh) and goes on after a failure.
#
# Usage: tests/run.sh [--only STEP]… [--mpi openmpi|mpich|both] [--slurm] [-- ARGUMENTS FOR cargo test…]
#
# Steps, in this order:
#   format      cargo fmt --check
#   lint        clippy without MPI and with it (which also checks that nothing newer than our rust-version is used), and
#               the links of the documentation
#   deps        how many crates the library needs by itself, what is in the package, and cargo-deny, if it is here
#   msrv        no dependency needs a newer Rust than our rust-version; builds with that version if it is
#               here; with --only msrv rustup installs it
#   shell       shellcheck, if it is here
#   test        everything that needs no MPI: unit tests, simulation, pool over threads, documentation
#   python      the Python package, asked by real interpreters: its own tests, others' test suites, the examples. With
#               --only python or RANKPOOL_PYTHON=all: other Pythons, the wheel, a notebook and a report in a browser, and all of it
#               under both MPIs
#   openmpi     the MPI tests under Open MPI's mpiexec
#   mpich       the same under MPICH's
#   terminal    the bar and `rankpool top` in a real terminal (tmux), without a launcher and under each MPI's
#   local       slurm/local.sh, its main job
#   scripts     what slurm/rankpool.sbatch and .pbs do when a run is stopped or dies, with pretended schedulers
#   hosts       three hosts made of network namespaces, one of which fails, under each MPI (RANKPOOL_HOSTS=all: in all ways
#               that tests/hosts.sh knows); only as root
#   slurm       both in a small Slurm on this machine: the short tests; with --slurm or --only slurm all of them
#
# Examples:
#   tests/run.sh                                     all steps
#   tests/run.sh --mpi mpich                         with MPICH only
#   tests/run.sh --only test -- schedule             the tests with `schedule` in their names
#   tests/run.sh --only openmpi -- --nocapture
#   RANKPOOL_KILLS=100 tests/run.sh --only test --only openmpi --only mpich -- a_kill
#                                                    the long version of the tests that kill runs at random moments
#   RANKPOOL_ABUSE=100 tests/run.sh --only test --only openmpi --only mpich -- abuse
#                                                    100 kills of runs with a journal for each way to start ranks
#
# The last line is `N passed, N failed`, counted in steps; the exit code is 1 if one failed. Every step has a time limit,
# and what a step leaves running is ended and makes it fail.
set -euo pipefail

self=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)/$(basename "${BASH_SOURCE[0]}")
top=$(cd "$(dirname "$self")/.." && pwd)
cd "$top"
# One folder for all builds; every MPI has its own in it. (In a shell that took the output of slurm/mpi.sh, CARGO_TARGET_DIR
# is already the one of an MPI.)
export RANKPOOL_TARGET_BASE=${RANKPOOL_TARGET_BASE:-${CARGO_TARGET_DIR:-$top/target}}
export CARGO_TARGET_DIR=$RANKPOOL_TARGET_BASE
export CARGO_TERM_PROGRESS_WHEN=never

usage() { sed -n '2,/^set/{/^set/d;s/^# \{0,1\}//p}' "$self"; }
misuse() {
  printf 'run.sh: %s\nTry: tests/run.sh --help\n' "$1" >&2
  exit 2
}

# A step that cannot run here ends with this code: it is neither passed nor failed.
skipped=77
skip() {
  printf 'skipped: %s\n' "$*"
  exit "$skipped"
}

### The steps. Each runs in a process of its own, with the arguments for `cargo test`.

# rustfmt and clippy are parts of a toolchain that a minimal one lacks.
need_component() {
  cargo "$1" --version >/dev/null 2>&1 || rustup component add "$2"
}

step_format() {
  need_component fmt rustfmt
  cargo fmt --check
}

step_lint() {
  local status=0
  need_component clippy clippy
  use_shared_folder
  # All are asked, whatever the first one says.
  cargo clippy --locked --all-targets --no-default-features -- -D warnings || status=1
  cargo clippy --locked --all-targets --no-default-features --features program -- -D warnings || status=1
  use_mpi "$checked_mpi"
  cargo clippy --locked --all-targets -- -D warnings || status=1
  return "$status"
}

# A program that uses the library without its default features builds no more than this, itself included.
most_crates=25

step_deps() {
  local status=0 crates packaged file
  crates=$(cargo tree --locked --no-default-features -e normal --prefix none | sed 's/ (.*//' | sort -u)
  echo "a program builds $(($(wc -l <<<"$crates") + 1)) crates for the library alone; the most is $most_crates"
  [ $(($(wc -l <<<"$crates") + 1)) -le "$most_crates" ] || {
    printf '%s\n' "$crates"
    status=1
  }
  # What a source includes has to be in the package.
  packaged=$(cargo package --locked --allow-dirty --no-verify --list)
  for file in README.md tests/data/*; do
    grep -qxF "$file" <<<"$packaged" || {
      echo "$file is not in the package"
      status=1
    }
  done
  if cargo deny --version >/dev/null 2>&1; then
    cargo deny --all-features --locked check bans licenses sources || status=1
    # The list of advisories comes from the network.
    if timeout 60 cargo deny fetch db >/dev/null 2>&1; then
      cargo deny --all-features --locked check advisories || status=1
    else
      echo 'The list of advisories could not be fetched, so none was looked for.'
    fi
  else
    echo 'There is no cargo-deny here, so licenses and advisories were not looked at (cargo install --locked cargo-deny).'
  fi
  return "$status"
}

step_msrv() {
  local version host toolchain
  version=$(sed -n 's/^rust-version *= *"\(.*\)"/\1/p' Cargo.toml)
  [ -n "$version" ] || {
    echo 'Cargo.toml has no rust-version'
    return 1
  }
  host=$(rustc -vV | sed -n 's/^host: //p')
  # In cargo's JSON a package's id comes before its rust_version. Nothing else there has a rust_version.
  cargo metadata --locked --format-version 1 --all-features --filter-platform "$host" |
    grep -oE '"(id|rust_version)":"[^"]*"' |
    awk -F'"' -v ours="$version" '
      function number(text, part) { split(text, part, "."); return part[1] * 1000000 + part[2] * 1000 + part[3] }
      $2 == "id" { package = $4 }
      $2 == "rust_version" { known++ }
      $2 == "rust_version" && number($4) > number(ours) { print package " needs Rust " $4; bad = 1 }
      END { print known + 0 " packages say which Rust they need; ours is " ours; exit bad || !known }'
  toolchain=$(toolchain_of "$version")
  if [ -z "$toolchain" ] && [ "$RANKPOOL_TEST_ALL" = no ] && command -v rustup >/dev/null; then
    timeout 120 rustup toolchain install "$version" --profile minimal --no-self-update || true
    toolchain=$(toolchain_of "$version")
  fi
  if [ -n "$toolchain" ]; then
    cargo "+$toolchain" check --locked --no-default-features --features program --target-dir "$CARGO_TARGET_DIR/msrv"
  else
    echo "Rust $version is not here, so nothing was built with it (tests/run.sh --only msrv installs it)."
  fi
}

# The name of the installed toolchain of this version, if there is one.
toolchain_of() {
  { rustup toolchain list 2>/dev/null || true; } | awk -v version="$1" '
    index($1, version ".") == 1 || index($1, version "-") == 1 { print $1; exit }'
}

step_shell() {
  command -v shellcheck >/dev/null || skip 'there is no shellcheck here'
  shellcheck --external-sources slurm/*.sh slurm/*.sbatch slurm/*.pbs tests/*.sh tests/python/*.sh examples/workers/*.sh .ci/run
}

# Installs a Debian package, if this is a machine where that can be done.
install_package() {
  # shellcheck source=slurm/mpi.sh
  source "$top/slurm/mpi.sh"
  # Where it writes its logs.
  rankpool_base=$RANKPOOL_TARGET_BASE
  mkdir -p "$rankpool_base"
  mpi_can_apt && mpi_apt_install "$1"
}

# The tests of `rankpool map` ask real interpreters.
need_python() {
  command -v python3 >/dev/null || install_package python3
}

# Their virtual environments come from pip; Debian has what makes them in a package of its own.
need_venv() {
  need_python
  python3 -c 'import ensurepip' 2>/dev/null || install_package python3-venv
}

# The tests of notebooks and reports open them in one. Without it they say what to do.
need_browser() {
  [ -n "${CHROMIUM:-}" ] || command -v chromium >/dev/null || install_package chromium || true
}

step_python() {
  local everything=${RANKPOOL_PYTHON:-} status=0
  [ "$RANKPOOL_TEST_ALL" = yes ] || everything=all
  need_venv
  # One of others' suites is fetched by a package whose build asks for an MPI compiler.
  (use_mpi "$checked_mpi")
  use_shared_folder
  cargo build --locked --no-default-features --features program
  export RANKPOOL_EXE=$CARGO_TARGET_DIR/debug/rankpool
  if [ "$everything" != all ]; then
    python3 tests/python/units.py || status=1
    python3 tests/python/suites.py --rankpool "$RANKPOOL_EXE" futures pool mpi4py_pool || status=1
    RANKPOOL_SKY=500 RANKPOOL_TEST_RANKS=2 python3 tests/python/examples.py || status=1
    return "$status"
  fi
  python3 tests/python/units.py --all || status=1
  python3 tests/python/suites.py --rankpool "$RANKPOOL_EXE" || status=1
  python3 tests/python/examples.py || status=1
  tests/python/wheel.sh || status=1
  need_browser
  python3 tests/python/notebook.py --browser || status=1
  python3 tests/python/report.py || status=1
  for flavour in $RANKPOOL_TEST_MPIS; do
    (
      status=0
      use_mpi "$flavour"
      cargo build --locked
      export RANKPOOL_EXE=$CARGO_TARGET_DIR/debug/rankpool
      python3 tests/python/units.py || status=1
      python3 tests/python/examples.py || status=1
      for ranks in 1 2 3; do
        python3 tests/python/suites.py --rankpool "$RANKPOOL_EXE" --options "" \
          --launcher "$RANKPOOL_MPIEXEC ${RANKPOOL_MPIEXEC_FLAGS:-} -n $ranks" || status=1
      done
      exit "$status"
    ) || status=1
  done
  return "$status"
}

step_test() {
  need_python
  use_shared_folder
  cargo test --locked --no-default-features --features program --lib --bins "$@"
  # These mostly wait for processes.
  RUST_TEST_THREADS=${RUST_TEST_THREADS:-$((2 * $(nproc)))} \
    cargo test --locked --no-default-features --features program --test cli --test alone --test compile_fail "$@"
  cargo test --locked --no-default-features --features program --test abuse "$@"
  cargo test --locked --no-default-features --features program --doc "$@"
  # Each bench is run once, so that none breaks unnoticed.
  [ $# -gt 0 ] || cargo test --locked --no-default-features --features program --bench parts
  # The library keeps its promises without the program.
  cargo test --locked --no-default-features --test it "$@"
}

# What is built for the tests without MPI and for those under the last MPI differs in this crate and three others: in one
# folder the hundred that both need are built once.
use_shared_folder() { export CARGO_TARGET_DIR=$RANKPOOL_TARGET_BASE/$checked_mpi; }

use_mpi() {
  # shellcheck source=slurm/mpi.sh
  source "$top/slurm/mpi.sh"
  mpi_setup "$1"
}

# What is tested is what is built: Open MPI's tests run the optimised program, which slurm/local.sh then finds built, and
# MPICH's the one with all checks.
profile_for() {
  case $1 in
    openmpi) echo release ;;
    mpich) echo test ;;
  esac
}

# The examples are built and run with one MPI.
build_with_mpi() {
  use_mpi "$1"
  if [ "$1" = "$checked_mpi" ]; then
    cargo build --locked --profile "$(profile_for "$1")" --bins --examples
  else
    export RANKPOOL_TEST_EXAMPLES=no
    cargo build --locked --profile "$(profile_for "$1")" --bins
  fi
}

mpi_tests() {
  local flavour=$1
  shift
  need_python
  build_with_mpi "$flavour"
  cargo test --locked --profile "$(profile_for "$flavour")" --test mpi "$@"
  RANKPOOL_ABUSE_WITH=mpi cargo test --locked --profile "$(profile_for "$flavour")" --test abuse "$@"
}
step_openmpi() { mpi_tests openmpi "$@"; }
step_mpich() { mpi_tests mpich "$@"; }

# What is on the screen is looked at in a terminal that tmux makes.
step_terminal() {
  local flavour folder
  command -v tmux >/dev/null || {
    # shellcheck source=slurm/mpi.sh
    source "$top/slurm/mpi.sh"
    # Where it writes its logs.
    rankpool_base=$RANKPOOL_TARGET_BASE
    mkdir -p "$rankpool_base"
    if ! { mpi_can_apt && mpi_apt_install tmux; }; then
      skip 'there is no tmux here, and it could not be installed'
    fi
  }
  (
    use_shared_folder
    cargo build --locked --no-default-features --features program
    tests/terminal.sh "$CARGO_TARGET_DIR/debug/rankpool"
  )
  for flavour in $RANKPOOL_TEST_MPIS; do
    (
      build_with_mpi "$flavour"
      folder=release
      [ "$(profile_for "$flavour")" = release ] || folder=debug
      # shellcheck disable=SC2086  # the flags are words
      tests/terminal.sh "$CARGO_TARGET_DIR/$folder/rankpool" "$RANKPOOL_MPIEXEC" ${RANKPOOL_MPIEXEC_FLAGS:-}
    )
  done
}

step_local() {
  local counts
  # The main job's answer is known: these are the counts of the twelve windows.
  counts=$(slurm/local.sh --mpi "${RANKPOOL_TEST_MPIS%% *}" | tee >(cat >&2) | grep -o '"count":[0-9]*' | cut -d: -f2 | tr '\n' ' ')
  [ "$counts" = '16 61 135 247 390 547 742 939 1194 1445 1728 2022 ' ]
}

step_scripts() { tests/scripts.sh; }

step_hosts() {
  local flavour folder scenarios=(script vanishes cut thawed)
  [ "${RANKPOOL_HOSTS:-}" != all ] || scenarios=()
  [ "$(id -u)" = 0 ] || skip 'only root can make network namespaces'
  for flavour in $RANKPOOL_TEST_MPIS; do
    (
      build_with_mpi "$flavour"
      folder=release
      [ "$(profile_for "$flavour")" = release ] || folder=debug
      tests/hosts.sh "$CARGO_TARGET_DIR/$folder/rankpool" "${scenarios[@]}"
    )
  done
}

step_slurm() {
  local flavour install=(--qsub) limit=600 part=()
  if [ "$RANKPOOL_TEST_SLURM" = short ]; then
    install=()
    limit=120
    part=(--short)
  fi
  tests/slurm.sh --install "${install[@]}" || skip 'there is no Slurm here, and it could not be installed'
  for flavour in $RANKPOOL_TEST_MPIS; do
    (
      build_with_mpi "$flavour"
      folder=release
      [ "$(profile_for "$flavour")" = release ] || folder=debug
      RANKPOOL=$CARGO_TARGET_DIR/$folder/rankpool tests/slurm.sh --seconds "$limit" bash tests/sbatch.sh "${part[@]}"
    )
  done
}

title() {
  case $1 in
    format) echo 'Format' ;;
    lint) echo 'Lint, without MPI and with it' ;;
    deps) echo 'Dependencies and the package' ;;
    msrv) echo 'The oldest Rust that is promised' ;;
    shell) echo 'Shell scripts' ;;
    test) echo 'Tests without MPI' ;;
    python) echo 'Python scripts' ;;
    openmpi) echo 'MPI tests under Open MPI' ;;
    mpich) echo 'MPI tests under MPICH' ;;
    terminal) echo 'The bar and top, in a terminal' ;;
    local) echo 'One command on this machine' ;;
    scripts) echo 'Job scripts, with pretended schedulers' ;;
    hosts) echo 'Hosts that fail, made of network namespaces' ;;
    slurm) echo 'Job scripts in a real Slurm' ;;
    *) return 1 ;;
  esac
}

# In seconds; several times what it takes on two cores when everything has to be built and installed.
time_limit() {
  case $1 in
    format | shell | deps | scripts) echo 300 ;;
    *) echo 2700 ;;
  esac
}

# The MPI that clippy sees, and whose folder the builds without MPI are in: the one that is built with all checks, if both are.
checked_mpi=${RANKPOOL_TEST_MPIS:-}
checked_mpi=${checked_mpi##* }

# How this script calls itself for one step. `set -e` works there as it should; in a condition it would not.
if [ "${1:-}" = --inside ]; then
  step=$2
  shift 2
  "step_$step" "$@"
  exit
fi

### What is to be run.

only=()
mpis='openmpi mpich'
export RANKPOOL_TEST_SLURM=short
while [ $# -gt 0 ]; do
  case $1 in
    -h | --help)
      usage
      exit 0
      ;;
    --only)
      [ $# -ge 2 ] || misuse '--only needs the name of a step'
      title "$2" >/dev/null || misuse "there is no step $2"
      only+=("$2")
      # Who asks for this step alone has the time.
      [ "$2" != slurm ] || RANKPOOL_TEST_SLURM=all
      shift 2
      ;;
    --mpi)
      case ${2:-} in
        openmpi | mpich) mpis=$2 ;;
        both) mpis='openmpi mpich' ;;
        *) misuse '--mpi is openmpi, mpich or both' ;;
      esac
      shift 2
      ;;
    --slurm)
      RANKPOOL_TEST_SLURM=all
      shift
      ;;
    --)
      shift
      break
      ;;
    *) misuse "no such option: $1" ;;
  esac
done
# Each MPI is looked for by itself: a compiler wrapper of the other flavour is passed over.
export RANKPOOL_TEST_MPIS=$mpis

steps=("${only[@]}")
export RANKPOOL_TEST_ALL=no
if [ ${#steps[@]} -eq 0 ]; then
  RANKPOOL_TEST_ALL=yes
  # shellcheck disable=SC2206  # the names of the MPIs are words
  steps=(format lint deps msrv shell scripts test python $mpis terminal local hosts slurm)
fi

command -v cargo >/dev/null || {
  echo 'run.sh: error: there is no cargo on the PATH. Install Rust (https://rustup.rs), then run this again.' >&2
  exit 1
}

### Running a step: a process that `timeout` puts into a group of its own, known by a mark in its environment.

mark=RANKPOOL_TEST_RUN=$$
child=

# The processes of the running step, wherever they went: a launcher's ranks are in groups of their own.
marked() {
  local file pid
  for file in /proc/[0-9]*/environ; do
    pid=${file//[!0-9]/}
    if { tr '\0' '\n' <"$file"; } 2>/dev/null | grep -qxF "$mark"; then printf '%s\n' "$pid"; fi
  done
}

# Ends what is left of a step, and says so with its exit code. Ranks get a moment to notice that their launcher is gone.
end_leftovers() {
  local left try pid
  for try in 1 2 3 4 5 6; do
    left=$(marked)
    [ -n "$left" ] || return 0
    [ "$try" = 6 ] || sleep 0.5
  done
  for pid in $left; do
    printf 'left running, and ended now: %s %s\n' "$pid" "$(tr '\0' ' ' 2>/dev/null <"/proc/$pid/cmdline" || true)"
    kill -KILL "$pid" 2>/dev/null || true
  done
  return 1
}

interrupted() {
  trap '' INT TERM HUP
  printf '\nrun.sh: interrupted: ending the running step\n' >&2
  if [ -n "$child" ]; then
    # `timeout` hands it on to the step's whole group, and kills the group if that does not help.
    kill -TERM "$child" 2>/dev/null || true
    wait "$child" || true
  fi
  end_leftovers >&2 || true
  exit 130
}
trap interrupted INT TERM HUP

# What all steps up to now have computed, on all cores together. It tells on a busy machine, too, what a step costs.
cpu_seconds() {
  local stat
  read -r -a stat </proc/$$/stat
  echo $(((stat[15] + stat[16]) / $(getconf CLK_TCK)))
}

passed=0
failed=0
verdicts=()
for step in "${steps[@]}"; do
  printf '\n=== %s (%s)\n' "$(title "$step")" "$step"
  start=$SECONDS
  computed=$(cpu_seconds)
  limit=$(time_limit "$step")
  status=0
  env "$mark" timeout --kill-after=15 "$limit" bash "$self" --inside "$step" "$@" </dev/null &
  child=$!
  wait "$child" || status=$?
  child=
  [ "$status" != 124 ] && [ "$status" != 137 ] || echo "took longer than $limit seconds"
  if ! end_leftovers && [ "$status" = 0 ]; then status=1; fi
  case $status in
    0)
      verdict=passed
      passed=$((passed + 1))
      ;;
    "$skipped") verdict=skipped ;;
    *)
      verdict=FAILED
      failed=$((failed + 1))
      ;;
  esac
  line=$(printf '%-8s %-8s %4s s, computing %4s s  %s' "$verdict" "$step" $((SECONDS - start)) \
    $(($(cpu_seconds) - computed)) "$(title "$step")")
  verdicts+=("$line")
  [ "$verdict" != FAILED ] || printf -- '--- %s FAILED\n' "$step"
done

printf '\n=== Verdict\n'
printf '%s\n' "${verdicts[@]}"
printf 'All together %s s, computing %s s\n' "$SECONDS" "$(cpu_seconds)"
[ "$failed" = 0 ] || printf 'Run one of them again with: tests/run.sh --only STEP\n'
printf '%s passed, %s failed\n' "$passed" "$failed"
[ "$failed" = 0 ]
