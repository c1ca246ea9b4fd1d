"""Jobs that were sent to a worker behind one that takes long: another worker runs them.

Each test has two workers at least. With a worker that keeps what it was sent, each would wait until it fails.
"""

import os
import random
import tempfile
import threading
import unittest
from concurrent import futures

import jobs
import rankpool
from rankpool import Executor

MANY = 400
LIMIT = 60


class Delays(unittest.TestCase):
    def setUp(self):
        self.executor = Executor()
        self.assertGreater(self.executor.num_workers, 1)
        folder = tempfile.TemporaryDirectory()
        self.addCleanup(folder.cleanup)
        self.addCleanup(self.executor.shutdown)
        self.folder = folder.name
        self.log = self.path("log")
        self.noted = 0

    def path(self, name):
        return os.path.join(self.folder, name)

    def notes(self, count=MANY):
        """The futures of jobs that are so short that many are sent ahead."""
        first = self.noted
        self.noted += count
        return [self.executor.submit(jobs.note, self.log, i) for i in range(first, self.noted)]

    def assert_each_ran_once(self):
        with open(self.log) as file:
            self.assertEqual(sorted(map(int, file)), list(range(self.noted)))

    def test_a_job_may_wait_for_the_jobs_that_were_submitted_behind_it(self):
        for _ in range(5):
            before = self.notes()
            waits = self.executor.submit(jobs.wait_for_lines, self.log, self.noted + MANY)
            behind = self.notes()
            self.assertEqual(waits.result(LIMIT), self.noted)
            self.assertEqual([f.result(LIMIT) for f in before + behind], list(range(self.noted - 2 * MANY, self.noted)))
        self.assert_each_ran_once()

    def test_short_jobs_are_completed_while_long_ones_run(self):
        go = [self.path(f"go-{i}") for i in range(4)]
        for path in go:
            short = self.notes()
            long = self.executor.submit(jobs.wait_for, path)
            short += self.notes()
            done = [future.result() for future in futures.as_completed(short, LIMIT)]
            self.assertEqual(sorted(done), list(range(self.noted - 2 * MANY, self.noted)))
            self.assertFalse(long.done())
            jobs.touch(path)
            self.assertEqual(long.result(LIMIT), path)
        self.assert_each_ran_once()

    def test_jobs_with_a_time_limit_do_not_wait_for_a_long_one(self):
        limited = self.executor.options(timeout=LIMIT)
        before = self.notes()
        long = limited.submit(jobs.wait_for, self.path("go"))
        behind = [limited.submit(jobs.double, i) for i in range(20)] + self.notes()
        self.assertFalse(futures.wait(before + behind, LIMIT).not_done)
        self.assertEqual([future.result(0) for future in behind[:20]], list(range(0, 40, 2)))
        self.assertFalse(long.done())
        jobs.touch(self.path("go"))
        long.result(LIMIT)
        with self.assertRaises(rankpool.JobTimeout):
            self.executor.options(timeout=0.3).submit(jobs.wait_for, self.path("never")).result(LIMIT)

    def test_jobs_with_large_arguments_do_not_wait_for_a_long_one(self):
        length = 3 << 20
        for round in range(3):
            # So many that those behind them are there before they are done.
            before = self.notes(10 * MANY)
            long = self.executor.submit(jobs.wait_for, self.path(f"go-{round}"))
            behind = self.notes(5)
            large = []
            for _ in range(4):
                data = bytes([self.noted % 251]) * length
                large.append(self.executor.submit(jobs.note_and_first, self.log, self.noted, data))
                self.noted += 1
                behind += self.notes(5)
            self.assertFalse(futures.wait(before + behind + large, LIMIT).not_done)
            for number, *bytes_of_data in (future.result(0) for future in large):
                self.assertEqual(bytes_of_data, [number % 251, number % 251, length])
            self.assertFalse(long.done())
            jobs.touch(self.path(f"go-{round}"))
            long.result(LIMIT)
        self.assert_each_ran_once()

    def test_a_job_that_keeps_the_lock_of_the_interpreter_does_not_hold_back_those_behind_it(self):
        pipe = self.path("pipe")
        os.mkfifo(pipe)
        fd = os.open(pipe, os.O_RDWR)
        self.addCleanup(os.close, fd)
        self.notes()[-1].result(LIMIT)
        long = self.executor.submit(jobs.read_with_the_lock, pipe)
        behind = self.notes()
        try:
            self.assertEqual([future.result(LIMIT) for future in behind], list(range(MANY, 2 * MANY)))
            self.assertFalse(long.done())
        finally:
            os.write(fd, b"x")
        self.assertEqual(long.result(LIMIT), 1)
        self.assert_each_ran_once()

    def test_a_long_job_that_ends_its_worker_is_the_only_one_that_fails(self):
        for round in range(4):
            go = self.path(f"go-{round}")
            others = self.notes()
            ends = self.executor.submit(jobs.wait_and_exit, go)
            others += self.notes()
            if round % 2:
                self.assertFalse(futures.wait(others, LIMIT).not_done)
                jobs.touch(go)
            else:
                # At any moment: before, while and after the others are given back.
                timer = threading.Timer(random.uniform(0.04, 0.09), jobs.touch, [go])
                timer.start()
                self.addCleanup(timer.join)
            with self.assertRaises(rankpool.WorkerDied):
                ends.result(LIMIT)
            self.assertEqual([f.result(LIMIT) for f in others], list(range(self.noted - 2 * MANY, self.noted)))
            # Those that had run in the worker that died, and whose results it had not sent, have run again.
            with open(self.log) as file:
                self.assertEqual(sorted(set(map(int, file))), list(range(self.noted)))

    def test_jobs_of_all_durations_run_once(self):
        # Many end at about the time at which those behind them are given back.
        random.seed(1)
        seconds = [random.uniform(0.045, 0.06) if random.random() < 0.06 else 1e-4 for _ in range(800)]
        many = [self.executor.submit(jobs.note_and_sleep, self.log, i, some) for i, some in enumerate(seconds)]
        self.noted = len(many)
        self.assertEqual([future.result(LIMIT) for future in many], seconds)
        self.assert_each_ran_once()


if __name__ == "__main__":
    unittest.main()
