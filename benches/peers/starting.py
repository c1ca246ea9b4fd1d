"""The words that start a measuring script with a pool: by itself, under `rankpool python`, under a launcher."""

import os
import shlex
import shutil
import subprocess
import sys
from pathlib import Path

TOP = Path(__file__).resolve().parent.parent.parent


class Starter:
    """The programs of $RANKPOOL_EXE, $RANKPOOL_MPI_EXE and $RANKPOOL_MPIEXEC, or what is found here."""

    def __init__(self, python):
        self.python = python
        self.program = os.environ.get("RANKPOOL_EXE") or str(TOP / "target/release/rankpool")
        if not os.path.exists(self.program):
            sys.exit(f"There is no {self.program}: cargo build --release, or set RANKPOOL_EXE")
        self.mpi_program = os.environ.get("RANKPOOL_MPI_EXE") or self.program
        self.launcher = self.find_launcher()

    def find_launcher(self):
        """Returns the words of a launcher for which rankpool has two ranks, or None."""
        flags = shlex.split(os.environ.get("RANKPOOL_MPIEXEC_FLAGS", ""))
        words = [*shlex.split(os.environ.get("RANKPOOL_MPIEXEC") or "mpiexec"), *flags]
        if not shutil.which(words[0]):
            return None
        ended = subprocess.run(
            [*words, "-n", "2", self.mpi_program, "info"], capture_output=True, text=True, timeout=60, stdin=subprocess.DEVNULL
        )
        if "2 ranks" in ended.stdout or "rank 1" in ended.stdout:
            return words
        print(f"no figures with a launcher: {shlex.join(words)} does not start two ranks of {self.mpi_program}")
        return None

    def words(self, script, pool, launched=False, ranks=2, threads=1, options=()):
        """Returns the words that start the measuring script with this pool."""
        mine = pool.partition(".")[0] == "rankpool"
        python = str(self.python)
        if pool == "mpi4py":
            return [*self.launcher, "-n", str(ranks), python, "-m", "mpi4py.futures", str(script), "mpi4py"]
        if not mine:
            return [python, str(script), pool]
        if launched:
            start = [*self.launcher, "-n", str(ranks), self.mpi_program]
        else:
            start = [self.program, "--local", str(ranks)]
        return [*start, "--threads", str(threads), "-q", "python", "--python-exe", python, *options, str(script), pool]
