"""Runs the examples in Python on 1, 2 and 4 ranks, and compares what they print with the standard library's pools.

    tests/python/examples.py                       ranks are threads
    RANKPOOL_MPIEXEC=mpiexec tests/python/examples.py          under a launcher, with a rankpool that has MPI
    tests/python/examples.py Programs.test_closure             one of them
    RANKPOOL_SKY=200 tests/python/examples.py NightSky         fewer images than 2000
    RANKPOOL_TEST_PYTHON=python3.13 tests/python/examples.py   another interpreter than python3

The reference is the same program with its import line changed back, or a run of its function one job after another.
"""

import json
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import time
import unittest
from pathlib import Path

sys.path.insert(0, os.path.dirname(os.path.abspath(__file__)))

from environments import PACKAGE, TOP, Marked, environment, program, succeed, with_ranks  # noqa: E402

EXAMPLES = TOP / "examples/python"
SKY = TOP / "examples/night_sky"
PACKAGES = ["cloudpickle", "numpy", "tqdm", "joblib", "scikit-learn", "astropy", "sep"]
# RANKPOOL_TEST_RANKS="2" runs them on two ranks only.
RANKS = tuple(map(int, os.environ.get("RANKPOOL_TEST_RANKS", "1 2 4").split()))
SAMPLES = str(TOP / "tests/data/gaussian_2d.csv")

# The import lines of the examples, and those of the programs that they were made from.
STANDARD = {
    "from rankpool import Executor": "from concurrent.futures import ProcessPoolExecutor as Executor",
    "from rankpool import Pool": "from multiprocessing import Pool",
}
# Its functions cannot be pickled by name: threads stand in for processes.
THREADS = {"from rankpool import Pool": "from multiprocessing.dummy import Pool"}
SEQUENTIAL = {"import rankpool.joblib": "", "    rankpool.joblib.register()": ""}


def python():
    base = os.environ.get("RANKPOOL_TEST_PYTHON", "python3")
    return environment("examples-" + os.path.basename(base), PACKAGES, base) / "bin/python"


class Programs(unittest.TestCase):
    """Each program prints on any number of ranks what it prints with the standard library's pool."""

    def reference(self, name, arguments, changes):
        with tempfile.TemporaryDirectory() as folder:
            lines = (EXAMPLES / name).read_text().splitlines()
            for old, new in changes.items():
                self.assertIn(old, lines)
                lines = [new if line == old else line for line in lines]
            copy = Path(folder) / name
            copy.write_text("\n".join(lines))
            return succeed([python(), copy, *arguments]).stdout

    def judge(self, name, arguments, expected, bar=False):
        self.assertTrue(expected.strip())
        for ranks in RANKS:
            with self.subTest(ranks=ranks):
                words = [*with_ranks(ranks), "python", "--python-exe", python(), EXAMPLES / name, *arguments]
                ended = succeed(words)
                self.assertEqual(ended.stdout, expected)
                self.assertNotIn("Traceback", ended.stderr)
                if bar:
                    self.assertIn("100%", ended.stderr)
        with self.subTest("started by Python"):
            ended = succeed([python(), EXAMPLES / name, *arguments], PYTHONPATH=str(PACKAGE), RANKPOOL_EXE=program())
            self.assertEqual(ended.stdout, expected)
            self.assertNotIn("Traceback", ended.stderr)

    def same_as_standard(self, name, *arguments, changes=STANDARD, bar=False):
        text = (EXAMPLES / name).read_text().splitlines()
        changes = {old: new for old, new in changes.items() if old in text}
        self.assertTrue(changes, f"{name} has no import line that can be changed back")
        self.judge(name, arguments, self.reference(name, arguments, changes), bar)

    def same_as_serial(self, name, bar=False):
        arguments = ["--jobs", "60", "--small"]
        self.judge(name, arguments, succeed([python(), EXAMPLES / "slow_fn.py", *arguments]).stdout, bar)

    def test_slow_fn_with_the_executor(self):
        self.same_as_standard("slow_fn_executor.py", "60", "200")

    def test_slow_fn_with_the_pool(self):
        self.same_as_standard("slow_fn_pool.py", "60", "200")

    def test_slow_fn_with_the_names_of_mpi4py(self):
        self.same_as_serial("slow_fn_mpi4py.py")

    def test_slow_fn_with_the_communicator_of_mpi4py(self):
        self.same_as_serial("slow_fn_mpi4py_comm.py")

    def test_slow_fn_with_the_names_of_loky(self):
        self.same_as_serial("slow_fn_loky.py")

    def test_slow_fn_with_the_names_of_pathos(self):
        self.same_as_serial("slow_fn_pathos.py")

    def test_slow_fn_with_the_names_of_p_tqdm(self):
        self.same_as_serial("slow_fn_p_tqdm.py", bar=True)

    def test_slow_fn_with_the_names_of_dask(self):
        self.same_as_serial("slow_fn_dask.py")

    def test_slow_fn_with_the_names_of_ray(self):
        self.same_as_serial("slow_fn_ray.py")

    def test_slow_fn_with_the_names_of_tqdm(self):
        self.same_as_serial("slow_fn_tqdm.py", bar=True)

    def test_slow_fn_with_joblib(self):
        self.same_as_serial("slow_fn_joblib.py")

    def test_closure(self):
        self.same_as_standard("closure.py", changes=THREADS)

    def test_apply_async_and_starmap(self):
        self.same_as_standard("apply_async_starmap.py", "0.02")

    def test_a_dictionary_of_parameters_with_imap_and_a_bar(self):
        self.same_as_standard("parameters_imap_tqdm.py", bar=True)

    def test_random_strings_in_order(self):
        self.same_as_standard("random_strings.py", "50")

    def test_parzen_sweep_with_apply_async(self):
        self.same_as_standard("parzen.py", "--samples", SAMPLES)

    def test_parzen_sweep_of_a_plain_function(self):
        path = EXAMPLES / "parzen_plain.py"
        function = {}
        exec(compile(path.read_text(), "parzen_plain.py", "exec"), function)
        widths = [0.012 * step for step in (1, 50, 100)]
        words = ["map", "--python-exe", python(), "--python", f"{path}:density", "--range", "0.012:1.2:0.012"]
        for ranks in RANKS:
            lines = succeed([*with_ranks(ranks), *words]).stdout.splitlines()
            self.assertEqual(len(lines), 100)
            found = [json.loads(lines[step - 1]) for step in (1, 50, 100)]
            for width, one in zip(widths, found):
                self.assertAlmostEqual(one["width"], width)
                self.assertEqual(one, function["density"](one["width"]))

    def test_square_roots_with_a_bar(self):
        self.same_as_standard("square_roots_bar.py", bar=True)

    def test_grid_search_of_scikit_learn(self):
        arguments = ["--images", "300"]
        expected = self.reference("grid_search.py", [*arguments, "--backend", "sequential"], SEQUENTIAL)
        self.judge("grid_search.py", arguments, expected)

    def test_every_example_is_run_here(self):
        here = Path(__file__).read_text()
        names = {path.name for path in EXAMPLES.glob("*.py")}
        self.assertEqual({name for name in names if f'"{name}"' not in here}, set())

    def test_the_counts_of_the_parzen_sweep_are_the_known_ones(self):
        ended = succeed([*with_ranks(2), "python", "--python-exe", python(), EXAMPLES / "parzen.py", "--samples", SAMPLES])
        counts = [int(line.split(": ")[1].split()[0]) for line in ended.stdout.splitlines()]
        self.assertEqual(counts, [16, 61, 135, 247, 390, 547, 742, 939, 1194, 1445, 1728, 2022])

    def test_a_function_that_sleeps_runs_on_all_ranks_at_once(self):
        # Ten jobs of 0.5 s on four ranks take three turns, and not ten.
        words = [*with_ranks(4), "python", "--python-exe", python(), EXAMPLES / "apply_async_starmap.py"]
        start = time.monotonic()
        succeed([*words, "0"])
        without = time.monotonic() - start
        start = time.monotonic()
        succeed([*words, "0.5"])
        self.assertLess(time.monotonic() - start - without, 3.5)


class NightSky(unittest.TestCase):
    """Images are made once; stars are found by `rankpool map` and by the executor."""

    images = int(os.environ.get("RANKPOOL_SKY", "2000"))

    @classmethod
    def setUpClass(cls):
        cls.folder = Path(tempfile.mkdtemp(prefix="rankpool-sky-"))
        cls.addClassCleanup(shutil.rmtree, cls.folder)
        succeed([python(), SKY / "make_images.py", cls.folder / "sky", "--count", cls.images])
        cls.expected = cls.table_of_a_plain_loop()
        # The same programs, slow enough to be interrupted before their end.
        cls.slow = cls.folder / "slow"
        shutil.copytree(SKY, cls.slow)
        source = (SKY / "find_stars.py").read_text()
        slower = source.replace("    with fits.open", "    __import__('time').sleep(0.003)\n    with fits.open")
        assert slower != source
        (cls.slow / "find_stars.py").write_text(slower)

    @classmethod
    def table_of_a_plain_loop(cls):
        """The table as one process makes it, without rankpool."""
        code = (
            "import sys; sys.path.insert(0, sys.argv[1])\n"
            "from find_stars import find\n"
            "from tables import write\n"
            "write(sys.argv[3], map(find, open(sys.argv[2]).read().splitlines()))\n"
        )
        output = cls.folder / "serial.csv"
        succeed([python(), "-c", code, SKY, cls.folder / "sky/images.txt", output])
        return output.read_text()

    def map_words(self, ranks, output, *options, sky=SKY):
        words = [*with_ranks(ranks), "-q", "map", "--python-exe", python(), "--python", f"{sky}/find_stars.py:find"]
        return [*words, "--input", self.folder / "sky/images.txt", "--output", output, *options]

    def script_words(self, ranks, output, *options, sky=SKY):
        words = [*with_ranks(ranks), "python", "--python-exe", python(), *options, sky / "find_all.py"]
        return [*words, self.folder / "sky/images.txt", output]

    def check_lines(self, lines):
        table = self.folder / "from_lines.csv"
        succeed([python(), SKY / "tables.py", lines, table])
        self.assertEqual(table.read_text(), self.expected)

    def interrupt(self, words, journal, signal_number):
        """Starts a run, sends it the signal when a part of its jobs is in the journal, and waits for its end."""
        marked = Marked()
        child = subprocess.Popen(
            [str(word) for word in words], env=marked.variables, stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, start_new_session=True,
        )
        try:
            end = time.monotonic() + 60
            while not journal.exists() or journal.stat().st_size < 20_000:
                self.assertIsNone(child.poll(), "the run ended before it could be interrupted")
                self.assertLess(time.monotonic(), end, "nothing came into the journal")
                time.sleep(0.005)
            child.send_signal(signal_number)
            output, _ = child.communicate(timeout=60)
        finally:
            left = marked.left()
            child.kill()
            child.wait()
        self.assertEqual(left, [])
        return output

    def test_stars_are_found_by_map_as_by_a_loop(self):
        for ranks in RANKS:
            with self.subTest(ranks=ranks):
                lines = self.folder / f"map{ranks}.jsonl"
                succeed(self.map_words(ranks, lines))
                self.check_lines(lines)

    def test_stars_are_found_by_the_executor_as_by_a_loop(self):
        for ranks in RANKS:
            with self.subTest(ranks=ranks):
                table = self.folder / f"executor{ranks}.csv"
                succeed(self.script_words(ranks, table))
                self.assertEqual(table.read_text(), self.expected)

    def test_most_stars_are_found_and_what_is_found_are_stars(self):
        table = self.folder / "compared.csv"
        table.write_text(self.expected)
        words = [python(), SKY / "compare.py", self.folder / "sky/truth.csv", table]
        report = json.loads(succeed(words).stdout)
        # A quarter of the stars are too faint for the threshold.
        self.assertGreater(report["stars"], 7 * self.images)
        self.assertTrue(0.65 < report["completeness"] < 0.85, report)
        self.assertGreater(report["purity"], 0.98, report)
        self.assertLess(report["position_error"], 0.15, report)
        self.assertTrue(0.95 < report["flux_ratio"] < 1.02, report)
        # The comparison notices what is wrong: a table whose images are mixed up.
        lines = self.expected.splitlines()
        table.write_text("\n".join([lines[0]] + [line.replace("image_0000", "image_9999") for line in lines[1:]]))
        self.assertLess(json.loads(succeed(words).stdout)["completeness"], report["completeness"])

    def test_an_interrupted_map_is_resumed(self):
        lines, journal = self.folder / "resumed.jsonl", self.folder / "map.journal"
        options = ["--journal", journal, "--resume"]
        self.interrupt(self.map_words(2, lines, *options, sky=self.slow), journal, signal.SIGTERM)
        summary = self.folder / "map.summary"
        succeed([*self.map_words(2, lines, *options, sky=self.slow), "--summary", summary])
        self.check_lines(lines)
        self.assert_resumed(summary)

    def test_an_interrupted_script_is_resumed(self):
        for number in (signal.SIGTERM, signal.SIGKILL):
            with self.subTest(signal=number.name):
                table, journal = self.folder / "resumed.csv", self.folder / f"script.{number.name}.journal"
                options = ["--journal", journal, "--resume"]
                self.interrupt(self.script_words(2, table, *options, sky=self.slow), journal, number)
                summary = self.folder / f"script.{number.name}.summary"
                succeed(self.script_words(2, table, *options, "--summary", summary, sky=self.slow))
                self.assertEqual(table.read_text(), self.expected)
                self.assert_resumed(summary)

    def assert_resumed(self, summary):
        computed = json.loads(summary.read_text())["jobs"]
        self.assertTrue(0 < computed < self.images, f"{computed} of {self.images} jobs were computed again")


if __name__ == "__main__":
    unittest.main(verbosity=2)
