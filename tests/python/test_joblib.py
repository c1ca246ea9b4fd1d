"""The joblib backend. Run by `rankpool python -m unittest`, or with RANKPOOL_EXE set; needs joblib.

Some tests need numpy and scikit-learn.
"""

import multiprocessing
import os
import time
import unittest

try:
    import joblib
    from joblib import Parallel, delayed, parallel_config
except ImportError:
    raise unittest.SkipTest("joblib is not installed") from None

try:
    import numpy
except ImportError:
    numpy = None

import rankpool.joblib
from rankpool.joblib import RankpoolBackend, _Shares

THREADS = ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS")


def square(x):
    return x * x


def fail(x):
    raise KeyError(x)


def settings(_):
    """What a job sees: is it in a worker, the backend of a nested Parallel, and the limits of threads."""
    values = Parallel(n_jobs=4)(delayed(os.getpid)() for _ in range(8))
    backend = type(joblib.parallel.get_active_backend()[0]).__name__
    return rankpool.is_worker(), set(values) == {os.getpid()}, backend, [os.environ.get(name) for name in THREADS]


def slow_pid(_):
    time.sleep(0.02)
    return os.getpid()


class Joblib(unittest.TestCase):
    @classmethod
    def setUpClass(cls):
        rankpool.joblib.register()

    def test_parallel_runs_its_jobs_in_workers(self):
        self.assertEqual(Parallel(n_jobs=-1)(delayed(square)(x) for x in range(1000)), [x * x for x in range(1000)])
        with rankpool.Executor() as executor:
            count = executor.num_workers
        self.assertEqual(joblib.effective_n_jobs(-1), count)
        self.assertEqual(joblib.effective_n_jobs(3), 3)
        if count > 1:
            pids = Parallel(n_jobs=-1, batch_size=1)(delayed(slow_pid)(x) for x in range(20))
            self.assertNotIn(os.getpid(), pids)
            self.assertEqual(len(set(pids)), count)

    def test_functions_of_any_kind_and_keywords_work(self):
        base = 10
        self.assertEqual(
            Parallel(n_jobs=2)(delayed(lambda x, y=0: base + x + y)(x, y=1) for x in range(5)), list(range(11, 16))
        )

    def test_generators_come_in_both_orders(self):
        self.assertEqual(
            list(Parallel(n_jobs=2, return_as="generator")(delayed(square)(x) for x in range(9))),
            [x * x for x in range(9)],
        )
        unordered = Parallel(n_jobs=2, return_as="generator_unordered")(delayed(square)(x) for x in range(9))
        self.assertEqual(sorted(unordered), [x * x for x in range(9)])

    def test_an_exception_arrives_as_itself_and_the_backend_goes_on(self):
        with self.assertRaises(KeyError) as raised:
            Parallel(n_jobs=2)(delayed(fail)(x) for x in range(10))
        self.assertIn("in fail", str(raised.exception.__cause__))
        self.assertEqual(Parallel(n_jobs=2)(delayed(square)(x) for x in range(3)), [0, 1, 4])

    def test_a_timeout_is_kept(self):
        with self.assertRaises((TimeoutError, multiprocessing.TimeoutError)):
            Parallel(n_jobs=2, timeout=0.1)(delayed(time.sleep)(2) for _ in range(2))

    def test_the_time_limit_of_a_batch_has_a_name_of_its_own(self):
        with parallel_config("rankpool", timeout=1):
            self.assertRaises(ValueError, Parallel(n_jobs=2), [delayed(square)(1), delayed(square)(2)])
        with parallel_config("rankpool", job_timeout=0.2):
            self.assertRaises(rankpool.JobTimeout, Parallel(n_jobs=2), [delayed(time.sleep)(30), delayed(square)(2)])

    def test_nested_parallelism_starts_no_more_threads_than_there_are_cpus(self):
        kept = {name: os.environ.pop(name, None) for name in THREADS}
        self.addCleanup(lambda: os.environ.update({name: value for name, value in kept.items() if value is not None}))
        n_jobs = max(joblib.effective_n_jobs(-1), 2)
        cpus = len(os.sched_getaffinity(0))
        for inner in (None, 3):
            expected = str(inner if inner else max(cpus // n_jobs, 1))
            with parallel_config("rankpool", inner_max_num_threads=inner, n_jobs=n_jobs):
                for in_worker, is_one_process, backend, limits in Parallel()(delayed(settings)(x) for x in range(4)):
                    self.assertTrue(in_worker and is_one_process)
                    self.assertEqual(backend, "SequentialBackend")
                    self.assertEqual(limits, [expected] * 3)

    def test_a_job_that_asks_for_the_backend_by_its_name_runs_one_after_the_other(self):
        def nested(x):
            return Parallel(n_jobs=2, backend="rankpool")(delayed(square)(y) for y in range(x))

        self.assertEqual(Parallel(n_jobs=2)(delayed(nested)(x) for x in range(3)), [[], [0], [0, 1]])

    @unittest.skipIf(numpy is None, "numpy is not installed")
    def test_a_large_array_is_sent_once_to_each_worker(self):
        large, small = numpy.ones(1 << 18), numpy.ones(10)
        shares = _Shares(1 << 20)
        self.assertIs(shares.replace((large, small))[0], large)
        again = shares.replace((large, small))
        self.assertIsInstance(again[0], rankpool.Shared)
        self.assertIs(again[1], small)
        self.assertIs(shares.replace({"a": large})["a"], again[0])
        self.assertIs(_Shares(None).replace((large,))[0], large)

        def identity_of(array):
            return os.getpid(), array.__array_interface__["data"][0], float(array.sum())

        found = Parallel(n_jobs=2, batch_size=1)(delayed(identity_of)(large) for _ in range(30))
        self.assertEqual({total for _, _, total in found}, {float(1 << 18)})
        # Of each process: the array of its first job, and the shared one.
        self.assertLessEqual(len({(pid, place) for pid, place, _ in found}), 2 * len({pid for pid, _, _ in found}))

    @unittest.skipIf(numpy is None, "numpy is not installed")
    def test_a_grid_search_of_scikit_learn_finds_what_it_finds_alone(self):
        try:
            from sklearn.datasets import load_iris
            from sklearn.model_selection import GridSearchCV
            from sklearn.svm import SVC
        except ImportError:
            self.skipTest("scikit-learn is not installed")
        x, y = load_iris(return_X_y=True)
        grid = {"C": [0.1, 1, 10], "gamma": [0.01, 0.1]}
        alone = GridSearchCV(SVC(), grid, n_jobs=1).fit(x, y)
        search = GridSearchCV(SVC(), grid, n_jobs=-1).fit(x, y)
        self.assertEqual(search.best_params_, alone.best_params_)
        self.assertEqual(list(search.cv_results_["mean_test_score"]), list(alone.cv_results_["mean_test_score"]))

    def test_executors_are_kept_from_call_to_call_and_are_few(self):
        for n_jobs in (2, 3, 4, 5, 6, 7, 2):
            Parallel(n_jobs=n_jobs)(delayed(square)(x) for x in range(3))
        self.assertLessEqual(len(rankpool.joblib._executors), rankpool.joblib._executors_kept)
        first = rankpool.joblib._executor(2, None, {})
        self.assertIs(rankpool.joblib._executor(2, None, {}), first)

    def test_no_jobs_is_refused(self):
        self.assertRaises(ValueError, RankpoolBackend().effective_n_jobs, 0)


if __name__ == "__main__":
    unittest.main()
