#!/usr/bin/env python3
"""Runs the package's own tests (test_*.py) as a script of `rankpool python`, on two ranks that are threads.

    tests/python/units.py                  with this interpreter
    tests/python/units.py --all            also in development mode, optimised, and with every other Python that is here
    RANKPOOL_MPIEXEC=mpiexec tests/python/units.py        under a launcher, with a rankpool that has MPI
"""

import os
import subprocess
import sys
from pathlib import Path

sys.path.insert(0, os.path.dirname(os.path.abspath(__file__)))

from environments import TOP, environment, program, with_ranks  # noqa: E402

PACKAGES = ["cloudpickle", "numpy", "joblib", "tqdm"]
# The oldest one, and newer ones than most have.
OTHERS = ("3.9", "3.10", "3.12", "3.13", "3.14")
MODES = (
    {"PYTHONDEVMODE": "1", "PYTHONHASHSEED": "1"},
    {"PYTHONOPTIMIZE": "1", "PYTHONHASHSEED": "2"},
)
LIMIT = 600


def interpreters():
    """Other interpreters of this machine that work, also those that pyenv keeps."""
    folders = [Path(folder) for folder in os.environ.get("PATH", "").split(os.pathsep)]
    folders += sorted(Path.home().glob(".pyenv/versions/*/bin"))
    for version in OTHERS:
        for folder in folders:
            exe = folder / f"python{version}"
            if not exe.exists():
                continue
            works = subprocess.run([exe, "-c", "import venv, ssl"], stderr=subprocess.DEVNULL, timeout=60)
            if works.returncode == 0:
                yield version, str(exe)
                break


def run(what, folder, variables):
    """Runs all tests; returns whether they passed."""
    print(f"units: {what}", flush=True)
    words = [*with_ranks(2), "python", "--python-exe", str(folder / "bin/python"), "-m", "unittest", "discover"]
    words += ["-s", str(TOP / "tests/python"), "-p", "test_*.py"]
    env = {**os.environ, **variables, "RANKPOOL_EXE": program(), "PYTHONDONTWRITEBYTECODE": "1"}
    return subprocess.run(words, env=env, timeout=LIMIT, cwd=TOP).returncode == 0


def main():
    everything = "--all" in sys.argv[1:]
    folder = environment("units", PACKAGES, sys.executable)
    failed = [] if run("this interpreter", folder, {}) else ["this interpreter"]
    if everything:
        rounds = [(" ".join(f"{name}={value}" for name, value in mode.items()), folder, mode) for mode in MODES]
        for version, exe in interpreters():
            rounds.append((f"Python {version}", environment(f"units-{version}", PACKAGES, exe), {}))
        failed += [what for what, there, mode in rounds if not run(what, there, mode)]
    if failed:
        sys.exit(f"units: failed: {'; '.join(failed)}")


if __name__ == "__main__":
    main()
