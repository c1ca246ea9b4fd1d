"""The names of other pools. Run by `rankpool python -m unittest`, or with RANKPOOL_EXE set."""

import io
import os
import tempfile
import time
import unittest
import warnings

import rankpool
from rankpool.compat import dask, loky, mpi4py, p_tqdm, pathos, ray
from rankpool.compat import tqdm as tqdm_names


def square(x):
    return x * x


def add(x, y=0):
    return x + y


def fail(x):
    raise KeyError(x)


def touch(path, value=None):
    with open(path, "a") as file:
        file.write("x")
    return value


def wait_for(path):
    deadline = time.monotonic() + 60
    while not os.path.exists(path):
        if time.monotonic() > deadline:
            raise TimeoutError(path)
        time.sleep(0.005)
    return "there"


class WithFolder(unittest.TestCase):
    def setUp(self):
        folder = tempfile.TemporaryDirectory()
        self.addCleanup(folder.cleanup)
        self.path = os.path.join(folder.name, "file")


class Bar:
    """In the place of tqdm: notes what it was given."""

    made = []

    def __init__(self, values, **options):
        self.values, self.options = values, options
        Bar.made.append(options)

    def __iter__(self):
        return iter(self.values)


class Mpi4py(WithFolder):
    def test_the_tutorial_script_runs(self):
        with mpi4py.MPIPoolExecutor() as executor:
            self.assertEqual(list(executor.map(square, range(20), chunksize=3)), [square(x) for x in range(20)])
            self.assertEqual(sorted(executor.map(square, range(9), unordered=True)), [square(x) for x in range(9)])
            self.assertEqual(list(executor.starmap(add, [(1, 2), (3, 4)])), [3, 7])
            jobs = [executor.submit(lambda x: x + 1, x) for x in range(5)]
            self.assertEqual(sorted(job.result() for job in mpi4py.as_completed(jobs)), [1, 2, 3, 4, 5])
            self.assertEqual(executor.bootup().num_workers, executor.num_workers)
        self.assertEqual(executor.num_workers, 0)
        self.assertRaises(RuntimeError, executor.bootup)

    def test_settings_of_the_workers_take_effect(self):
        folder = os.path.dirname(self.path)
        options = {"env": {"RANKPOOL_TEST": 5}, "path": [folder], "wdir": folder, "backoff": 0.1, "python_exe": "x"}
        with mpi4py.MPIPoolExecutor(1, **options) as executor:
            seen = executor.submit(lambda: (os.environ["RANKPOOL_TEST"], os.getcwd(), folder in __import__("sys").path))
            self.assertEqual(seen.result(60), ("5", os.path.realpath(folder), True))

    def test_the_communicators_executor_is_given_to_the_script(self):
        with mpi4py.MPICommExecutor() as executor:
            self.assertEqual(executor.submit(square, 3).result(60), 9)
        self.assertRaises(ValueError, mpi4py.MPICommExecutor, None, 1)
        self.assertRaises(RuntimeError, mpi4py.get_comm_workers)

    def test_the_pool_has_istarmap(self):
        with mpi4py.Pool() as pool:
            self.assertEqual(list(pool.istarmap(add, [(1, 2), (3, 4)])), [3, 7])
            self.assertEqual(sorted(pool.istarmap_unordered(add, [(1, 2), (3, 4)])), [3, 7])
            later = pool.apply_async(add, (1, 2))
        pool.join()  # the pool was closed and not terminated
        self.assertEqual(later.get(60), 3)
        self.assertRaises(ValueError, pool.apply, add, (1, 2))


class Loky(unittest.TestCase):
    def test_the_executor_is_reused_while_its_settings_stay(self):
        first = loky.get_reusable_executor(max_workers=2)
        self.assertEqual(list(first.map(square, range(5))), [0, 1, 4, 9, 16])
        self.assertIs(loky.get_reusable_executor(max_workers=2, timeout=3), first)
        second = loky.get_reusable_executor(max_workers=1)
        self.assertIsNot(second, first)
        self.assertIs(loky.get_reusable_executor(max_workers=5, reuse=True), second)
        second.shutdown()
        third = loky.get_reusable_executor(max_workers=1, env={"RANKPOOL_TEST": "1"})
        self.assertEqual(third.submit(os.getenv, "RANKPOOL_TEST").result(60), "1")
        third.shutdown(kill_workers=True)
        self.assertEqual(loky.wrap_non_picklable_objects(square), square)
        self.assertGreaterEqual(loky.cpu_count(), 1)


class Pathos(unittest.TestCase):
    def test_every_map_takes_several_inputs(self):
        pool = pathos.ProcessPool()
        self.assertEqual(pool.map(add, [1, 2, 3], [4, 5]), [5, 7])
        self.assertEqual(list(pool.imap(add, range(3), range(3))), [0, 2, 4])
        self.assertEqual(sorted(pool.uimap(square, range(3))), [0, 1, 4])
        self.assertEqual(pool.amap(add, range(3), range(3)).get(60), [0, 2, 4])
        self.assertEqual(pool.pipe(add, 1, y=2), 3)
        self.assertEqual(pool.apipe(add, 1, y=2).get(60), 3)
        self.assertRaises(TypeError, pool.map, square)

    def test_a_pool_that_was_closed_begins_again(self):
        pool = pathos.ProcessPool(nodes=1)
        self.assertEqual((pool.nodes, pool.ncpus), (1, 1))
        self.assertEqual(pool.map(square, [2]), [4])
        self.assertRaises(ValueError, pool.restart)
        pool.close()
        pool.join()
        self.assertRaises(ValueError, pool.map, square, [2])
        pool.restart()
        self.assertEqual(pool.map(square, [2]), [4])
        pool.nodes = 2
        self.assertEqual((pool.nodes, pool._pool), (2, None))
        with pool:
            self.assertEqual(pool.map(square, [2]), [4])
        self.assertEqual(pool.map(square, [3]), [9])
        pool.terminate()


class Bars(unittest.TestCase):
    def setUp(self):
        Bar.made = []

    def test_p_tqdm_maps_in_both_orders_with_a_bar(self):
        self.assertEqual(p_tqdm.p_map(add, [1, 2], [3, 4], tqdm=Bar, desc="x"), [4, 6])
        self.assertEqual(sorted(p_tqdm.p_umap(square, range(5), tqdm=Bar)), [0, 1, 4, 9, 16])
        self.assertEqual(list(p_tqdm.p_imap(square, iter(range(5)), tqdm=Bar)), [0, 1, 4, 9, 16])
        self.assertEqual(sorted(p_tqdm.p_uimap(square, range(3), tqdm=Bar, num_cpus=1)), [0, 1, 4])
        self.assertEqual(p_tqdm.t_map(square, range(3), tqdm=Bar, num_cpus=0.5), [0, 1, 4])
        self.assertEqual(p_tqdm.p_map(square, range(3), disable=True, num_cpus=0.5), [0, 1, 4])
        self.assertEqual([made["total"] for made in Bar.made], [2, 5, 5, 3, 3])
        self.assertEqual(Bar.made[0]["desc"], "x")

    def test_p_imap_reads_an_endless_input_as_values_are_taken(self):
        import itertools

        values = p_tqdm.p_imap(square, (x for x in itertools.count()), disable=True)
        self.assertEqual([next(values) for _ in range(1000)], [square(x) for x in range(1000)])

    def test_process_map_gives_the_list_with_a_bar(self):
        self.assertEqual(tqdm_names.process_map(add, [1, 2, 3], [4, 5], tqdm_class=Bar, max_workers=2), [5, 7])
        self.assertEqual(tqdm_names.process_map(square, range(3), tqdm_class=Bar, chunksize=2, desc="d"), [0, 1, 4])
        self.assertEqual(Bar.made, [{"total": 2}, {"total": 3, "desc": "d"}])

    def test_a_bar_of_tqdm_itself_is_shown(self):
        try:
            import tqdm
        except ImportError:
            self.skipTest("tqdm is not installed")
        file = io.StringIO()
        self.assertEqual(p_tqdm.p_map(square, range(3), file=file, tqdm=tqdm.tqdm), [0, 1, 4])
        self.assertIn("3/3", file.getvalue())


class Dask(WithFolder):
    def setUp(self):
        super().setUp()
        self.client = dask.Client()
        self.addCleanup(self.client.close)

    def test_submit_map_and_gather(self):
        future = self.client.submit(add, 1, y=2, pure=False)
        self.assertEqual((future.result(60), future.status, future.exception()), (3, "finished", None))
        futures = self.client.map(add, range(4), range(4))
        self.assertEqual(self.client.gather(futures), [0, 2, 4, 6])
        self.assertEqual(self.client.gather({"a": futures[1], "b": [futures[2], 5]}), {"a": 2, "b": [4, 5]})
        self.assertEqual([future.key for future in self.client.map(square, [1, 2], key="k")], ["k-0", "k-1"])
        bad = self.client.submit(fail, 1)
        self.assertRaises(KeyError, bad.result, 60)
        self.assertEqual(bad.status, "error")
        self.assertIn("in fail", str(bad.exception().__cause__))
        self.assertRaises(KeyError, self.client.gather, [futures[0], bad])
        self.assertEqual(self.client.gather([futures[3], bad], errors="skip"), [6])

    def test_a_future_as_an_argument_is_its_value(self):
        first = self.client.submit(wait_for, self.path)
        second = self.client.submit(lambda text, more: text + str(more), first, more=[self.client.submit(square, 2)])
        third = self.client.submit(len, second)
        self.assertEqual(third.status, "pending")
        touch(self.path)
        self.assertEqual((second.result(60), third.result(60)), ("there[4]", 8))
        self.assertRaises(KeyError, self.client.submit(square, self.client.submit(fail, 2)).result, 60)

    def test_scattered_data_is_sent_once_and_arrives_as_itself(self):
        data = self.client.scatter(list(range(1000)), broadcast=True)
        self.assertEqual(self.client.submit(sum, data).result(60), 499500)  # a list of futures, as with Dask
        one = self.client.scatter({"a": bytes(1 << 20)})["a"]
        where = self.client.map(lambda x, data: (os.getpid(), id(data), len(data)), range(20), data=one)
        found = set(self.client.gather(where))
        self.assertEqual(len(found), len({pid for pid, _, _ in found}))
        self.assertEqual({length for _, _, length in found}, {1 << 20})
        self.assertEqual(len(self.client.gather(one)), 1 << 20)

    def test_as_completed_and_wait(self):
        slow = self.client.submit(wait_for, self.path)
        quick = self.client.map(square, range(3))
        done, not_done = dask.wait([slow, *quick], return_when="FIRST_COMPLETED", timeout="60s")
        self.assertTrue(done and slow in not_done)
        self.assertRaises(dask.TimeoutError, dask.wait, slow, "20 ms")
        iterator = dask.as_completed(quick, with_results=True)
        self.assertEqual(sorted(value for _, value in iterator), [0, 1, 4])
        iterator.add(slow)
        self.assertEqual(iterator.count(), 1)
        touch(self.path)
        self.assertEqual(next(iterator), (slow, "there"))
        self.assertTrue(iterator.is_empty())
        self.assertEqual(sum(len(batch) for batch in dask.as_completed(quick).batches()), 3)
        self.assertEqual(dask.wait(quick).not_done, set())

    def test_what_needs_dask_itself_is_refused_in_words(self):
        self.assertRaisesRegex(NotImplementedError, "use Dask itself", getattr, self.client, "compute")
        self.assertRaises(TypeError, self.client.submit(lambda x: 1, [{"a": (self.client,)}]).result, 60)
        self.assertIs(dask.get_client(), self.client)
        self.client.close()
        self.assertRaises(ValueError, dask.get_client)
        with dask.LocalCluster(n_workers=1) as cluster, dask.Client(cluster) as client:
            self.assertEqual(client.ncores(), {"rankpool": 1})
            self.assertRaises(dask.TimeoutError, client.wait_for_workers, 1 << 20)


class Ray(WithFolder):
    def setUp(self):
        super().setUp()
        ray.init(ignore_reinit_error=True)
        self.addCleanup(ray.shutdown)

    def test_remote_functions_and_get(self):
        @ray.remote
        def twice(x, y=1):
            return 2 * x * y

        self.assertEqual(ray.get(twice.remote(3)), 6)
        self.assertEqual(ray.get([twice.remote(x, y=2) for x in range(4)]), [0, 4, 8, 12])
        self.assertEqual(ray.get(twice.remote(twice.remote(1), y=twice.remote(2))), 16)
        self.assertRaisesRegex(TypeError, r"twice.remote\(...\)", twice, 3)
        self.assertRaises(KeyError, ray.get, ray.remote(fail).remote(1))
        self.assertRaises(KeyError, ray.get, twice.remote(ray.remote(fail).remote(1)))
        self.assertRaises(ValueError, ray.get, 5)

    def test_options_give_several_values_and_retries(self):
        @ray.remote(num_returns=2)
        def both(x):
            return x, x + 1

        self.assertEqual(ray.get(both.remote(5)), [5, 6])
        self.assertEqual(ray.get(both.options(num_returns=1).remote(5)), (5, 6))
        self.assertRaisesRegex(ValueError, "num_returns", ray.get, both.options(num_returns=3).remote(5))
        path = self.path

        @ray.remote(max_retries=3, num_cpus=1)
        def at_the_third_attempt():
            touch(path)
            if os.path.getsize(path) < 3:
                raise OSError
            return os.path.getsize(path)

        self.assertEqual(ray.get(at_the_third_attempt.remote()), 3)
        self.assertRaises(OSError, ray.get, ray.remote(lambda: os.stat(path + "x")).options(max_retries=0).remote())

    def test_put_sends_data_once_to_each_worker(self):
        data = ray.put(bytes(1 << 20))
        where = ray.remote(lambda data: (os.getpid(), id(data), len(data)))
        found = set(ray.get([where.remote(data) for _ in range(20)]))
        self.assertEqual(len(found), len({pid for pid, _, _ in found}))
        self.assertEqual(len(ray.get(data)), 1 << 20)
        self.assertRaises(TypeError, ray.put, data)

    def test_wait_and_timeouts(self):
        slow = ray.remote(wait_for).remote(self.path)
        quick = ray.remote(square).remote(2)
        self.assertEqual(ray.wait([slow, quick]), ([quick], [slow]))
        self.assertEqual(ray.wait([slow], timeout=0.01), ([], [slow]))
        self.assertRaises(ray.GetTimeoutError, ray.get, slow, timeout=0.01)
        self.assertRaises(ValueError, ray.wait, [slow, slow])
        self.assertRaises(ValueError, ray.wait, [slow], num_returns=2)
        touch(self.path)
        self.assertEqual(ray.wait([slow, quick], num_returns=2), ([slow, quick], []))
        self.assertEqual(ray.get(slow, timeout=60), "there")

    def test_what_needs_ray_itself_is_refused_in_words(self):
        with self.assertRaisesRegex(NotImplementedError, "no actors"):

            @ray.remote
            class Counter:
                pass

        inner = ray.remote(square)
        outer = ray.remote(lambda: inner.remote(2))
        self.assertRaisesRegex(RuntimeError, "start them from the script", ray.get, outer.remote())
        self.assertRaisesRegex(TypeError, "ObjectRef", ray.get, inner.remote([ray.put(1)]))
        self.assertRaises(RuntimeError, ray.init)
        self.assertTrue(ray.is_initialized())
        ray.shutdown()
        self.assertFalse(ray.is_initialized())
        self.assertEqual(ray.get(inner.remote(3)), 9)
        self.assertGreaterEqual(ray.cluster_resources()["CPU"], 1)


class Package(unittest.TestCase):
    def test_the_names_that_others_have_are_there(self):
        for module in (mpi4py, loky, pathos, p_tqdm, tqdm_names, dask, ray):
            for name in module.__all__:
                self.assertTrue(hasattr(module, name), f"{module.__name__}.{name}")

    def test_options_without_effect_are_accepted_and_globals_warn(self):
        with warnings.catch_warnings(record=True) as caught:
            warnings.simplefilter("always")
            mpi4py.MPIPoolExecutor(1, globals={"x": 1}).shutdown()
            mpi4py.Pool(1, maxtasksperchild=3).terminate()
        self.assertEqual([warning.category for warning in caught], [UserWarning] * 2)
        self.assertFalse(rankpool.is_worker())


if __name__ == "__main__":
    unittest.main()
