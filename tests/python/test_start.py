"""What the start of a script costs: what is imported and compiled, and what cloudpickle is not needed for."""

import importlib.util
import json
import os
import subprocess
import sys
import tempfile
import textwrap
import unittest

HAS_CLOUDPICKLE = importlib.util.find_spec("cloudpickle") is not None
IN_ZIP = any(entry.startswith("/proc/") for entry in sys.path)


def run_script(text, *arguments):
    with tempfile.TemporaryDirectory() as folder:
        path = os.path.join(folder, "script.py")
        with open(path, "w") as file:
            file.write(textwrap.dedent(text))
        words = [sys.executable, path, *arguments]
        return subprocess.run(words, capture_output=True, text=True, timeout=120)


class Imports(unittest.TestCase):
    COMPILED = """
        import json, sys
        compiled = []
        def hook(event, arguments):
            if event == "compile" and "rankpool/" in str(arguments[1]):
                compiled.append(str(arguments[1]).rpartition("rankpool/")[2])
        sys.addaudithook(hook)
        from rankpool import Executor
        import rankpool._worker, rankpool.compat.loky
        print(json.dumps(compiled))
    """

    @unittest.skipUnless(IN_ZIP and sys.version_info >= (3, 10), "the package is not imported from the program")
    def test_modules_of_the_program_are_compiled_once_at_most(self):
        done = run_script(self.COMPILED)
        compiled = [name for name in json.loads(done.stdout) if name not in ("__init__.py", "_importer.py")]
        self.assertEqual(len(compiled), len(set(compiled)), compiled)

    @unittest.skipUnless(IN_ZIP and sys.version_info >= (3, 10), "the package is not imported from the program")
    def test_a_traceback_shows_the_lines_of_the_package(self):
        done = run_script(
            """
            import traceback
            from rankpool import Executor
            import rankpool.executor
            try:
                Executor(0)
            except ValueError:
                print(traceback.format_exc())
            print(rankpool.executor.__file__)
            """
        )
        self.assertIn('raise ValueError("max_workers must be greater than 0")', done.stdout, done.stderr)
        self.assertTrue(done.stdout.strip().endswith("/rankpool/executor.py"), done.stdout)

    def test_an_executor_is_imported_without_what_only_some_scripts_need(self):
        done = run_script(
            """
            import sys
            before = set(sys.modules)
            from rankpool import Executor
            import rankpool.executor
            large = {"json", "multiprocessing", "pickle", "socket", "subprocess", "typing", "cloudpickle"}
            print(sorted(large & (set(sys.modules) - before)))
            """
        )
        self.assertEqual(done.stdout, "[]\n", done.stderr)


@unittest.skipUnless(HAS_CLOUDPICKLE, "cloudpickle is not installed")
class ByValue(unittest.TestCase):
    """Functions of `__main__` that need no cloudpickle."""

    SCRIPT = """
        import concurrent.futures, math, os, sys
        from math import sqrt
        from rankpool import Executor, share

        FACTOR = 3
        NAMES = ("one", ("two", 2.0), frozenset([3]))
        counter = 0
        table = {"a": 1}

        def even(n): return n == 0 or odd(n - 1)

        def odd(n: int, *, low: float = 0.5) -> bool:
            "Whether it is odd."
            return n != 0 and even(n - 1)

        def root(x, y=FACTOR): return math.floor(sqrt(x)) + y + len(os.path.join("a", "b")) + len(NAMES)

        def count():
            global counter
            counter += 1
            return counter

        def futures(): return concurrent.futures.CancelledError.__name__
        def nested(x): return [(lambda y: y * FACTOR)(x), [sqrt(z) for z in (x * x,)]]
        def generator(x): return sum(y * FACTOR for y in range(x))
        def facts():
            seen = [getattr(odd, "__" + name + "__") for name in ("doc", "annotations", "kwdefaults", "qualname", "name")]
            return seen, len(getattr(odd, "__" + "module__"))
        def fails(): return 1 // 0

        def run():
            cases = [(odd, 7), (even, 7), (root, 16), (lambda x: x * FACTOR, 2), (futures,), (nested, 2), (generator, 4), (facts,)]
            for case in cases:
                assert executor.submit(*case).result() == case[0](*case[1:]), case
            counted = [executor.submit(count).result() for _ in range(4 * executor.num_workers)]
            assert max(counted) >= 4 and counter == 0, counted
            try:
                executor.submit(fails).result()
            except ZeroDivisionError as error:
                text = str(error.__cause__)
                assert "in fails" in text and ("1 // 0" in text or "cloudpickle" in sys.modules), text

        with Executor() as executor:
            run()
            assert not executor.submit(lambda: "cloudpickle" in sys.modules).result()
            assert "cloudpickle" not in sys.modules
            # A name that is bound anew counts.
            FACTOR = 5
            assert executor.submit(nested, 1).result() == [5, [1.0]]
            assert list(executor.map(lambda x: x * FACTOR, range(3))) == [0, 5, 10]
            # What can change, classes and closures go by cloudpickle.
            assert executor.submit(lambda: table["a"]).result() == 1
            assert "cloudpickle" in sys.modules
            run()
        print("done")
    """

    def test_constants_modules_and_functions_like_themselves_travel_with_them(self):
        done = run_script(self.SCRIPT)
        self.assertEqual(done.stdout, "done\n", done.stderr)

    def test_whatever_else_they_capture_goes_by_cloudpickle(self):
        for what, body in {
            "a class": "class A: x = 1\ndef f(): return A.x",
            "an object": "import random\nr = random.Random(1)\ndef f(): return r.random() < 1",
            "a method of an object": "import random\nfrom random import random as r\ndef f(): return r() < 1",
            "a closure": "def make():\n    x = 1\n    return lambda: x\nf = make()",
            "a list": "a = [1]\ndef f(): return a[0]",
            "a default that can change": "def f(a=[1]): return a[0]",
            "an attribute": "def f(): return 1\nf.x = 1",
            "the name of its module": "def f(): return __name__ == '__main__'",
            "a partial function": "import functools\ndef g(x): return x\nf = functools.partial(g, 1)",
        }.items():
            with self.subTest(what):
                text = f"import sys\n{body}\nfrom rankpool import Executor\n"
                text += "with Executor() as e: print(bool(e.submit(f).result()), 'cloudpickle' in sys.modules)\n"
                done = run_script(text)
                self.assertEqual(done.stdout, "True True\n", done.stderr)

    def test_a_worker_of_another_version_says_so(self):
        from rankpool._by_value import load

        with self.assertRaisesRegex(ImportError, "another version of Python"):
            load(b"other", [], {}, {}, [], {})


if __name__ == "__main__":
    unittest.main()
