#!/usr/bin/env bash
# Builds the wheel and the source distribution of the Python module, installs the wheel into fresh virtual environments, and
# tries it there: no MPI, no Rust, nothing but the wheel and what it depends on.
#
# Usage: tests/python/wheel.sh [--release] [--keep FOLDER]
#
#   --release       build it as it is published; without it, the development build is wrapped, which is much faster
#   --keep FOLDER   leave the wheel and the source distribution there
#
# It tries python3, and each of python3.9, python3.12 and python3.13 that is here (in the PATH or in pyenv's folder). If
# RANKPOOL_MPIEXEC and RANKPOOL_MPI_EXE (a rankpool with MPI) are set, the installed module also starts that program with
# that launcher.
#
# The last line is `wheel: N checks passed`; the exit code is 1 at the first that fails.
set -euo pipefail

top=$(cd "$(dirname "${BASH_SOURCE[0]}")/../.." && pwd)
profile=dev
keep=
while [ $# -gt 0 ]; do
  case $1 in
    --release) profile=release ;;
    --keep)
      [ $# -ge 2 ] || { echo 'wheel.sh: --keep needs a folder' >&2; exit 2; }
      keep=$(mkdir -p "$2" && cd "$2" && pwd)
      shift
      ;;
    -h | --help)
      sed -n '2,/^set/{/^set/d;s/^# \{0,1\}//p}' "$0"
      exit 0
      ;;
    *)
      printf 'wheel.sh: unknown option %s\nTry: tests/python/wheel.sh --help\n' "$1" >&2
      exit 2
      ;;
  esac
  shift
done

work=$(mktemp -d "${TMPDIR:-/tmp}/rankpool-wheel-XXXXXX")
cleanup() {
  local left
  # Only processes whose program or arguments are in the folder of this test.
  left=$(pgrep -f -- "$work/" || true)
  # shellcheck disable=SC2086 # a list of numbers
  [ -z "$left" ] || kill -KILL $left 2>/dev/null || true
  rm -rf "$work"
}
trap cleanup EXIT
target=${CARGO_TARGET_DIR:-$top/target}
export CARGO_TARGET_DIR=$target
unset PYTHONPATH RANKPOOL_EXE
export PIP_DISABLE_PIP_VERSION_CHECK=1

passed=0
check() {
  printf 'ok: %s\n' "$1"
  passed=$((passed + 1))
}
fail() {
  printf 'FAILED: %s\n' "$*" >&2
  exit 1
}

# Prints the path of a Python of this version that works.
find_python() {
  local candidate
  for candidate in "$1" "${PYENV_ROOT:-$HOME/.pyenv}"/versions/"${1#python}".*/bin/"$1"; do
    if "$candidate" -c 'import ensurepip, venv' >/dev/null 2>&1; then
      command -v -- "$candidate"
      return 0
    fi
  done
  return 1
}

# Everything in the wheel is tried with nothing else in the environment: no Rust, no MPI's variables, no rankpool of ours.
clean() {
  local venv=$1
  shift
  (cd "$work/elsewhere" && timeout 120 env -i HOME="$work/home" TMPDIR="$work/tmp" PATH="$venv/bin:/usr/bin:/bin" "$@")
}

wait_until_none_is_left() {
  local _
  for _ in $(seq 100); do
    pgrep -f -- "$1" >/dev/null || return 0
    sleep 0.1
  done
  pgrep -af -- "$1" >&2
  fail "processes are left $2"
}

mkdir -p "$work/elsewhere" "$work/home" "$work/tmp"
cat >"$work/elsewhere/script.py" <<'END'
import sys
from importlib.metadata import version

from rankpool import Executor, Pool


def cube(x):
    return x**3


if __name__ == "__main__":
    offset = len(sys.argv)
    with Executor() as executor:
        assert list(executor.map(cube, range(100))) == [x**3 for x in range(100)]
        assert executor.submit(lambda x: x + offset, 1).result() == 1 + offset
    with Pool(2) as pool:
        assert pool.starmap(pow, [(2, 3), (3, 2)]) == [8, 9]
    print("version", version("rankpool"))
END
cat >"$work/elsewhere/names.py" <<'END'
import importlib
import pkgutil
import types

import rankpool

# Every module is imported first: none may hide a name of the package.
for module in pkgutil.walk_packages(rankpool.__path__, "rankpool."):
    try:
        importlib.import_module(module.name)
    except ModuleNotFoundError as error:
        assert not error.name.startswith("rankpool"), error
for name in rankpool.__all__:
    assert not isinstance(getattr(rankpool, name), types.ModuleType), name
    assert getattr(rankpool, name).__doc__, name
END
cat >"$work/elsewhere/typed.py" <<'END'
import concurrent.futures
from typing import Iterator

from rankpool import Executor, Pool, Shared, share


def cube(x: int) -> int:
    return x**3


with Executor(retries=1, timeout=2.5) as executor:
    future: concurrent.futures.Future[int] = executor.submit(cube, 3)
    texts: Iterator[str] = executor.map(str, [1, 2])
    wrong: str = executor.submit(cube, 3).result()
with Pool(2) as pool:
    pool.starmap(pow, [(1, 2)])
handle: Shared[bytes] = share(b"")
executor.nonsense()
END
cat >"$work/elsewhere/launched.py" <<'END'
import os
import sys
import time

from rankpool import Executor


def rank(seconds):
    time.sleep(seconds)
    return os.environ["RANKPOOL_RANK"]


if __name__ == "__main__":
    with Executor(launcher=sys.argv[1]) as executor:
        futures = [executor.submit(rank, 0.05) for _ in range(40)]
        print(sorted({future.result() for future in futures}))
END

### The wheel and the source distribution.

builder=${RANKPOOL_TARGET_BASE:-$target}/python/maturin
if ! "$builder/bin/maturin" --version >/dev/null 2>&1; then
  python3 -m venv --clear "$builder"
  timeout 300 "$builder/bin/pip" install --quiet 'maturin>=1.9,<2'
fi
version=$(sed -n 's/^version *= *"\(.*\)"/\1/p' "$top/Cargo.toml" | head -n 1)

(cd "$top/python" && timeout 1800 "$builder/bin/maturin" build --profile "$profile" --out "$work/wheels" >"$work/build.log" 2>&1) ||
  { cat "$work/build.log" >&2; fail 'maturin cannot build the wheel'; }
wheel=$(echo "$work"/wheels/*.whl)
case $wheel in
  *"/rankpool-$version-py3-none-"*linux*.whl) check "the wheel has Cargo.toml's version: ${wheel##*/}" ;;
  *) fail "the wheel is called ${wheel##*/}; Cargo.toml says version $version" ;;
esac
python3 -m zipfile -l "$wheel" | awk 'NR > 1 { print $1 }' >"$work/in-wheel"
for file in rankpool/__init__.py rankpool/py.typed "rankpool-$version.data/scripts/rankpool" \
  "rankpool-$version.dist-info/licenses/LICENSE"; do
  grep -qxF -- "$file" "$work/in-wheel" || fail "$file is not in the wheel"
done
python3 -c 'import sys, zipfile; print(zipfile.ZipFile(sys.argv[1]).read(sys.argv[2]).decode())' \
  "$wheel" "rankpool-$version.dist-info/METADATA" >"$work/metadata"
for line in 'Requires-Python: >=3.9' 'Requires-Dist: cloudpickle' 'License-Expression: MIT'; do
  grep -qF -- "$line" "$work/metadata" || fail "the wheel does not say: $line"
done
check 'the wheel says what it needs'
(cd "$top/python" && find rankpool -name '*.py' -not -path '*/__pycache__/*') | sort >"$work/modules"
if grep -E '\.py$' "$work/in-wheel" | sort | diff "$work/modules" -; then
  check 'every module is in the wheel, and nothing else'
else
  fail 'the modules in the wheel are not those of python/rankpool'
fi

(cd "$top/python" && timeout 300 "$builder/bin/maturin" sdist --out "$work/sdist" >"$work/sdist.log" 2>&1) ||
  { cat "$work/sdist.log" >&2; fail 'maturin cannot make the source distribution'; }
# The same place each time, and the same folder of builds, so that only what has changed is compiled.
unpacked=${RANKPOOL_TARGET_BASE:-$target}/python/unpacked
rm -rf "$unpacked"
mkdir -p "$unpacked"
tar -xzf "$work"/sdist/*.tar.gz -C "$unpacked" --strip-components 1
for file in pyproject.toml Cargo.toml Cargo.lock src/main.rs python/rankpool/__init__.py LICENSE PYPI.md; do
  [ -e "$unpacked/$file" ] || fail "$file is not in the source distribution"
done
(cd "$unpacked" && timeout 1800 "$builder/bin/maturin" build --profile "$profile" --out "$work/again" >"$work/build.log" 2>&1) ||
  { cat "$work/build.log" >&2; fail 'the source distribution cannot be built'; }
if python3 -m zipfile -l "$(echo "$work"/again/*.whl)" | awk 'NR > 1 { print $1 }' | sort | diff <(sort "$work/in-wheel") -; then
  check 'the source distribution builds the same wheel'
else
  fail 'the wheel that was built from the source distribution has other files'
fi

### In fresh virtual environments.

for name in python3 python3.9 python3.12 python3.13; do
  python=$(find_python "$name") || {
    echo "skipped: there is no $name here"
    continue
  }
  venv=$work/$name
  "$python" -m venv "$venv"
  timeout 300 "$venv/bin/pip" install --quiet "$wheel"
  "$venv/bin/pip" check >/dev/null || fail "$name: pip check"
  [ "$(clean "$venv" rankpool --version)" = "rankpool $version" ] || fail "$name: rankpool --version"
  [ "$(clean "$venv" python -c 'import rankpool; print(rankpool.__version__)')" = "$version" ] ||
    fail "$name: import rankpool, its __version__"
  check "$name: the command and the module have version $version"
  clean "$venv" python names.py || fail "$name: a name of the package"
  clean "$venv" rankpool --local 1 python names.py || fail "$name: a name of the package by rankpool python"
  for flags in '' '-X dev' '-O'; do
    # shellcheck disable=SC2086 # words
    output=$(clean "$venv" python $flags script.py 2>"$work/stderr") || { cat "$work/stderr" >&2; fail "$name $flags script.py"; }
    [ "$output" = "version $version" ] || fail "$name $flags script.py printed: $output"
    [ ! -s "$work/stderr" ] || { cat "$work/stderr" >&2; fail "$name $flags script.py wrote this to standard error"; }
  done
  check "$name: a script with an executor, also with -X dev and -O"
  [ "$(clean "$venv" rankpool --local 2 python script.py one two)" = "version $version" ] || fail "$name: rankpool python script.py"
  check "$name: the same script by rankpool python"
  wait_until_none_is_left "$venv/" "by $name"
  check "$name: no process is left"
done

# Types: two lines of typed.py are wrong, and a type checker says so.
timeout 300 "$work/python3/bin/pip" install --quiet mypy
clean "$work/python3" mypy --follow-imports=silent typed.py >"$work/types" || true
if [ "$(grep -c ': error:' "$work/types")" = 2 ] && grep -q 'expression has type "int", variable has type "str"' "$work/types" && grep -q nonsense "$work/types"; then
  check 'a type checker knows the types of the module'
else
  cat "$work/types" >&2
  fail 'a type checker does not find the two mistakes in typed.py'
fi

# A folder of packages without an environment: the program is in its bin folder.
timeout 300 "$work/python3/bin/pip" install --quiet --target "$work/folder" "$wheel"
output=$(clean "$work/nowhere" PYTHONPATH="$work/folder" "$(find_python python3)" script.py) || fail 'script.py after pip install --target'
[ "$output" = "version $version" ] || fail "script.py after pip install --target printed: $output"
check 'the module finds its program after pip install --target'
clean "$work/nowhere" "$(find_python python3)" -m pip install --quiet --user --break-system-packages "$wheel" >/dev/null 2>&1 ||
  clean "$work/nowhere" "$(find_python python3)" -m pip install --quiet --user "$wheel"
output=$(clean "$work/nowhere" "$(find_python python3)" script.py) || fail 'script.py after pip install --user'
[ "$output" = "version $version" ] || fail "script.py after pip install --user printed: $output"
check 'the module finds its program after pip install --user'

if [ -n "${RANKPOOL_MPIEXEC:-}" ] && [ -n "${RANKPOOL_MPI_EXE:-}" ]; then
  output=$(cd "$work/elsewhere" && RANKPOOL_EXE=$RANKPOOL_MPI_EXE RANKPOOL_THREADS=1 timeout 120 "$work/python3/bin/python" launched.py \
    "$RANKPOOL_MPIEXEC ${RANKPOOL_MPIEXEC_FLAGS:-} -n 2") || fail 'a launcher and a rankpool with MPI'
  [ "$output" = "['0', '1']" ] || fail "jobs of two ranks under $RANKPOOL_MPIEXEC ran in: $output"
  check 'the installed module starts a rankpool with MPI by its launcher'
fi

if [ -n "$keep" ]; then
  cp "$wheel" "$work"/sdist/*.tar.gz "$keep/"
fi
echo "wheel: $passed checks passed"
