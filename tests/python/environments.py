"""Virtual environments for tests and benchmarks, the program under test, and processes that must not outlive a test.

The environments are made in `target/python` (or below `$RANKPOOL_TARGET_BASE`, `$CARGO_TARGET_DIR`) when they are asked for,
and kept.
"""

import fcntl
import hashlib
import os
import shlex
import shutil
import signal
import subprocess
import sys
import time
import uuid
from pathlib import Path

TOP = Path(__file__).resolve().parent.parent.parent
# The folder with the package `rankpool` for scripts that are not started by `rankpool python`.
PACKAGE = Path(os.environ.get("RANKPOOL_PACKAGE") or TOP / "python")
TARGET = Path(os.environ.get("CARGO_TARGET_DIR") or TOP / "target")
VENVS = Path(os.environ.get("RANKPOOL_TARGET_BASE") or TARGET) / "python"
MARK = "RANKPOOL_TEST_MARK"


def program():
    """Returns the path of the rankpool that is tested: $RANKPOOL_EXE, or the newest build."""
    given = os.environ.get("RANKPOOL_EXE")
    if given:
        return os.path.abspath(given)
    builds = [path for path in (TARGET / "debug/rankpool", TARGET / "release/rankpool") if path.exists()]
    if not builds:
        sys.exit("There is no rankpool: cargo build --no-default-features --features program, or set RANKPOOL_EXE")
    return str(max(builds, key=lambda path: path.stat().st_mtime))


def environment(name, packages, python="python3"):
    """Returns the folder of a virtual environment with these packages; makes it if there is none, or another list."""
    folder = VENVS / name
    wanted = hashlib.sha256(repr((python, sorted(packages))).encode()).hexdigest()
    stamp = folder / "packages"
    VENVS.mkdir(parents=True, exist_ok=True)
    with open(VENVS / f"{name}.lock", "w") as lock:
        # Another test may be making it; its pip ends in time.
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not stamp.exists() or stamp.read_text() != wanted:
            print(f"installing into {folder}: {' '.join(packages)}", file=sys.stderr)
            shutil.rmtree(folder, ignore_errors=True)
            subprocess.run([python, "-m", "venv", folder], check=True, timeout=120)
            install = [folder / "bin/python", "-m", "pip", "install", "--quiet", "--disable-pip-version-check", *packages]
            subprocess.run(install, check=True, timeout=900)
            stamp.write_text(wanted)
    return folder


def with_ranks(ranks, threads=1):
    """Returns the words that start rankpool with this number of ranks: under $RANKPOOL_MPIEXEC, or as threads of one process."""
    launcher = os.environ.get("RANKPOOL_MPIEXEC")
    if launcher:
        flags = shlex.split(os.environ.get("RANKPOOL_MPIEXEC_FLAGS", ""))
        return [*shlex.split(launcher), *flags, "-n", str(ranks), program(), "--threads", str(threads)]
    return [program(), "--local", str(ranks), "--threads", str(threads)]


class Marked:
    """Environment variables with a mark in them, by which all processes are found that were started with them."""

    def __init__(self, **variables):
        self.mark = uuid.uuid4().hex
        self.variables = {**os.environ, MARK: self.mark, **variables}

    def processes(self):
        """Returns the numbers of the processes that live and have the mark."""
        wanted = f"{MARK}={self.mark}".encode()
        found = []
        for entry in Path("/proc").iterdir():
            if not entry.name.isdigit():
                continue
            try:
                if wanted in (entry / "environ").read_bytes().split(b"\0"):
                    state = (entry / "stat").read_text().rpartition(")")[2].split()[0]
                    if state not in "ZX":
                        found.append(int(entry.name))
            except OSError:
                pass
        return found

    def end(self):
        """Kills what is left."""
        for process in self.processes():
            try:
                os.kill(process, signal.SIGKILL)
            except ProcessLookupError:
                pass

    def left(self, seconds=20):
        """Returns the commands of the processes that are left after at most this number of seconds, and kills these."""
        end = time.monotonic() + seconds
        while self.processes() and time.monotonic() < end:
            time.sleep(0.05)
        commands = []
        for process in self.processes():
            try:
                words = Path(f"/proc/{process}/cmdline").read_bytes().split(b"\0")
                commands.append(b" ".join(words).decode(errors="replace"))
            except OSError:
                pass
        self.end()
        return commands


def run(words, seconds=180, cwd=None, **variables):
    """Runs a program to its end and returns it, with its output as text. What it leaves running is an error."""
    marked = Marked(**variables)
    words = [str(word) for word in words]
    try:
        ended = subprocess.run(
            words, env=marked.variables, cwd=cwd, stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=seconds
        )
    except subprocess.TimeoutExpired as error:
        marked.end()
        raise AssertionError(f"not done after {seconds} s: {shlex.join(words)}\n{error.stdout}\n{error.stderr}") from None
    left = marked.left()
    if left:
        raise AssertionError(f"left running by {shlex.join(words)}:\n" + "\n".join(left))
    return ended


def succeed(words, seconds=180, cwd=None, **variables):
    """The same; another exit code than 0 is an error."""
    ended = run(words, seconds, cwd, **variables)
    if ended.returncode != 0:
        raise AssertionError(f"exit code {ended.returncode}: {shlex.join(map(str, words))}\n{ended.stdout}\n{ended.stderr}")
    return ended
