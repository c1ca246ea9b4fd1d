#!/usr/bin/env python3
"""Others' own test suites with rankpool in the place of what they test.

    tests/python/suites.py                                        all suites, two ranks as threads
    tests/python/suites.py --launcher "mpiexec -n 3" --options "" pool joblib

The suites are fetched when this runs, into a folder outside the source; none of their text is kept here. For each suite
there is a list under `suites/expected/` of the tests that do not apply, each with the reason. Every other test must
pass. Ends with status 0 if all is as the lists say.
"""

import argparse
import json
import os
import shlex
import shutil
import subprocess
import sys
import tarfile
import venv
from pathlib import Path

HERE = Path(__file__).resolve().parent
SUITES = HERE / "suites"
ROOT = HERE.parent.parent
PACKAGES = ["cloudpickle", "joblib==1.6.0", "numpy", "pytest", "setuptools"]
MPI4PY = "4.1.2"
LIMITS = {"futures": 300, "pool": 200, "mpi4py_futures": 200, "mpi4py_pool": 100, "joblib": 400}


def say(text):
    print(f"suites: {text}", file=sys.stderr, flush=True)


def run(command, **options):
    """Runs a command that prepares something; shows what it printed if it fails."""
    done = subprocess.run(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, timeout=600, **options)
    if done.returncode != 0:
        raise SystemExit(f"suites: this failed: {shlex.join(map(str, command))}\n{done.stdout[-3000:]}")
    return done.stdout


def environment(folder, python):
    """The interpreter of a virtual environment with what the suites need."""
    exe = folder / "venv" / "bin" / "python"
    done = folder / "venv" / "complete"
    if not done.exists() or done.read_text() != repr(PACKAGES):
        say("making a virtual environment")
        shutil.rmtree(folder / "venv", ignore_errors=True)
        if Path(python).resolve() == Path(sys.executable).resolve():
            venv.create(folder / "venv", with_pip=True)
        else:
            run([python, "-m", "venv", str(folder / "venv")])
        run([str(exe), "-m", "pip", "install", "-q", *PACKAGES])
        done.write_text(repr(PACKAGES))
    return exe


def cpython_tests(folder, exe):
    """A folder whose package `test` holds the two modules: the interpreter's own, or those of Debian's package."""
    wanted = ["test_concurrent_futures.py", "_test_multiprocessing.py"]
    target = folder / "cpython"
    if all((target / "test" / name).exists() for name in wanted):
        return target
    version, own = run([exe, "-c", "import sys, test; print('%d.%d' % sys.version_info[:2], test.__path__[0])"]).split()
    found = Path(own)
    if not all((found / name).exists() for name in wanted):
        say(f"fetching libpython{version}-testsuite")
        package = folder / "package"
        package.mkdir(exist_ok=True)
        run(["apt-get", "download", f"libpython{version}-testsuite"], cwd=package)
        for archive in package.glob("*.deb"):
            run(["dpkg-deb", "-x", str(archive), str(package / "files")])
        found = package / "files" / "usr" / "lib" / f"python{version}" / "test"
    shutil.rmtree(target, ignore_errors=True)
    (target / "test").mkdir(parents=True)
    shutil.copy(Path(own) / "__init__.py", target / "test")
    for name in ("support", "libregrtest"):
        shutil.copytree(Path(own) / name, target / "test" / name)
    for name in wanted:
        shutil.copy(found / name, target / "test")
    return target


def mpi4py_source(folder, exe):
    """The unpacked source distribution of mpi4py. pip asks it for its metadata, which needs an MPI compiler."""
    target = folder / f"mpi4py-{MPI4PY}"
    if not target.exists():
        say(f"fetching mpi4py {MPI4PY}")
        command = [str(exe), "-m", "pip", "download", "-q", "--no-deps", "--no-binary", "mpi4py", f"mpi4py=={MPI4PY}"]
        run([*command, "-d", str(folder)])
        with tarfile.open(folder / f"mpi4py-{MPI4PY}.tar.gz") as archive:
            archive.extractall(folder / "unpacked")
        (folder / "unpacked" / f"mpi4py-{MPI4PY}").rename(target)
    return target


def python_path(suite, folder, exe):
    """Where the interpreter of the script and those of the workers find the modules of a suite."""
    if suite in ("futures", "pool"):
        return [cpython_tests(folder, exe), SUITES]
    if suite.startswith("mpi4py"):
        source = mpi4py_source(folder, exe)
        return [SUITES / "mpi4py_stub", source / "demo" / "futures", source / "test", SUITES]
    return [SUITES]


def run_suite(suite, arguments, folder, exe):
    """Runs a suite. Returns what is not as its list says."""
    report = folder / f"{suite}.json"
    report.unlink(missing_ok=True)
    path = os.pathsep.join(str(entry) for entry in python_path(suite, folder, exe))
    script = [str(SUITES / "runner.py"), suite, str(SUITES / "expected" / f"{suite}.txt"), str(report)]
    command = [*shlex.split(arguments.launcher), arguments.rankpool, "python", *shlex.split(arguments.options)]
    command += ["--python-exe", str(arguments.python_exe or exe), *script]
    variables = {**os.environ, "PYTHONPATH": path, "PYTHONDONTWRITEBYTECODE": "1", "RANKPOOL_EXE": arguments.rankpool}
    output = folder / f"{suite}.log"
    with output.open("w") as file:
        started = subprocess.Popen(
            command,
            env=variables,
            stdin=subprocess.DEVNULL,
            stdout=file,
            stderr=subprocess.STDOUT,
            start_new_session=True,
        )
        try:
            status = started.wait(LIMITS[suite])
        except subprocess.TimeoutExpired:
            started.terminate()
            try:
                started.wait(20)
            except subprocess.TimeoutExpired:
                started.kill()
                started.wait()
            status = f"none within {LIMITS[suite]} s"
    if not report.exists():
        return [f"it wrote no report; its status is {status}; its output is in {output}"], {}
    found = json.loads(report.read_text())
    problems = found["problems"]
    if status != 0:
        problems.append(f"the status of `rankpool python` is {status}")
    if problems:
        problems.append(f"the output is in {output}")
    return problems, found["results"]


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("suites", nargs="*", help=f"some of: {' '.join(LIMITS)}")
    parser.add_argument("--rankpool", default=str(ROOT / "target" / "release" / "rankpool"), help="the program to test")
    parser.add_argument("--launcher", default="", help='such as "mpiexec -n 2"')
    parser.add_argument("--options", default="--local 2", help="options of `rankpool python`")
    parser.add_argument("--python", default=sys.executable, help="the interpreter for the virtual environment")
    parser.add_argument("--python-exe", help="another interpreter for script and workers than that of the environment")
    parser.add_argument("--folder", default=str(ROOT / "target" / "python" / "suites"), help="for what is fetched")
    arguments = parser.parse_args()
    unknown = set(arguments.suites) - set(LIMITS)
    if unknown:
        parser.error(f"there is no suite {' '.join(sorted(unknown))}; the suites are {' '.join(LIMITS)}")
    folder = Path(arguments.folder)
    folder.mkdir(parents=True, exist_ok=True)
    exe = environment(folder, arguments.python)
    failed = 0
    for suite in arguments.suites or LIMITS:
        problems, results = run_suite(suite, arguments, folder, exe)
        count = {kind: sum(one == kind for one in results.values()) for kind in ("passed", "skipped", "not-run")}
        say(f"{suite}: " + ", ".join(f"{number} {kind}" for kind, number in count.items()))
        for problem in problems:
            say(f"{suite}:   {problem}")
        failed += bool(problems)
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
