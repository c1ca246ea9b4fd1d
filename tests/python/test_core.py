"""The executor: submit, errors, workers that die, options, shutdown.

Run by `rankpool python -m unittest` in this folder, or by Python with RANKPOOL_EXE set.
"""

import asyncio
import gc
import os
import tempfile
import threading
import time
import unittest
import weakref
from concurrent import futures
from concurrent.futures.process import BrokenProcessPool

import jobs
import rankpool
from rankpool import Executor


class WithExecutor(unittest.TestCase):
    def setUp(self):
        self.executor = Executor()
        self.folder = tempfile.TemporaryDirectory()
        self.addCleanup(self.folder.cleanup)
        self.addCleanup(self.executor.shutdown)

    def path(self, name):
        return os.path.join(self.folder.name, name)

    def touch(self, name):
        with open(self.path(name), "w"):
            pass


class Submit(WithExecutor):
    def test_a_job_returns_its_value(self):
        self.assertEqual(self.executor.submit(jobs.add, 1, y=2, z=3).result(60), 6)
        self.assertEqual(self.executor.submit(pow, 2, 10).result(60), 1024)

    def test_a_future_is_one_of_concurrent_futures(self):
        future = self.executor.submit(jobs.double, 4)
        self.assertIsInstance(future, futures.Future)
        called = []
        future.add_done_callback(called.append)
        done, not_done = futures.wait([future], timeout=60)
        self.assertEqual((done, not_done), ({future}, set()))
        future.add_done_callback(called.append)
        deadline = time.monotonic() + 60
        while len(called) < 2 and time.monotonic() < deadline:
            time.sleep(0.001)
        self.assertEqual(called, [future, future])
        self.assertIsNone(future.exception())
        self.assertTrue(future.done())
        self.assertFalse(future.cancel())
        many = [self.executor.submit(jobs.double, i) for i in range(100)]
        self.assertEqual(sorted(f.result() for f in futures.as_completed(many, timeout=60)), list(range(0, 200, 2)))

    def test_among_many_short_jobs_only_the_one_that_ends_its_worker_fails(self):
        # The worker has answers that it has not written when it dies.
        for last in (700, 701, 950):
            many = [self.executor.submit(jobs.exit_at, i, last) for i in range(1000)]
            failed = [i for i, future in enumerate(many) if future.exception(60) is not None]
            self.assertEqual(failed, [last])
            self.assertEqual([future.result() for i, future in enumerate(many) if i != last][-1], 999)

    def test_many_jobs_have_their_own_values(self):
        many = [self.executor.submit(jobs.add, i, z=1) for i in range(5000)]
        self.assertEqual([future.result(60) for future in many], list(range(1, 5001)))

    def test_a_waiting_future_can_be_cancelled_and_a_running_one_cannot(self):
        self.executor = Executor(max_workers=1)
        first = self.executor.submit(jobs.wait_for, self.path("go"))
        second = self.executor.submit(jobs.double, 1)
        third = self.executor.submit(jobs.double, 2)
        self.assertTrue(first.running())
        self.assertFalse(first.cancel())
        self.assertFalse(second.running())
        self.assertTrue(second.cancel())
        self.touch("go")
        self.assertEqual(third.result(60), 4)
        self.assertTrue(second.cancelled())
        self.executor.shutdown()

    def test_max_workers_limits_the_calls_that_are_sent(self):
        with self.assertRaisesRegex(ValueError, "max_workers must be greater than 0"):
            Executor(max_workers=0)
        self.assertEqual(Executor(max_workers=1).num_workers, 1)

    def test_an_executor_sends_no_more_calls_than_its_limit(self):
        with Executor(max_workers=1) as limited:
            many = [limited.submit(jobs.wait_for, self.path("go"))] + [limited.submit(jobs.double, i) for i in range(9)]
            for i in range(50):  # Each result makes room for calls that wait.
                self.assertEqual(self.executor.submit(jobs.double, i).result(60), 2 * i)
            self.assertEqual([future.running() for future in many], [True] + [False] * 9)
            self.touch("go")
            self.assertEqual([future.result(60) for future in many[1:]], list(range(0, 18, 2)))

    def test_finished_jobs_keep_neither_arguments_nor_results(self):
        class Data(set):
            pass

        data = Data()
        gone = weakref.ref(data)
        future = self.executor.submit(len, data)
        del data
        self.assertEqual(future.result(60), 0)
        gc.collect()
        self.assertIsNone(gone())
        future = self.executor.submit(set, [1])
        gone = weakref.ref(future)
        self.assertEqual(future.result(60), {1})
        self.executor.submit(int).result(60)
        del future
        gc.collect()
        self.assertIsNone(gone())

    def test_asyncio_awaits_jobs(self):
        async def run():
            loop = asyncio.get_running_loop()
            one = loop.run_in_executor(self.executor, jobs.double, 1)
            rest = [asyncio.wrap_future(self.executor.submit(jobs.double, i)) for i in range(2, 20)]
            return await asyncio.gather(one, *rest)

        self.assertEqual(asyncio.run(run()), [2 * i for i in range(1, 20)])

    def test_several_threads_submit(self):
        sums = []

        def submit(start):
            many = [self.executor.submit(jobs.double, i) for i in range(start, start + 500)]
            sums.append(sum(future.result(60) for future in many) - sum(range(2 * start, 2 * start + 1000, 2)))

        threads = [threading.Thread(target=submit, args=(1000 * i,)) for i in range(4)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join(60)
        self.assertEqual(sums, [0] * 4)

    def test_a_result_does_not_wait_for_a_long_job_behind_it(self):
        for future in [self.executor.submit(jobs.wait_if, None) for _ in range(100)]:
            future.result(60)
        # Whether the long one shares a chunk with others depends on the moment.
        for attempt in range(20):
            go = self.path(f"go{attempt}")
            many = [self.executor.submit(jobs.wait_if, None) for _ in range(200 + attempt)]
            last = self.executor.submit(jobs.wait_if, go)
            self.assertEqual({future.result(30) for future in many}, {None})
            self.touch(f"go{attempt}")
            self.assertEqual(last.result(60), go)

    def test_a_callback_may_submit(self):
        answers = []
        done = threading.Event()

        def again(future):
            answers.append(future.result())
            if len(answers) < 5:
                self.executor.submit(jobs.double, answers[-1]).add_done_callback(again)
            else:
                done.set()

        self.executor.submit(jobs.double, 1).add_done_callback(again)
        self.assertTrue(done.wait(60))
        self.assertEqual(answers, [2, 4, 8, 16, 32])


class Errors(WithExecutor):
    def test_an_exception_arrives_as_itself_with_the_remote_traceback(self):
        future = self.executor.submit(jobs.fail_at_three, 3)
        with self.assertRaisesRegex(ValueError, "it is three") as caught:
            future.result(60)
        cause = caught.exception.__cause__
        self.assertIsInstance(cause, rankpool.RemoteTraceback)
        self.assertIn("rank ", str(cause))
        self.assertIn('jobs.py", line', str(cause))
        self.assertIn("in fail_at_three", str(cause))
        self.assertNotIn("_worker.py", str(cause))

    def test_what_cannot_be_pickled_is_described(self):
        for fn, what in [(jobs.raise_unpicklable, "Unpicklable: cannot travel"), (jobs.raise_needs_two, "one and two")]:
            with self.assertRaisesRegex(rankpool.RemoteError, what) as caught:
                self.executor.submit(fn).result(60)
            self.assertIn(f"in {fn.__name__}", str(caught.exception.__cause__))

    def test_a_result_that_cannot_be_pickled_fails_its_job_only(self):
        with self.assertRaisesRegex(TypeError, "cannot pickle '_thread.lock'") as caught:
            self.executor.submit(jobs.hold_lock).result(60)
        self.assertIn("the result of the job cannot be pickled", str(caught.exception.__cause__))
        self.assertEqual(self.executor.submit(jobs.double, 1).result(60), 2)

    def test_an_argument_that_cannot_be_pickled_fails_its_job_only(self):
        future = self.executor.submit(jobs.double, threading.Lock())
        with self.assertRaisesRegex(TypeError, "pickle"):
            future.result(60)
        self.assertEqual(self.executor.submit(jobs.double, 1).result(60), 2)

    def test_a_job_that_leaves_is_an_error_and_its_worker_goes_on(self):
        with self.assertRaisesRegex(SystemExit, "leaving"):
            self.executor.submit(jobs.leave).result(60)

    def test_a_job_cannot_use_an_executor(self):
        with self.assertRaisesRegex(RuntimeError, "a job cannot use an executor"):
            self.executor.submit(jobs.use_executor).result(60)

    def test_a_worker_that_dies_costs_its_job_only(self):
        many = [self.executor.submit(jobs.exit_at_five, i) for i in range(20)]
        with self.assertRaises(rankpool.WorkerDied) as caught:
            many[5].result(60)
        self.assertIsInstance(caught.exception, BrokenProcessPool)
        self.assertEqual([future.result(60) for future in many[:5] + many[6:]], [*range(5), *range(6, 20)])
        self.assertEqual(self.executor.submit(jobs.double, 1).result(60), 2)


class Options(WithExecutor):
    def test_a_job_that_fails_is_run_again(self):
        fn = jobs.fail_first
        with self.assertRaisesRegex(RuntimeError, "the first attempt"):
            self.executor.submit(fn, self.folder.name, 0).result(60)
        again = self.executor.options(retries=2)
        self.assertEqual(again.submit(fn, self.folder.name, 1).result(60), 1)
        values = again.starmap(fn, [(self.folder.name, x) for x in range(2, 10)], chunksize=4)
        self.assertEqual(list(values), list(range(2, 10)))

    def test_a_job_that_exceeds_its_time_limit_fails(self):
        limited = self.executor.options(timeout=0.2)
        future = limited.submit(jobs.slow, 60)
        with self.assertRaises(rankpool.JobTimeout) as caught:
            future.result(60)
        self.assertIsInstance(caught.exception, TimeoutError)
        self.assertIsInstance(caught.exception, futures.TimeoutError)
        self.assertEqual(limited.submit(jobs.double, 1).result(60), 2)

    def test_options_that_make_no_sense_are_refused(self):
        for options in [{"retries": -1}, {"retries": 256}, {"timeout": 0}]:
            with self.assertRaises(ValueError):
                self.executor.options(**options)

    def test_an_initializer_runs_before_the_jobs(self):
        with Executor(initializer=jobs.set_status, initargs=("set",)) as executor:
            self.assertEqual(set(executor.map(jobs.status, range(20))), {"set"})
        self.assertEqual(self.executor.submit(jobs.status).result(60), "not set")

    def test_an_initializer_that_fails_breaks_its_executor_only(self):
        with Executor(initializer=jobs.raise_error, initargs=("not ready",)) as executor:
            future = executor.submit(jobs.double, 1)
            with self.assertRaisesRegex(futures.BrokenExecutor, "not ready"):
                future.result(60)
            with self.assertRaises(futures.BrokenExecutor):
                executor.submit(jobs.double, 1)
        self.assertEqual(self.executor.submit(jobs.double, 1).result(60), 2)


class Shutdown(WithExecutor):
    def test_no_jobs_are_taken_after_shutdown(self):
        self.executor.shutdown()
        with self.assertRaisesRegex(RuntimeError, "cannot schedule new futures after shutdown"):
            self.executor.submit(jobs.double, 1)
        with self.assertRaises(RuntimeError):
            self.executor.map(jobs.double, [1])

    def test_shutdown_waits_for_the_jobs(self):
        many = [self.executor.submit(jobs.slow, 0.05) for _ in range(8)]
        values = self.executor.map(jobs.double, range(100))
        self.executor.shutdown()
        self.assertTrue(all(future.done() for future in many))
        self.assertEqual(list(values), list(range(0, 200, 2)))

    def test_shutdown_cancels_what_was_not_sent(self):
        executor = Executor(max_workers=1)
        many = [executor.submit(jobs.wait_for, self.path("go")) for _ in range(10)]
        executor.shutdown(wait=False, cancel_futures=True)
        self.touch("go")
        executor.shutdown()
        self.assertEqual(many[0].result(60), self.path("go"))
        self.assertTrue(all(future.cancelled() for future in many[1:]))
        done, _ = futures.wait(many, timeout=60)
        self.assertEqual(len(done), 10)

    def test_two_executors_are_independent(self):
        with Executor() as other:
            self.assertEqual(other.submit(jobs.double, 1).result(60), 2)
        self.assertEqual(self.executor.submit(jobs.double, 2).result(60), 4)


if __name__ == "__main__":
    unittest.main()
