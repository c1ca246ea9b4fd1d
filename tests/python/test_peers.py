"""The measuring of `benches/peers`, with the pools that need no package."""

import importlib.util
import os
import subprocess
import sys
import unittest

PEERS = os.path.join(os.path.dirname(os.path.abspath(__file__)), "../../benches/peers")
sys.path.insert(0, os.path.realpath(PEERS))

import figures  # noqa: E402
import machine  # noqa: E402
from fronts import FRONTS, front  # noqa: E402
from metg import metg, seconds  # noqa: E402

WITH_PACKAGES = ["joblib", "p_tqdm"]
if not importlib.util.find_spec("cloudpickle"):
    # Ray takes no `partial`, so it gets a nested function.
    WITH_PACKAGES.append("ray")


class Measuring(unittest.TestCase):
    def test_every_name_of_rankpool_measures_the_same_work_with_the_same_results(self):
        names = ["serial", "rankpool", *(f"rankpool.{name}" for name in FRONTS if name not in WITH_PACKAGES)]
        digests = set()
        for name in names:
            with self.subTest(name):
                pool = front(name)
                try:
                    self.assertTrue(figures.overhead(pool, 0.002)["agree"])
                    digests.add(figures.slow(pool, 8)["digest"] + figures.density(pool, 4, 50)["digest"])
                    points = figures.curve(pool, 0.002, [1e-4])["one"]
                    self.assertTrue(0 < points[0][1] <= 1.5, points)
                finally:
                    pool.close()
        self.assertEqual(len(digests), 1)

    def test_the_shortest_job_for_a_share_is_that_of_rankpool_bench(self):
        sign, length = metg([(1e-6, 0.2), (1e-4, 0.8), (1e-2, 0.99)], 0.5)
        self.assertEqual((sign, round(length, 9)), ("", 1e-5))
        self.assertEqual(metg([(1e-6, 0.6), (1e-5, 0.7)], 0.5), ("<", 1e-6))
        self.assertEqual(metg([(1e-6, 0.6), (1e-5, 0.7)], 0.9), (">", 1e-5))
        self.assertGreater(metg([(1e-6, 0.6), (1e-5, 0.4), (1e-4, 0.8)], 0.5)[1], 1e-5)

    def test_a_machine_is_busy_while_others_compute_and_not_because_they_did_before(self):
        loop = subprocess.Popen([sys.executable, "-c", "while True: pass"])
        try:
            busy = machine.busy_cpus(0.5)
        finally:
            loop.kill()
            loop.wait()
        self.assertTrue(0.5 < busy < os.cpu_count() + 0.2, busy)
        self.assertIn("up to 1.5 of its CPUs", machine.caution({"busy_cpus": [0, 1.5, 0.2]}))
        self.assertEqual(machine.caution({"busy_cpus": [0.02, 0.1]}), "")
        self.assertIn("a load of 2.2 at the start", machine.caution({"load": 2.2}))

    def test_times_are_written_with_two_digits(self):
        self.assertEqual([seconds(value) for value in (1.25e-7, 2e-6, 9.96e-4, 0.1234, 3.21)], ["125 ns", "2 µs", "996 µs", "123 ms", "3.2 s"])
