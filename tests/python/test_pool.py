"""`rankpool.Pool`, as users of `multiprocessing.Pool` know it.

Run by `rankpool python -m unittest`, or with RANKPOOL_EXE set.
"""

import gc
import itertools
import multiprocessing
import os
import pickle
import subprocess
import sys
import tempfile
import threading
import time
import tracemalloc
import unittest
import warnings
import weakref

import rankpool
from rankpool import Pool
from rankpool.pool import PoolTerminated


def square(x):
    return x * x


def add(x, y=0, *, z=0):
    return x + y + z


def fail_at(x, bad):
    if x in bad:
        raise KeyError(x)
    return x


def is_alive(pid):
    try:
        with open(f"/proc/{pid}/stat") as file:
            return file.read().rpartition(")")[2].split()[0] != "Z"
    except OSError:
        return False


def program():
    """The program that has started this interpreter, which is not on PATH."""
    return os.path.realpath(f"/proc/{os.getppid()}/exe")


def wait_for(path):
    """Waits until a file is there, for a minute at most."""
    deadline = time.monotonic() + 60
    while not os.path.exists(path):
        if time.monotonic() > deadline:
            raise TimeoutError(path)
        time.sleep(0.005)
    return "there"


def note(path, x):
    with open(path, "a") as file:
        file.write(f"{x}\n")
    return x


class WithPool(unittest.TestCase):
    def setUp(self):
        self.pool = Pool()
        self.addCleanup(self.pool.terminate)
        self.folder = tempfile.TemporaryDirectory()
        self.addCleanup(self.folder.cleanup)

    def path(self, name):
        return os.path.join(self.folder.name, name)

    def touch(self, name):
        with open(self.path(name), "w"):
            pass


class Maps(WithPool):
    def test_every_map_gives_what_the_builtin_map_gives(self):
        expected = [square(x) for x in range(500)]
        for chunksize in (None, 1, 7, 1000):
            for items in (range(500), list(range(500)), iter(range(500))):
                self.assertEqual(self.pool.map(square, items, chunksize), expected)
            self.assertEqual(self.pool.map_async(square, iter(range(500)), chunksize).get(60), expected)
            self.assertEqual(list(self.pool.imap(square, range(500), chunksize)), expected)
            self.assertEqual(sorted(self.pool.imap_unordered(square, range(500), chunksize)), expected)
        pairs = [(x, x + 1) for x in range(50)]
        self.assertEqual(self.pool.starmap(add, pairs), [2 * x + 1 for x in range(50)])
        self.assertEqual(self.pool.starmap(add, ([x] for x in range(5)), 2), list(range(5)))
        self.assertEqual(self.pool.starmap_async(add, pairs).get(60), [2 * x + 1 for x in range(50)])

    def test_apply_takes_arguments_and_keywords(self):
        self.assertEqual(self.pool.apply(add, (1, 2), {"z": 3}), 6)
        self.assertEqual(self.pool.apply_async(add, [1], {"y": 5}).get(60), 6)
        self.assertEqual(self.pool.apply(lambda: 7), 7)

    def test_map_runs_all_jobs_and_raises_the_first_exception(self):
        path = self.path("notes")

        def job(x):
            note(path, x)
            return fail_at(x, {3, 5})

        with self.assertRaises(KeyError) as raised:
            self.pool.map(job, range(10), 1)
        self.assertEqual(raised.exception.args, (3,))
        self.assertIs(type(raised.exception.__cause__), multiprocessing.pool.RemoteTraceback)
        self.assertIn("in fail_at", str(raised.exception.__cause__))
        with open(path) as file:
            self.assertEqual(sorted(map(int, file)), list(range(10)))
        result = self.pool.map_async(job, range(10))
        result.wait(60)
        self.assertFalse(result.successful())
        self.assertRaises(KeyError, result.get, 1)

    def test_an_iterable_that_raises_fails_its_own_map_only(self):
        def items(good):
            yield from range(good)
            raise OSError("no more")

        self.assertRaises(OSError, self.pool.map, square, items(3))
        self.assertRaises(OSError, self.pool.map_async(square, items(0)).get, 60)
        iterator = self.pool.imap(square, items(20))
        self.assertEqual([next(iterator) for _ in range(20)], [square(x) for x in range(20)])
        self.assertRaises(OSError, next, iterator)
        self.assertRaises(StopIteration, next, iterator)
        iterator = self.pool.imap(square, items(20), 8)
        self.assertEqual([next(iterator) for _ in range(16)], [square(x) for x in range(16)])
        self.assertRaises(OSError, next, iterator)
        self.assertEqual(self.pool.map(square, [4]), [16])

    def test_a_chunksize_below_one_is_refused(self):
        for method in (self.pool.map, self.pool.imap, self.pool.imap_unordered, self.pool.map_async):
            self.assertRaises(ValueError, method, square, [1], 0)

    def test_arguments_and_results_are_not_kept(self):
        class Big:
            pass

        items = [Big() for _ in range(4)]
        references = [weakref.ref(item) for item in items]
        results = self.pool.map(lambda item: item, items)
        references += [weakref.ref(result) for result in results]
        del items, results
        deadline = time.monotonic() + 30
        while any(reference() for reference in references) and time.monotonic() < deadline:
            gc.collect()
            time.sleep(0.01)
        self.assertEqual([reference() for reference in references], [None] * 8)


class Lazy(WithPool):
    def test_imap_over_an_endless_generator_reads_a_bounded_part_ahead(self):
        taken = 0
        read = itertools.count()
        count = [0]

        def items():
            for count[0] in read:
                yield bytes(1000)

        most = 0
        for method in (self.pool.imap, self.pool.imap_unordered):
            iterator = method(len, items(), buffersize=50)
            begin = count[0]
            for taken in range(3000):
                self.assertEqual(next(iterator), 1000)
                most = max(most, count[0] - begin - taken)
            del iterator
        self.assertLessEqual(most, 2 * 50 + 10)

    def test_imap_over_an_endless_generator_runs_in_bounded_memory(self):
        iterator = self.pool.imap(len, (bytes(5000) for _ in itertools.count()))
        for _ in range(2000):
            next(iterator)
        tracemalloc.start()
        self.addCleanup(tracemalloc.stop)
        for _ in range(5000):
            next(iterator)
        before = tracemalloc.get_traced_memory()[0]
        for _ in range(10_000):
            next(iterator)
        self.assertLess(tracemalloc.get_traced_memory()[0] - before, 5_000_000)

    def test_imap_reads_further_ahead_only_if_jobs_are_short_and_small(self):
        slots = self.pool._executor.num_workers
        for function, items, grows in [
            (abs, range(20_000), True),
            (len, [bytes(50_000) for _ in range(300)], False),
            (time.sleep, [0.01] * 50, False),
        ]:
            iterator = self.pool.imap(function, iter(items))
            self.assertEqual(sum(1 for _ in iterator), len(items))
            size = iterator._run._buffersize
            self.assertEqual(size > 128 * slots, grows, size)
            self.assertLessEqual(size, 2048 * slots)
        iterator = self.pool.imap(abs, iter(range(20_000)), buffersize=10)
        self.assertEqual(list(iterator), list(range(20_000)))
        self.assertEqual(iterator._run._buffersize, 10)

    def test_an_iterator_that_is_dropped_reads_no_further(self):
        count = [0]

        def items():
            for count[0] in itertools.count():
                yield 1

        for _ in self.pool.imap(abs, items()):
            break
        gc.collect()
        deadline = time.monotonic() + 30
        before = -1
        while before != count[0] and time.monotonic() < deadline:
            before = count[0]
            time.sleep(0.3)
        self.assertEqual(before, count[0])

    def test_one_imap_can_be_the_input_of_another(self):
        chained = self.pool.imap(square, self.pool.imap(square, range(300)))
        self.assertEqual(list(chained), [x**4 for x in range(300)])

    def test_a_job_that_fails_raises_at_its_place_and_the_iteration_goes_on(self):
        for method in (self.pool.imap, self.pool.imap_unordered):
            iterator = method(lambda x: fail_at(x, {2, 3}), range(6))
            seen, failed = [], []
            while True:
                try:
                    seen.append(next(iterator))
                except KeyError as error:
                    failed.append(error.args[0])
                except StopIteration:
                    break
            self.assertEqual((sorted(seen), sorted(failed)), ([0, 1, 4, 5], [2, 3]))

    def test_next_with_a_timeout_loses_no_value(self):
        path = self.path("go")
        iterator = self.pool.imap(wait_for, [path])
        for _ in range(2):
            self.assertRaises(multiprocessing.TimeoutError, iterator.next, 0.01)
            self.assertRaises(TimeoutError, iterator.next, timeout=0.01)
        self.touch("go")
        self.assertEqual(iterator.next(60), "there")
        self.assertRaises(StopIteration, iterator.next, 1)


class Results(WithPool):
    def test_a_result_is_ready_when_its_job_has_ended(self):
        result = self.pool.apply_async(wait_for, (self.path("go"),))
        self.assertFalse(result.ready())
        self.assertRaises(ValueError, result.successful)
        self.assertRaises(multiprocessing.TimeoutError, result.get, 0.01)
        result.wait(0.01)
        self.touch("go")
        self.assertEqual(result.get(60), "there")
        self.assertTrue(result.ready() and result.successful())

    def test_callbacks_are_called_before_wait_returns(self):
        values, errors = [], []

        def slowly(value):
            time.sleep(0.02)
            values.append(value)

        for _ in range(5):
            self.pool.apply_async(square, (3,), callback=slowly, error_callback=errors.append).wait(60)
            self.assertEqual(values.pop(), 9)
        self.pool.apply_async(fail_at, (1, [1]), callback=values.append, error_callback=errors.append).wait(60)
        self.assertEqual((values, type(errors[0])), ([], KeyError))
        self.pool.map_async(square, range(3), callback=values.append, error_callback=errors.append).wait(60)
        self.pool.starmap_async(fail_at, [(1, [1])], callback=values.append, error_callback=errors.append).wait(60)
        self.assertEqual((values, len(errors)), ([[0, 1, 4]], 2))

    def test_a_callback_that_raises_does_not_stop_the_pool(self):
        def callback(_):
            raise RuntimeError("in the callback")

        with self.assertLogs("rankpool", "ERROR"):
            self.assertEqual(self.pool.apply_async(square, (2,), callback=callback).get(60), 4)
        self.assertEqual(self.pool.apply(square, (3,)), 9)

    def test_an_argument_that_cannot_be_pickled_fails_its_job(self):
        self.assertRaises(TypeError, self.pool.apply, square, (threading.Lock(),))
        self.assertRaises(TypeError, self.pool.map, square, [1, threading.Lock()])
        for _ in range(50):
            self.assertRaises(TypeError, self.pool.map, square, [threading.Lock()] * 10)
        self.assertEqual(self.pool.map(square, [1, 2]), [1, 4])

    def test_a_worker_that_dies_costs_its_job_only(self):
        result = self.pool.apply_async(os._exit, (1,))
        others = [self.pool.apply_async(square, (x,)) for x in range(20)]
        self.assertRaises(rankpool.WorkerDied, result.get, 60)
        self.assertEqual([other.get(60) for other in others], [square(x) for x in range(20)])


class Ends(unittest.TestCase):
    @classmethod
    def setUpClass(cls):
        cls.lasting = tempfile.TemporaryDirectory()
        cls.addClassCleanup(cls.lasting.cleanup)

    def setUp(self):
        self.folder = tempfile.TemporaryDirectory()
        self.addCleanup(self.folder.cleanup)

    def test_wrong_settings_are_refused(self):
        for count in (0, -1):
            self.assertRaises(ValueError, Pool, count)
        self.assertRaises(TypeError, Pool, initializer=5)
        for count in (0, -1, 0.5, "12"):
            self.assertRaises(ValueError, Pool, maxtasksperchild=count)

    def test_calls_of_a_pool_as_large_as_the_run_may_wait_at_the_workers(self):
        with rankpool.Executor() as executor:
            count = executor.num_workers
        for processes in (count, count + 3):
            with Pool(processes) as pool:
                self.assertEqual(pool.map(square, range(9)), [square(x) for x in range(9)])
                self.assertEqual(pool._executor.num_workers, count)
                self.assertGreaterEqual(pool._executor._core.limit, 32 * count)
                self.assertEqual(pool._processes, processes)

    def test_the_initializer_runs_once_in_each_worker(self):
        def remember(value):
            os.environ["RANKPOOL_TEST"] = value

        with Pool(initializer=remember, initargs=["yes"]) as pool:
            self.assertEqual(set(pool.map(lambda _: os.environ.get("RANKPOOL_TEST"), range(20))), {"yes"})

    def test_close_and_join_finish_everything(self):
        pool = Pool()
        path = os.path.join(self.folder.name, "notes")
        results = [pool.apply_async(note, (path, x)) for x in range(10)]
        mapped = pool.map_async(square, iter(range(1000)))
        kept = pool.imap(square, range(3000))
        pool.imap_unordered(lambda x: note(path, x), range(10, 1000))  # nothing keeps this iterator
        self.assertRaises(ValueError, pool.join)
        pool.close()
        self.assertRaises(ValueError, pool.apply, square, (1,))
        self.assertRaises(ValueError, pool.imap, square, [1])
        pool.join()
        self.assertTrue(all(result.ready() for result in results) and mapped.ready())
        self.assertEqual(list(kept), [square(x) for x in range(3000)])
        with open(path) as file:
            self.assertEqual(sorted(map(int, file)), list(range(1000)))
        pool.join()
        pool.terminate()

    def test_a_closed_pool_gives_the_values_of_an_imap_that_runs(self):
        pool = Pool()
        iterator = pool.imap(square, range(2000))
        pool.close()
        self.assertEqual(list(iterator), [square(x) for x in range(2000)])
        pool.join()

    def test_terminate_ends_every_wait(self):
        path = os.path.join(self.lasting.name, "never")
        pool = Pool()
        single = pool.apply_async(wait_for, (path,))
        called = []
        mapped = pool.map_async(wait_for, [path] * 100, 1, callback=called.append, error_callback=called.append)
        iterator = pool.imap(wait_for, itertools.repeat(path))
        caught = []

        def consume(wait):
            try:
                wait()
            except BaseException as error:
                caught.append(type(error))

        waits = [lambda: pool.map(wait_for, [path] * 10), lambda: next(iterator), single.get, mapped.get]
        threads = [threading.Thread(target=consume, args=(wait,), daemon=True) for wait in waits]
        for thread in threads:
            thread.start()
        while not pool._runs:  # until the thread is in `map`
            time.sleep(0.001)
        time.sleep(0.05)
        begin = time.monotonic()
        pool.terminate()
        pool.join()
        for thread in threads:
            thread.join(30)
        self.assertLess(time.monotonic() - begin, 20)
        open(path, "w").close()  # what runs ends
        self.assertEqual(caught, [PoolTerminated] * 4)
        self.assertEqual(called, [])
        pool = Pool()
        results = [pool.map_async(square, range(5000), 1) for _ in range(5)]
        pool.terminate()
        for result in results:
            # Never a part of the values.
            try:
                self.assertEqual(len(result.get(30)), 5000)
            except PoolTerminated:
                pass
        self.assertRaises(ValueError, pool.map, square, [1])

    def test_a_script_does_not_wait_for_the_jobs_of_a_terminated_pool(self):
        script = (
            "import rankpool, time\n"
            "with rankpool.Pool() as pool:\n"
            "    assert pool.apply(abs, (-1,)) == 1\n"
            "    pool.apply_async(time.sleep, (100,))\n"
        )
        path = os.pathsep.join(entry for entry in sys.path if entry)
        started = subprocess.Popen(
            [sys.executable, "-c", script], env={"RANKPOOL_EXE": program(), **os.environ, "PYTHONPATH": path}
        )
        try:
            self.assertEqual(started.wait(60), 0)
        finally:
            started.kill()
            started.wait()

    def test_a_map_that_is_not_read_to_its_end_does_not_keep_shutdown_waiting(self):
        with rankpool.Executor() as executor:
            values = executor.map(square, itertools.count(), buffersize=10)
            self.assertEqual([next(values), next(values)], [0, 1])
            untouched = executor.map(square, range(100), buffersize=3)
        with self.assertRaisesRegex(RuntimeError, "after shutdown"):
            for _ in values:
                pass
        self.assertRaises(RuntimeError, list, untouched)

    def test_terminate_ends_the_jobs_that_run_and_those_that_were_sent(self):
        path = os.path.join(self.lasting.name, "started")

        def job(_):
            note(path, os.getpid())
            time.sleep(100)

        begin = time.monotonic()
        for initializer in (None, abs):
            with Pool(initializer=initializer, initargs=(1,) if initializer else ()) as pool:
                pool.map_async(job, range(50), 1)
                wait_for(path)
            with Pool() as pool:
                self.assertEqual(pool.map(square, range(20)), [square(x) for x in range(20)])
        with open(path) as file:
            pids = set(map(int, file))
        while any(map(is_alive, pids)) and time.monotonic() - begin < 60:
            time.sleep(0.01)
        self.assertEqual([pid for pid in pids if is_alive(pid)], [])
        self.assertLess(time.monotonic() - begin, 60)

    def test_leaving_with_terminates(self):
        with Pool() as pool:
            self.assertEqual(pool.apply(square, (2,)), 4)
        self.assertRaises(ValueError, pool.apply, square, (2,))
        with self.assertRaises(ValueError):
            with pool:
                pass

    def test_a_pool_that_is_forgotten_while_it_runs_warns(self):
        pool = Pool()
        with warnings.catch_warnings(record=True) as caught:
            warnings.simplefilter("always")
            del pool
            gc.collect()
        self.assertEqual([warning.category for warning in caught], [ResourceWarning])

    def test_a_pool_is_not_sent_to_a_job(self):
        with Pool() as pool:
            self.assertRaises(NotImplementedError, pickle.dumps, pool)
            self.assertRaises(NotImplementedError, pool.apply, square, (pool,))

    def test_a_pool_inside_a_job_is_refused_in_words(self):
        def job():
            with Pool() as inner:
                return inner.map(square, [1])

        with Pool() as pool:
            with self.assertRaisesRegex(RuntimeError, "a job cannot use an executor"):
                pool.apply(job)


if __name__ == "__main__":
    unittest.main()
