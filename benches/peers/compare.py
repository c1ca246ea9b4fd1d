#!/usr/bin/env python3
"""Measures rankpool beside the pools and programs that one would use instead of it, and writes docs/speed.md.

    benches/peers/compare.py                    everything: about ten minutes on two idle cores
    benches/peers/compare.py --quick            whether everything runs: a minute, and figures that mean nothing
    benches/peers/compare.py --only ray loky    these contenders alone (--list shows their names)
    benches/peers/compare.py --page             docs/speed.md and its pictures again, from docs/speed.json

It makes a virtual environment in target/python, installs GNU parallel with apt-get if it can, and runs the same work on two workers
of each contender: one contender after the other, round after round. Only a whole measurement writes to docs/; with --quick and
--only the page goes to target/peers (--out DIR: elsewhere). With MPI:

    (source slurm/mpi.sh; mpi_setup openmpi; cargo build --release --locked
     RANKPOOL_EXE=$CARGO_TARGET_DIR/release/rankpool benches/peers/compare.py)

The program is $RANKPOOL_EXE, or target/release/rankpool; $RANKPOOL_MPIEXEC, $RANKPOOL_MPIEXEC_FLAGS and $RANKPOOL_MPI_EXE are as in
benches/python.py. Exit code 1: a contender failed, or results differ; then --out must be given to write to docs/.
"""

import argparse
import datetime
import json
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path

TOP = Path(__file__).resolve().parent.parent.parent
HERE = TOP / "benches/peers"
sys.path[:0] = [str(TOP / "tests/python"), str(HERE)]

import machine  # noqa: E402
from environments import VENVS, Marked, environment  # noqa: E402
from figures import digest  # noqa: E402
from slow_fn import inputs, samples, widths  # noqa: E402
from starting import Starter  # noqa: E402

PEERS = ["mpi4py", "loky", "joblib", "dask", "distributed", "ray", "pathos", "p_tqdm", "hyperqueue"]
PACKAGES = [*PEERS, "cloudpickle", "numpy", "matplotlib"]
# No process of a contender runs longer than this, in seconds.
LIMIT = 180
LENGTHS = [3e-6, 1e-5, 3e-5, 1e-4, 3e-4, 1e-3, 3e-3, 1e-2, 3e-2, 1e-1]
COMMAND_LENGTHS = [1e-3, 3e-3, 1e-2, 3e-2, 1e-1]


class Sizes:
    """How much is measured."""

    def __init__(self, quick):
        self.each = 0.01 if quick else 0.15
        self.bench_each = 0.01 if quick else 0.1
        self.lengths = LENGTHS[3:8:2] if quick else LENGTHS
        self.command_lengths = COMMAND_LENGTHS[::2] if quick else COMMAND_LENGTHS
        self.vectors = 16 if quick else 256
        self.widths, self.samples = (8, 500) if quick else (100, 10_000)
        self.commands = 100 if quick else 2000
        self.command_seconds = 0.05 if quick else 0.6
        self.map_jobs = 1000 if quick else 100_000
        self.tasks = 0.05 if quick else 0.5


class Failure(Exception):
    """A contender could not be measured. Its text is a few words for the page."""


class Runner:
    """Runs processes with a bound on their time, and ends what they leave."""

    def __init__(self, folder):
        self.folder = Path(folder)
        self.variables = {
            # What contenders write at home goes away with the folder.
            "HOME": str(self.folder / "home"),
            "TMPDIR": str(self.folder / "tmp"),
            "JOBLIB_TEMP_FOLDER": str(self.folder / "tmp"),
            "RANKPOOL_RAY_FOLDER": str(self.folder / "ray"),
            "RAY_USAGE_STATS_ENABLED": "0",
            "RAY_DISABLE_IMPORT_WARNING": "1",
        }
        for name in ("home", "tmp"):
            (self.folder / name).mkdir()

    def run(self, words, **streams):
        """Returns the wall time of a process, and its standard output."""
        marked = Marked(**self.variables)
        words = [str(word) for word in words]
        start = time.perf_counter()
        process = subprocess.Popen(
            words, env=marked.variables, cwd=self.folder, text=True, start_new_session=True,
            stdin=subprocess.DEVNULL, **{"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, **streams},
        )
        try:
            out, err = process.communicate(timeout=LIMIT)
            seconds = time.perf_counter() - start
        except subprocess.TimeoutExpired:
            raise Failure(f"not done after {LIMIT} s") from None
        finally:
            left = marked.left(10 if process.poll() is not None else 0)
            process.wait()
        if left:
            say(f"    ended what was left: {len(left)} process(es), the first one {left[0][:80]}")
        if process.returncode != 0:
            say("    " + " ".join(words)[:300] + "\n" + (err or "")[-2000:])
            raise Failure(f"exit code {process.returncode}")
        return seconds, out or ""


def say(text):
    print(text, file=sys.stderr, flush=True)


class Comparison:
    """The contenders, each with a function that returns its figures of one round."""

    def __init__(self, starter, runner, sizes):
        self.starter, self.runner, self.sizes = starter, runner, sizes
        self.contenders = {}
        self.missing = {}
        self.prepare()
        self.add_python()
        self.add_programs()
        self.add_commands()

    def prepare(self):
        """Writes the inputs of programs."""
        folder, sizes = self.runner.folder, self.sizes
        self.vectors, self.points = folder / "vectors.jsonl", folder / "samples.csv"
        self.vectors.write_text("".join(json.dumps(p) + "\n" for p in inputs(sizes.vectors)))
        self.points.write_text("".join(f"{x!r},{y!r}\n" for x, y in samples(sizes.samples)))
        self.widths = folder / "widths.jsonl"
        self.widths.write_text("".join(json.dumps(width) + "\n" for width in widths(sizes.widths)))
        self.spin = folder / "spin"
        try:
            subprocess.run(["cc", "-O2", "-o", self.spin, HERE / "spin.c"], check=True, timeout=60, capture_output=True)
        except (OSError, subprocess.SubprocessError):
            self.spin = None
            self.missing["commands of each length"] = "there is no C compiler (cc)"

    # Pools of Python.

    def add_python(self):
        sizes = self.sizes
        overhead = ["overhead", sizes.each]
        curve = ["curve", sizes.each, sizes.lengths]
        work = [["slow", sizes.vectors], ["malloc", sizes.vectors], ["density", sizes.widths, sizes.samples]]
        self.add_pool("serial", work)
        for pool in ("futures", "pool", "loky", "mpi4py", "pathos", "joblib", "dask", "ray", "p_tqdm"):
            # p_tqdm is pathos with a bar.
            wanted = [overhead, *([] if pool == "p_tqdm" else [curve]), *work]
            tasks = [["tasks", sizes.tasks]] if pool == "ray" else []
            # The first rank of mpi4py.futures is no worker.
            self.add_pool(pool, wanted + tasks, launched=pool == "mpi4py", ranks=3)
            self.add_pool(f"rankpool.{pool}", [overhead, *work[:1], *tasks], launched=pool == "mpi4py")
        self.add_pool("rankpool", [overhead, curve, *work])
        self.add_pool("rankpool", [overhead, curve, *work], launched=True)
        if self.starter.launcher:
            self.contenders["mpi4py.bench"] = lambda: self.mpi4py_bench(False)
            self.contenders["mpi4py.bench rankpool"] = lambda: self.mpi4py_bench(True)

    def add_pool(self, pool, wanted, launched=False, ranks=2):
        name = f"{pool}+mpi" if launched and pool.startswith("rankpool") else pool
        if launched and not self.starter.launcher:
            self.missing[name] = "there is no MPI launcher for this rankpool"
            return

        def measure():
            words = self.starter.words(HERE / "figures.py", pool, launched, ranks)
            _, out = self.runner.run([*words, json.dumps(wanted)])
            found = [json.loads(line) for line in out.splitlines() if line.startswith('{"what"')]
            if len(found) != len(wanted) + 1:
                raise Failure("not all figures are there")
            return {figures.pop("what"): figures for figures in found}

        self.contenders[name] = measure

    def mpi4py_bench(self, ours):
        """`python -m mpi4py.bench futures` with 1 byte and 64 KiB; for rankpool with the import exchanged."""
        python, launcher = str(self.starter.python), self.starter.launcher
        # Sizes are powers of two: from 1 to 65536 bytes.
        options = ["futures", "-m", "1", "-n", "65536"]
        if ours:
            start = self.starter.words(HERE / "mpi4py_bench.py", "rankpool", launched=True)[:-1]
        else:
            start = [*launcher, "-n", "3", python, "-m", "mpi4py.futures", "-m", "mpi4py.bench"]
        _, out = self.runner.run([*start, *options])
        rows = [line.split() for line in out.splitlines() if line.strip() and not line.startswith("#")]
        rates = {row[0]: float(row[1]) for row in rows if len(row) >= 2 and row[0].isdigit()}
        return {"mpi4py.bench": {"agree": True, "1": rates["1"], "65536": rates["65536"]}}

    # rankpool's own commands.

    def start(self, launched):
        """The words that start rankpool with two workers."""
        if launched:
            return [*self.starter.launcher, "-n", "2", self.starter.mpi_program, "--threads", "1", "-q"]
        return [self.starter.program, "--local", "2", "--threads", "1", "-q"]

    def add_programs(self):
        for launched in (False, True):
            suffix = "+mpi" if launched else ""
            if launched and not self.starter.launcher:
                continue
            for name, measure in (("bench", self.bench), ("map", self.map), ("kernel", self.kernel)):
                self.contenders[name + suffix] = lambda measure=measure, launched=launched: measure(launched)

    def bench(self, launched):
        """The pool in Rust, as `rankpool bench` measures it."""
        file = self.runner.folder / "bench.json"
        self.runner.run([*self.start(launched), "bench", "--each", self.sizes.bench_each, "--json", file])
        found = json.loads(file.read_text())
        keys = (("one", "one_by_one"), ("auto", "automatic"))
        points = {
            key: [[point["seconds"], point["efficiency"]] for point in found["efficiency"][theirs]] for key, theirs in keys
        }
        overhead = {key: found["job_seconds"][theirs] * 1e6 for key, theirs in keys}
        return {"overhead": {"agree": True, **overhead}, "curve": {"agree": True, **points}}

    def program(self, launched, words):
        """Runs rankpool, and returns the seconds from the first dispatch to the last result, and the lines of results."""
        output, summary = self.runner.folder / "output.jsonl", self.runner.folder / "summary.json"
        self.runner.run([*self.start(launched), "--output", output, "--summary", summary, *words])
        lines = output.read_text().splitlines()
        output.unlink()
        return json.loads(summary.read_text())["wall_seconds"], lines

    def numbers(self, launched, words, key=None):
        seconds, lines = self.program(launched, words)
        values = [json.loads(line) for line in lines]
        return {"seconds": seconds, "digest": digest([value[key] if key else value for value in values])}

    def map(self, launched):
        def words(function):
            return ["map", "--python", f"{HERE / 'slow_fn.py'}:{function}", "--python-exe", self.starter.python]

        overhead, agree = {}, True
        for key, jobs, options in (("one", self.sizes.map_jobs // 4, ["--chunk", "1"]), ("64", self.sizes.map_jobs, ["--chunk", "64"]),
                                   ("auto", self.sizes.map_jobs, [])):
            seconds, lines = self.program(launched, [*options, *words("ident"), "--range", f"1:{jobs}"])
            agree = agree and lines == [str(k) for k in range(1, jobs + 1)]
            overhead[key] = seconds / jobs * 1e6
        found = {"overhead": {"agree": agree, **overhead}}
        for what, function in (("slow", "slow_fn"), ("malloc", "slow_fn_malloc")):
            found[what] = self.numbers(launched, [*words(function), "--input", self.vectors])
        return found

    def kernel(self, launched):
        parzen = ["parzen", "--samples", self.points, "--point", "0,0", "--input", self.widths]
        return {
            "slow": self.numbers(launched, ["kernel", "slow-fn", "--input", self.vectors]),
            "malloc": self.numbers(launched, ["kernel", "slow-fn-malloc", "--input", self.vectors]),
            "density": self.numbers(launched, ["kernel", *parzen], "density"),
        }

    # Commands.

    def add_commands(self):
        def xargs(jobs, command):
            return ["sh", "-c", 'seq "$1" | { shift; xargs -P2 -n1 "$@"; }', "sh", jobs, *command]

        def parallel(jobs, command):
            return ["sh", "-c", 'seq "$1" | { shift; parallel --will-cite -j2 "$@"; }', "sh", jobs, *command]

        def run(launched):
            def words(jobs, command):
                records = self.runner.folder / "records.jsonl"
                return [*self.start(launched), "run", "--records", records, "--range", f"1:{jobs}", "--", *command]

            return words

        ways = {"run": run(False), "xargs": xargs}
        if self.starter.launcher:
            ways["run+mpi"] = run(True)
        if find_parallel():
            ways["parallel"] = parallel
        else:
            self.missing["parallel"] = "GNU parallel is not here and could not be installed"
        for name, words in ways.items():
            self.contenders[name] = lambda words=words: self.commands(words)
        self.contenders["hyperqueue"] = self.hyperqueue

    def batches(self):
        """Numbers of commands, and the commands: /bin/true, then those of each length."""
        found = [(self.sizes.commands, ["/bin/true"])]
        if self.spin:
            for length in self.sizes.command_lengths:
                jobs = max(8, int(self.sizes.command_seconds / max(length / 2, 1e-3)))
                found.append((jobs, [str(self.spin), f"{length * 1e6:.0f}"]))
        return found

    def commands_found(self, seconds):
        lengths = self.sizes.command_lengths if self.spin else []
        jobs = [jobs for jobs, _ in self.batches()]
        points = [
            [length, length * count / (2 * wall)] for length, count, wall in zip(lengths, jobs[1:], seconds[1:])
        ]
        return {"true": {"agree": True, "us": seconds[0] / jobs[0] * 1e6}, "commands": {"agree": True, "one": points}}

    def commands(self, words):
        """From the start of the program to its end."""
        seconds = [self.runner.run(words(jobs, command), stdout=subprocess.DEVNULL)[0] for jobs, command in self.batches()]
        return self.commands_found(seconds)

    def hyperqueue(self):
        """From the submission to the end: server and worker are there."""
        _, out = self.runner.run([self.starter.python, HERE / "hyperqueue_true.py", json.dumps(self.batches())])
        # It also prints a table about its server.
        return self.commands_found([float(line) for line in out.splitlines() if line.replace(".", "").isdigit()])


def find_parallel():
    """Whether GNU parallel is here, or could be installed."""

    def is_here():
        try:
            ended = subprocess.run(["parallel", "--version"], capture_output=True, text=True, timeout=30, stdin=subprocess.DEVNULL)
            return "GNU parallel" in ended.stdout
        except (OSError, subprocess.SubprocessError):
            return False

    if is_here():
        return True
    if os.geteuid() == 0 and shutil.which("apt-get"):
        say("installing GNU parallel with apt-get")
        words = ["apt-get", "-o", "DPkg::Lock::Timeout=60", "install", "-y", "--no-install-recommends", "parallel"]
        try:
            subprocess.run(
                words, env={**os.environ, "DEBIAN_FRONTEND": "noninteractive"}, stdin=subprocess.DEVNULL, capture_output=True, timeout=300
            )
        except subprocess.SubprocessError:
            pass
    return is_here()


def rounded(value):
    """Four digits are enough."""
    if isinstance(value, float):
        return float(f"{value:.4g}")
    if isinstance(value, list):
        return [rounded(item) for item in value]
    if isinstance(value, dict):
        return {key: rounded(item) for key, item in value.items()}
    return value


def say_if_busy(facts):
    busy = facts["busy_cpus"][-1]
    if busy > machine.BUSY_CPUS:
        say(f"The machine is busy with other work ({busy:g} CPUs): the page will say that its figures are uncertain.")


def measure(comparison, names, rounds, facts):
    """Each contender once in each round, and a look at the machine after it. Returns the figures, and the failures."""
    figures, failures = {}, dict(comparison.missing)
    for number in range(rounds):
        for name in names:
            if name in failures:
                continue
            start = time.monotonic()
            try:
                found = comparison.contenders[name]()
            except (Failure, OSError, ValueError, KeyError, IndexError) as error:
                # What others say may have paths in it, which are not for the page.
                failures[name] = str(error) if isinstance(error, Failure) else "it answered something else than expected"
                figures.pop(name, None)
                say(f"  {name}: {type(error).__name__}: {error}")
                continue
            for what, values in found.items():
                figures.setdefault(name, {}).setdefault(what, []).append(rounded(values))
            say(f"round {number + 1} of {rounds}: {name} {time.monotonic() - start:.1f} s")
        # What is left of the last contender has a moment to end.
        time.sleep(1)
        facts["busy_cpus"].append(machine.busy_cpus())
        say_if_busy(facts)
    return figures, failures


def disagreements(figures):
    """What did not answer right: a contender that says so itself, and works whose results are not everywhere the same."""
    found, digests = [], {}
    for name, by_what in figures.items():
        for what, rounds in by_what.items():
            for values in rounds:
                if not values.pop("agree", True):
                    found.append(f"{name}: {what}")
                if "digest" in values:
                    digests.setdefault(what, {}).setdefault(values.pop("digest"), set()).add(name)
    for what, by_digest in digests.items():
        if len(by_digest) > 1:
            found.append(f"{what}: " + " | ".join(", ".join(sorted(names)) for names in by_digest.values()))
    return found


def wanted(names, only):
    return [name for name in names if not only or any(word in name.replace("+", " ").replace(".", " ").split() for word in only)]


def write_page(python, data, folder):
    """Draws with the matplotlib of the virtual environment."""
    readme = [TOP / "README.md"] if folder.resolve() == (TOP / "docs").resolve() else []
    words = [python, HERE / "page.py", data, folder, *readme]
    subprocess.run([str(word) for word in words], check=True, timeout=180, stdin=subprocess.DEVNULL)


def options():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--only", nargs="+", metavar="WORD", default=[], help="contenders with one of these words in their names")
    parser.add_argument("--rounds", type=int, default=3, help="how often each is measured; the median is shown")
    parser.add_argument("--quick", action="store_true", help="one round of tiny sizes")
    parser.add_argument("--page", action="store_true", help="write the page again, from the JSON that is there")
    parser.add_argument("--list", action="store_true", help="print the names of the contenders")
    parser.add_argument("--out", type=Path, metavar="DIR", help="where speed.json, speed.md and pictures go")
    return parser.parse_args()


def main():
    chosen = options()
    # What runs is ended in all cases.
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))
    is_whole = not (chosen.quick or chosen.only)
    python = environment("peers", PACKAGES) / "bin/python"
    out = chosen.out or (TOP / "docs" if is_whole else VENVS.parent / "peers")
    out.mkdir(parents=True, exist_ok=True)
    if chosen.page:
        return write_page(python, out / "speed.json", out)
    folder = tempfile.mkdtemp(prefix="rp-")
    try:
        comparison = Comparison(Starter(python), Runner(folder), Sizes(chosen.quick))
        names = wanted(comparison.contenders, chosen.only)
        if chosen.list:
            return print("\n".join(comparison.contenders))
        if not names:
            sys.exit(f"No contender has such a word in its name. There are: {' '.join(comparison.contenders)}")
        facts = machine.facts(python, PEERS, comparison.starter)
        say_if_busy(facts)
        start = time.monotonic()
        figures, failures = measure(comparison, names, 1 if chosen.quick else chosen.rounds, facts)
    finally:
        shutil.rmtree(folder, ignore_errors=True)
    wrong = disagreements(figures)
    for line in wrong:
        say(f"results differ: {line}")
    data = {
        "version": 1, "date": datetime.date.today().isoformat(), "rounds": 1 if chosen.quick else chosen.rounds,
        "minutes": round((time.monotonic() - start) / 60, 1), "quick": chosen.quick, "machine": facts,
        "sizes": vars(comparison.sizes), "not_measured": failures, "differ": wrong, "figures": figures,
    }
    if (wrong or set(failures) - set(comparison.missing)) and is_whole and not chosen.out:
        out = VENVS.parent / "peers"
        out.mkdir(parents=True, exist_ok=True)
        say("docs/ is left as it is, because something failed (--out docs writes it nevertheless)")
    (out / "speed.json").write_text(json.dumps(data, separators=(",", ":")).replace('],"', '],\n"') + "\n")
    write_page(python, out / "speed.json", out)
    say(f"{out}/speed.md, {data['minutes']} min")
    sys.exit(1 if wrong or set(failures) - set(comparison.missing) else 0)


if __name__ == "__main__":
    main()
