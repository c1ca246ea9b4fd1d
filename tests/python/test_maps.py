"""Maps: order, chunks, laziness, failures."""

import gc
import itertools
import threading
import time
import unittest
import weakref
from concurrent.futures import TimeoutError as FuturesTimeout
from unittest import mock

import jobs
import rankpool
from rankpool import Executor
from test_core import WithExecutor


class Values(WithExecutor):
    def test_values_come_in_the_order_of_the_inputs(self):
        for chunksize in (None, 1, 7, 1000):
            with self.subTest(chunksize=chunksize):
                values = self.executor.map(jobs.add, range(500), range(500), chunksize=chunksize)
                self.assertEqual(list(values), list(range(0, 1000, 2)))

    def test_unordered_values_are_the_same(self):
        values = self.executor.map(jobs.double, range(1000), unordered=True)
        self.assertEqual(sorted(values), list(range(0, 2000, 2)))

    def test_starmap_spreads_tuples(self):
        self.assertEqual(list(self.executor.starmap(jobs.add, [(1, 2), (3, 4)])), [3, 7])
        self.assertEqual(list(self.executor.starmap(jobs.add, [[1, 2], [3]] * 50, chunksize=10)), [3, 3] * 50)

    def test_a_map_of_nothing_is_empty(self):
        self.assertEqual(list(self.executor.map(jobs.double, [])), [])
        with self.assertRaises(TypeError):
            self.executor.map(jobs.double)
        with self.assertRaises(ValueError):
            self.executor.map(jobs.double, [1], chunksize=0)
        with self.assertRaises(ValueError):
            self.executor.map(jobs.double, [1], buffersize=0)

    def test_an_iterator_may_be_collected_at_any_moment(self):
        def go(chunksize):
            values = self.executor.map(jobs.double, range(2000), chunksize=chunksize)
            cycle = [values]
            cycle.append(cycle)
            next(values)

        threshold = gc.get_threshold()
        gc.set_threshold(1)
        try:
            for _ in range(30):
                go(1)
                self.assertEqual(self.executor.submit(jobs.double, 1).result(60), 2)
        finally:
            gc.set_threshold(*threshold)

    def test_jobs_run_without_iteration(self):
        self.executor.map(jobs.wait_for, [self.path("go")])
        values = self.executor.map(open, [self.path("made")], ["w"])
        del values
        gc.collect()
        self.touch("go")
        self.executor.shutdown()
        jobs.wait_for(self.path("made"))

    def test_an_exception_is_raised_at_its_place(self):
        for chunksize in (1, 4, None):
            with self.subTest(chunksize=chunksize):
                values = self.executor.map(jobs.fail_at_three, range(6), chunksize=chunksize)
                self.assertEqual([next(values) for _ in range(3)], [0, 1, 2])
                with self.assertRaisesRegex(ValueError, "it is three") as caught:
                    next(values)
                self.assertIn("in fail_at_three", str(caught.exception.__cause__))
                self.assertEqual(list(values), [])

    def test_an_iterator_of_a_run_goes_on_behind_an_exception(self):
        for chunksize in (1, 4, None):
            with self.subTest(chunksize=chunksize):
                run = self.executor._start_map(
                    jobs.fail_at_three, iter(range(6)), star=False, chunksize=chunksize, buffersize=None
                )
                values, seen = run.iterate(), []
                while len(seen) < 6:
                    try:
                        seen.append(next(values))
                    except ValueError as error:
                        seen.append(str(error))
                self.assertEqual(seen, [0, 1, 2, "it is three", 4, 5])
                self.assertEqual(list(values), [])

    def test_only_the_job_that_kills_its_worker_fails(self):
        run = self.executor._start_map(jobs.exit_at_five, list(range(12)), star=False, chunksize=6, buffersize=None)
        values = run.iterate()
        self.assertEqual([next(values) for _ in range(5)], [0, 1, 2, 3, 4])
        with self.assertRaises(rankpool.WorkerDied):
            next(values)
        self.assertEqual(list(values), [6, 7, 8, 9, 10, 11])

    def test_a_result_of_a_chunk_that_cannot_be_pickled_fails_its_job_only(self):
        values = self.executor.map(eval, ["1", "2", "__import__('threading').Lock()", "4"], chunksize=4)
        self.assertEqual([next(values), next(values)], [1, 2])
        with self.assertRaisesRegex(TypeError, "pickle"):
            next(values)

    def test_an_argument_of_a_chunk_that_cannot_be_pickled_fails_its_job_only(self):
        inputs = [1, threading.Lock(), 3]
        run = self.executor._start_map(str, inputs, star=False, chunksize=3, buffersize=None)
        values = run.iterate()
        self.assertEqual(next(values), "1")
        with self.assertRaisesRegex(TypeError, "pickle"):
            next(values)
        self.assertEqual(list(values), ["3"])

    def test_values_are_not_kept(self):
        for chunksize in (1, 10):
            for value in self.executor.map(Holder, range(10), chunksize=chunksize):
                gone = weakref.ref(value)
                del value
                self.assertIsNone(gone())

    def test_a_value_that_is_not_there_in_time_is_a_timeout(self):
        values = self.executor.map(jobs.wait_for, [self.path("go")], timeout=0.05)
        with self.assertRaises(FuturesTimeout):
            next(values)
        self.touch("go")


class Holder:
    def __init__(self, value):
        self.value = value


class Lazy(WithExecutor):
    def test_an_endless_iterable_is_read_as_far_as_the_buffer_allows(self):
        read = []

        def numbers():
            for number in itertools.count():
                read.append(number)
                yield number

        values = self.executor.map(jobs.double, numbers(), buffersize=50)
        self.assertEqual(list(itertools.islice(values, 1000)), list(range(0, 2000, 2)))
        self.assertLess(len(read), 1000 + 4 * 50)
        del values
        gc.collect()
        before = -1
        deadline = time.monotonic() + 60
        while before != len(read) and time.monotonic() < deadline:
            before = len(read)
            time.sleep(0.3)
        self.assertEqual(before, len(read))

    def test_fixed_chunks_work_with_a_buffer(self):
        for chunksize, buffersize in [(10, 5), (5, 10), (3, 7)]:
            values = self.executor.map(jobs.double, range(100), chunksize=chunksize, buffersize=buffersize)
            self.assertEqual(list(values), list(range(0, 200, 2)))

    def test_the_input_of_a_map_stays_as_it_is(self):
        inputs = list(range(10))
        for buffersize in (None, 3):
            self.assertEqual(list(self.executor.map(jobs.double, inputs, buffersize=buffersize)), list(range(0, 20, 2)))
        self.assertEqual(inputs, list(range(10)))

    def test_a_run_that_nothing_refers_to_goes_on_unless_it_waits_for_a_consumer(self):
        for name in ("lazy", "eager"):
            names = (self.path(f"{name}-{i}") for i in range(50))
            items = zip(names, itertools.repeat("w")) if name == "lazy" else list(zip(names, ["w"] * 50))
            self.executor._start_map(open, items, star=True, chunksize=1, buffersize=None)
            gc.collect()
            jobs.wait_for(self.path(f"{name}-49"))
        with Executor() as executor:
            executor.map(jobs.double, itertools.count(), buffersize=10)
            values = executor.map(jobs.double, itertools.count(), buffersize=10)
            self.assertEqual(next(values), 0)
        with self.assertRaisesRegex(RuntimeError, "after shutdown"):
            list(values)

    def test_an_iterable_that_raises_fails_its_map_only(self):
        def numbers():
            yield from range(3)
            raise KeyError("no more")

        with self.assertRaises(KeyError):
            self.executor.map(jobs.double, numbers())
        values = self.executor.map(jobs.double, numbers(), buffersize=10)
        self.assertEqual([next(values) for _ in range(3)], [0, 2, 4])
        with self.assertRaises(KeyError):
            next(values)
        self.assertEqual(list(self.executor.map(jobs.double, [1])), [2])

    def test_an_iterable_may_wait_for_earlier_results(self):
        first = threading.Event()

        def numbers():
            yield 1
            if not first.wait(60):
                raise RuntimeError("the first value did not come")
            yield 2

        values = self.executor.map(jobs.double, numbers(), buffersize=10)
        self.assertEqual(next(values), 2)
        first.set()
        self.assertEqual(list(values), [4])

    def test_an_iterable_may_wait_for_results_when_calls_have_become_large(self):
        for chunksize, buffersize in [(None, 10_000), (None, 300), (16, 100), (16, 48)]:
            with self.subTest(chunksize=chunksize, buffersize=buffersize):
                taken = threading.Semaphore(0)

                def numbers(taken=taken):
                    for number in range(3200):
                        yield number
                        # All that was read must come back now, although much more could be sent.
                        if number % 320 == 319:
                            for _ in range(320):
                                if not taken.acquire(timeout=60):
                                    raise RuntimeError("a value did not come")

                values = []
                for value in self.executor.map(jobs.double, numbers(), chunksize=chunksize, buffersize=buffersize):
                    values.append(value)
                    taken.release()
                self.assertEqual(values, list(range(0, 6400, 2)))

    def test_an_item_is_sent_while_a_long_job_runs_although_calls_have_become_large(self):
        go, taken = self.path("go"), threading.Semaphore(0)

        def items():
            for round_of in range(20):
                yield from itertools.repeat((jobs.double, round_of), 200)
                for _ in range(200):
                    taken.acquire(timeout=60)
            yield jobs.wait_for, go
            yield jobs.touch, go
            for _ in range(2):
                if not taken.acquire(timeout=60):
                    raise RuntimeError("the item was not sent")

        values = self.executor.starmap(jobs.call, items(), buffersize=10_000)
        values = [taken.release() or value for value in values]
        self.assertEqual(values[-2:], [go, None])

    def test_the_reader_of_a_lazy_map_looks_at_its_run_for_calls_and_not_for_items(self):
        looks = []
        has_read = rankpool.MapRun._has_read

        def counted(run, *arguments):
            looks.append(arguments)
            return has_read(run, *arguments)

        for chunksize, most in [(50, 2 * 10_000 / 50), (None, 10_000 / 2)]:
            looks.clear()
            with mock.patch.object(rankpool.MapRun, "_has_read", counted):
                values = self.executor.map(abs, range(10_000), chunksize=chunksize, buffersize=1000)
                self.assertEqual(list(values), list(range(10_000)))
            self.assertLess(len(looks), most)

    def test_a_consumer_that_takes_values_wakes_the_reader(self):
        with mock.patch("rankpool._reading._LOOK_AGAIN", 60):
            begin = time.monotonic()
            run = self.executor._start_map(abs, itertools.count(), star=False, chunksize=10, buffersize=40)
            values = run.values()
            for number in range(200):
                # All that was read is answered, so that no answer wakes the reader.
                while number % 40 == 0 and time.monotonic() < begin + 55:
                    if run._feed.waits and len(run._done) == 4:
                        break
                    time.sleep(0.001)
                self.assertEqual(next(values), number)
            run.cancel()
        self.assertLess(time.monotonic(), begin + 50)

    def test_a_lazy_map_of_chunks_reads_no_more_than_its_buffer(self):
        read = itertools.count()
        values = self.executor.map(jobs.double, (next(read) for _ in itertools.count()), chunksize=10, buffersize=40)
        for number in range(500):
            self.assertEqual(next(values), 2 * number)
            self.assertLessEqual(read.__reduce__()[1][0], number + 1 + 40 + 10)

    def test_a_chunk_that_an_iterable_does_not_fill_is_sent(self):
        for error in (None, KeyError("no more")):

            def numbers(error=error):
                yield from range(23)
                if error is not None:
                    raise error

            values = self.executor.map(jobs.double, numbers(), chunksize=10, buffersize=30)
            self.assertEqual([next(values) for _ in range(23)], list(range(0, 46, 2)))
            with self.assertRaises(StopIteration if error is None else KeyError):
                next(values)

    def test_a_callback_gets_all_outcomes(self):
        got, done = [], threading.Event()

        def callback(outcomes):
            got.extend(outcomes)
            done.set()

        self.executor._start_map(
            jobs.fail_at_three, iter(range(5)), star=False, chunksize=2, buffersize=None, on_done=callback
        )
        self.assertTrue(done.wait(60))
        self.assertEqual([value for is_value, value in got if is_value], [0, 1, 2, 4])
        self.assertEqual(str(got[3][1]), "it is three")

    def test_a_cancelled_run_sends_no_more(self):
        with Executor(max_workers=1) as executor:
            run = executor._start_map(
                jobs.wait_for, [self.path("go"), self.path("never")], star=False, chunksize=1, buffersize=None
            )
            run.cancel()
            self.touch("go")
            self.assertTrue(run.wait(60))
            self.assertEqual(list(run.iterate()), [])


class Chunks(WithExecutor):
    def test_calls_grow_with_short_jobs_and_not_with_long_ones(self):
        run = self.executor._start_map(abs, list(range(100_000)), star=False, chunksize=None, buffersize=None)
        self.assertTrue(run.wait(60))
        self.assertLess(run._index, 10_000)
        run = self.executor._start_map(jobs.slow, [0.03] * 20, star=False, chunksize=None, buffersize=None)
        self.assertTrue(run.wait(60))
        self.assertEqual(run._index, 20)

    def test_large_values_make_small_calls(self):
        run = self.executor._start_map(bytes, [100_000] * 400, star=False, chunksize=None, buffersize=None)
        self.assertTrue(run.wait(60))
        self.assertLessEqual(run._size, 11)


if __name__ == "__main__":
    unittest.main()
