"""How functions, shared objects and arrays travel."""

import array
import functools
import gc
import importlib
import importlib.util
import os
import pickle
import subprocess
import sys
import tempfile
import textwrap
import unittest
from unittest import mock

import jobs
import rankpool
from rankpool import share
from rankpool._frames import FORGET, pack_frame
from rankpool._payload import dumps_parts
from test_core import WithExecutor

HAS_CLOUDPICKLE = importlib.util.find_spec("cloudpickle") is not None
HAS_NUMPY = importlib.util.find_spec("numpy") is not None
FACTOR = 10


def run_script(text, *arguments, **environment):
    """Run a script in a new interpreter, which starts its own ranks."""
    with tempfile.TemporaryDirectory() as folder:
        path = os.path.join(folder, "script.py")
        with open(path, "w") as file:
            file.write(textwrap.dedent(text))
        return subprocess.run(
            [sys.executable, path, *arguments],
            env={**os.environ, **environment},
            capture_output=True,
            text=True,
            timeout=120,
        )


def frames_of(executor, number_of=None):
    """The kinds of frames that are sent from now on, in a list."""

    kinds = []
    connection = executor._core.connection
    post = connection._post

    def counted(core, call):
        if call.record.frame is not None:
            kinds.append("function")
        kinds.extend("function" for used in call.uses if used.frame is not None)
        kinds.append("call")
        post(core, call)

    def submit_small(core, future, data):
        future.body = (0, (data,), len(data))
        connection.submit(core, future)

    connection._post = counted
    connection.submit_small = submit_small
    return kinds


def stop_counting(executor):
    for name in ("_post", "submit_small"):
        executor._core.connection.__dict__.pop(name, None)


@unittest.skipUnless(HAS_CLOUDPICKLE, "cloudpickle is not installed")
class ByValue(WithExecutor):
    def test_workers_forget_the_functions_of_maps_that_are_over(self):
        slots = self.executor.num_workers
        for _ in range(60):
            data = bytearray(os.urandom(4 << 20))
            self.assertEqual(set(self.executor.map(lambda _, data=data: len(data), range(4 * slots))), {4 << 20})
            del data
        # Each holds at most a few of them.
        self.assertLess(max(self.executor.map(jobs.resident_memory, range(4 * slots), chunksize=1)), 120 << 20)

    def setUp(self):
        super().setUp()
        self.executor.bootup()

    def tearDown(self):
        stop_counting(self.executor)

    def test_lambdas_closures_and_partials_are_jobs(self):
        y = 5
        self.assertEqual(self.executor.submit(lambda x: x + y, 1).result(60), 6)
        self.assertEqual(list(self.executor.map(lambda x: x * y, range(10))), list(range(0, 50, 5)))
        self.assertEqual(self.executor.submit(functools.partial(jobs.add, 1, z=2), 3).result(60), 6)
        self.assertEqual(self.executor.submit("a-b".split, "-").result(60), ["a", "b"])

    def test_a_function_is_sent_once(self):
        captured = os.urandom(1000)
        fn = lambda i: captured[i]  # noqa: E731
        kinds = frames_of(self.executor)
        many = [self.executor.submit(fn, i) for i in range(20)]
        self.assertEqual(bytes(future.result(60) for future in many), captured[:20])
        self.assertEqual(bytes(self.executor.map(fn, range(20), chunksize=5)), captured[:20])
        self.assertEqual(kinds, ["function"] + ["call"] * 24)

    def test_names_that_are_bound_anew_are_seen(self):
        global FACTOR
        count = 1
        fn = lambda x: x * FACTOR + count  # noqa: E731
        try:
            self.assertEqual(self.executor.submit(fn, 2).result(60), 21)
            FACTOR = 100
            self.assertEqual(self.executor.submit(fn, 2).result(60), 201)
            count = 7
            self.assertEqual(self.executor.submit(fn, 2).result(60), 207)
        finally:
            FACTOR = 10

    def test_changes_in_place_of_small_captures_are_seen(self):
        table = {"a": 1}
        fn = lambda: table["a"]  # noqa: E731
        self.assertEqual(self.executor.submit(fn).result(60), 1)
        table["a"] = 2
        self.assertEqual(self.executor.submit(fn).result(60), 2)
        self.assertEqual(next(self.executor.map(lambda _: table["a"], [0])), 2)

    def test_large_captures_are_serialised_once_and_again_by_a_map(self):
        table = {"a": 1, "data": os.urandom(1 << 17)}
        fn = lambda _: table["a"]  # noqa: E731
        kinds = frames_of(self.executor)
        self.assertEqual(self.executor.submit(fn, 0).result(60), 1)
        table["a"] = 2
        self.assertEqual(self.executor.submit(fn, 0).result(60), 1)
        self.assertEqual(kinds.count("function"), 1)
        self.assertEqual(next(self.executor.map(fn, [0])), 2)
        table = {"a": 3}
        self.assertEqual(self.executor.submit(fn, 0).result(60), 3)

    def test_functions_that_are_gone_are_forgotten(self):
        functions = self.executor._core.connection.functions
        gc.collect()
        entries, hashes = len(functions._entries), len(functions._by_hash)
        for i in range(50):
            self.assertEqual(next(self.executor.map(lambda x, i=i: x + i, [0])), i)
        gc.collect()
        self.assertLess(len(functions._entries), entries + 10)
        self.assertLess(len(functions._by_hash), hashes + 10)

    def test_recursive_functions_are_jobs_and_are_forgotten(self):
        def factorial(n):
            return 1 if n < 2 else n * factorial(n - 1)

        self.assertEqual(self.executor.submit(factorial, 5).result(60), 120)
        self.assertEqual(self.executor.submit(factorial, 6).result(60), 720)

    def test_large_bytes_that_a_function_captures_are_not_copied_into_its_pickle(self):
        data = os.urandom(3 << 20)
        parts, buffers, uses = dumps_parts(lambda: data)
        self.assertEqual([part is data for part in parts if len(part) > 1 << 20], [True])
        self.assertEqual(pickle.loads(b"".join(parts))(), data)
        self.assertEqual((buffers, uses), ([], ()))

    def test_functions_with_equal_large_captures_are_one(self):
        functions = self.executor._core.connection.functions

        for kind in (bytes, bytearray, array.array):
            data = bytearray(os.urandom(2 << 20))
            made = functools.partial(array.array, "B") if kind is array.array else kind
            functions_of = []
            for change in (0, 0, 1):
                data[1 << 20] = (data[1 << 20] + change) % 256
                captured = made(data)
                functions_of.append(functions.for_map(lambda captured=captured: len(captured)))
            first, same, other = [record.number for record in functions_of]
            self.assertEqual(first, same)
            self.assertNotEqual(first, other)

    def test_large_bytes_and_buffers_together_arrive(self):
        for size in (10, 70_000, 2 << 20):
            data, other = os.urandom(size), bytearray(os.urandom(size))
            buffer = pickle.PickleBuffer(other)
            found = self.executor.submit(lambda buffer=buffer: (data, bytes(buffer))).result(60)
            self.assertEqual(found, (data, bytes(other)))

    def test_a_large_capture_travels_in_memory(self):
        data = os.urandom(3 << 20)
        fn = lambda i: (len(data), data[i])  # noqa: E731
        for i in (0, 1_000_000):
            self.assertEqual(self.executor.submit(fn, i).result(60), (len(data), data[i]))

    def test_objects_of_classes_that_are_defined_here_travel_both_ways(self):
        class Point:
            def __init__(self, x):
                self.x = x

            def moved(self):
                return Point(self.x + 1)

        self.assertEqual(self.executor.submit(Point.moved, Point(1)).result(60).x, 2)


class Scripts(unittest.TestCase):
    MAIN = """
        import sys
        WITHOUT = "without" in sys.argv
        if WITHOUT:
            sys.modules["cloudpickle"] = None
        from rankpool import Executor

        class Point:
            def __init__(self, x):
                self.x = x

        def moved(point):
            return Point(point.x + OFFSET)

        OFFSET = 3

        def main():
            with Executor() as executor:
                points = list(executor.map(moved, [Point(i) for i in range(5)]))
                assert all(type(point) is Point for point in points)
                print([point.x for point in points], executor.submit(main_name).result())
                if WITHOUT:
                    try:
                        executor.submit(lambda: 1).result()
                    except Exception as error:
                        print(type(error).__name__, error)

        def main_name():
            return __name__

        if __name__ == "__main__":
            main()
    """

    @unittest.skipUnless(HAS_CLOUDPICKLE, "cloudpickle is not installed")
    def test_functions_of_main_travel_by_value(self):
        done = run_script(self.MAIN)
        self.assertEqual(done.stdout, "[3, 4, 5, 6, 7] __main__\n", done.stderr)
        self.assertEqual(done.returncode, 0)

    def test_without_cloudpickle_main_is_imported_again(self):
        done = run_script(self.MAIN, "without")
        lines = done.stdout.splitlines()
        self.assertEqual(lines[0], "[3, 4, 5, 6, 7] __mp_main__", done.stderr)
        self.assertIn("install cloudpickle", lines[1])

    def test_without_cloudpickle_and_without_a_file_it_is_said_what_to_install(self):
        code = textwrap.dedent(
            """
            import sys
            sys.modules["cloudpickle"] = None
            from rankpool import Executor
            def double(x): return 2 * x
            try:
                print(Executor().submit(double, 1).result())
            except Exception as error:
                print(error)
            """
        )
        done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=120)
        self.assertIn("install cloudpickle", done.stdout)

    @unittest.skipUnless(HAS_CLOUDPICKLE, "cloudpickle is not installed")
    def test_a_script_needs_no_guard(self):
        done = run_script(
            """
            from rankpool import Executor
            def double(x): return 2 * x
            print(list(Executor().map(double, range(3))))
            """
        )
        self.assertEqual(done.stdout, "[0, 2, 4]\n", done.stderr)


class Modules(WithExecutor):
    def test_a_module_that_was_loaded_again_is_loaded_again_by_the_workers(self):
        name = f"edited_{os.getpid()}"
        sys.path.insert(0, self.folder.name)
        self.addCleanup(sys.path.remove, self.folder.name)
        self.addCleanup(sys.modules.pop, name, None)

        def edit(text):
            with open(self.path(name + ".py"), "w") as file:
                file.write(text)
            importlib.invalidate_caches()

        edit("def value(_=None): return 1")
        module = importlib.import_module(name)
        self.assertEqual(self.executor.submit(module.value).result(60), 1)
        old = module.value
        edit("def value(_=None):\n    return 'two'")
        importlib.reload(module)
        self.assertEqual(list(self.executor.map(module.value, range(20), chunksize=1)), ["two"] * 20)
        edit("def helper(): return 3.0\ndef value(_=None): return helper()")
        importlib.reload(module)
        self.assertEqual({self.executor.submit(module.value).result(60) for _ in range(20)}, {3.0})
        # As %autoreload does: the old function gets the new code.
        edit("def value(_=None):\n    return 'the fourth'")
        importlib.reload(module)
        old.__code__, module.value = module.value.__code__, old
        self.assertEqual({self.executor.submit(module.value).result(60) for _ in range(20)}, {"the fourth"})


class Shares(WithExecutor):
    def setUp(self):
        super().setUp()
        self.executor.bootup()
        self.addCleanup(stop_counting, self.executor)

    def test_a_shared_object_is_sent_once_and_loaded_once_by_a_worker(self):
        shared = share(jobs.Loud(self.folder.name))
        kinds = frames_of(self.executor)
        folders = list(self.executor.map(jobs.folder_of, [shared] * 40, chunksize=4))
        self.assertEqual(set(folders), {self.folder.name})
        self.assertEqual(self.executor.submit(jobs.folder_of, loud=shared).result(60), self.folder.name)
        self.assertLessEqual(kinds.count("function"), 2)
        for name in os.listdir(self.folder.name):
            self.assertEqual(os.path.getsize(self.path(name)), 1)

    def test_a_handle_inside_another_object_gives_the_object(self):
        shared = share(jobs.Loud(self.folder.name))
        self.assertEqual(shared.get().folder, self.folder.name)
        nested = self.executor.submit(jobs.get_folder_of, Holder(shared))
        self.assertEqual(nested.result(60), self.folder.name)

    @unittest.skipUnless(HAS_CLOUDPICKLE, "cloudpickle is not installed")
    def test_a_function_may_capture_a_handle(self):
        shared = share(list(range(100)))
        self.assertEqual(self.executor.submit(lambda i: shared.get()[i], 7).result(60), 7)
        self.assertEqual(list(self.executor.map(lambda i: shared.get()[i], range(50))), list(range(50)))

    def test_the_name_share_is_the_function_in_workers_too(self):
        self.assertEqual(self.executor.submit(jobs.share_and_get, share([1]), 2).result(60), 2)
        self.assertTrue(all(hasattr(rankpool, name) for name in rankpool.__all__))
        self.assertTrue(callable(rankpool.share))

    def test_a_handle_comes_back_as_itself(self):
        shared = share([1, 2, 3])
        self.assertIs(self.executor.submit(jobs.first, [shared]).result(60), shared)

    def test_a_shared_object_may_hold_another(self):
        inner = share([1, 2, 3])
        outer = share([inner])
        self.assertEqual(self.executor.submit(jobs.sum_of_first, outer).result(60), 6)

    def test_what_is_not_used_any_more_is_forgotten_by_the_ranks(self):
        shared = share([1, 2, 3])
        self.assertEqual(self.executor.submit(sum, shared).result(60), 6)
        fn = functools.partial(jobs.add, 1000)
        self.assertEqual(self.executor.submit(fn, 1).result(60), 1001)
        functions = self.executor._core.connection.functions
        numbers = {shared._number, functions.for_submit(fn).number}
        with mock.patch("rankpool._connection.pack_frame", wraps=pack_frame) as pack:
            del shared, fn
            gc.collect()
            self.assertEqual(self.executor.submit(jobs.double, 1).result(60), 2)
        forgotten = {call.args[5] for call in pack.call_args_list if call.args[0] == FORGET}
        self.assertLessEqual(numbers, forgotten)


class Holder:
    def __init__(self, shared):
        self.shared = shared

    def get(self):
        return self.shared.get()


class Data(WithExecutor):
    def test_buffers_arrive_writable_in_every_size(self):
        for size in (1, 63, 4096, 70_000, 300_000, (1 << 20) - 200, 1 << 20, 5 << 20):
            with self.subTest(size=size):
                data = bytearray(os.urandom(size))
                is_writable, length, block = self.executor.submit(jobs.invert, jobs.Block(data)).result(60)
                self.assertTrue(is_writable)
                self.assertEqual(length, size)
                self.assertEqual(block.data[0], data[0] ^ 0xFF)
                self.assertEqual(bytes(block.data)[1:], bytes(data)[1:])
                self.assertFalse(memoryview(block.data).readonly)

    def test_buffers_in_chunks_arrive(self):
        blocks = [jobs.Block(bytearray(os.urandom(1000 * i + 1))) for i in range(40)]
        for block, (_, length, back) in zip(blocks, self.executor.map(jobs.invert, blocks, chunksize=7)):
            self.assertEqual(length, len(block.data))
            self.assertEqual(bytes(back.data)[1:], bytes(block.data)[1:])

    def test_large_objects_without_buffers_arrive(self):
        for size in (200_000, 262_144 - 48, 900_000, 3_000_000):
            data = array.array("B", os.urandom(size)).tobytes()
            self.assertEqual(self.executor.submit(bytes.swapcase, data).result(60), data.swapcase())

    def test_a_worker_may_change_what_it_got_without_changing_it_for_others(self):
        data = bytearray(2 << 20)
        for future in [self.executor.submit(jobs.invert, jobs.Block(data)) for _ in range(6)]:
            self.assertEqual(future.result(60)[2].data[0], 0xFF)
        self.assertEqual(data[0], 0)
        self.assertEqual(data[0], 0)
        workers = min(self.executor.num_workers, 4)
        shared = share(jobs.Block(data))
        many = [self.executor.submit(jobs.change_together, shared, self.folder.name, workers) for _ in range(workers)]
        self.assertEqual([future.result(60) for future in many], [(0, 0xFF)] * workers)
        self.assertEqual(data[0], 0)

    @unittest.skipUnless(HAS_NUMPY, "numpy is not installed")
    def test_arrays_arrive_writable(self):
        import numpy as np

        for size in (10, 100_000, 1_000_000):
            back = self.executor.submit(np.negative, np.arange(size, dtype=float)).result(60)
            self.assertTrue(back.flags.writeable)
            self.assertTrue((back == -np.arange(size, dtype=float)).all())


if __name__ == "__main__":
    unittest.main()
