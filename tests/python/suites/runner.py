"""Runs one of others' test suites in the script of `rankpool python`, and writes what became of each test.

runner.py SUITE EXPECTED REPORT
"""

import fnmatch
import json
import sys
import unittest
from pathlib import Path


class Expected:
    """The committed list of a suite: which of its tests do not apply, and why.

    Lines: `not-run PATTERN REASON`, `skipped PATTERN REASON` (the test skips itself), `two-workers PATTERN REASON` (not
    run with one worker), `passed NUMBER`.
    """

    def __init__(self, path):
        self.entries = []
        self.passed = None
        for line in Path(path).read_text().splitlines():
            if not line or line.startswith("#"):
                continue
            kind, pattern, *reason = line.split(None, 2)
            if kind == "passed":
                self.passed = int(pattern)
            elif kind in ("not-run", "skipped", "two-workers") and reason:
                self.entries.append((kind, pattern))
            else:
                raise SystemExit(f"{path}: this line has no meaning: {line}")

    def of(self, name):
        return [(kind, pattern) for kind, pattern in self.entries if fnmatch.fnmatchcase(name, pattern)]


class Report:
    """What became of each test."""

    def __init__(self, expected, workers):
        self.expected, self.workers = expected, workers
        self.results = {}
        self.used = set()

    def is_run(self, name):
        entries = self.expected.of(name)
        self.used.update(pattern for _, pattern in entries)
        kinds = {kind for kind, _ in entries}
        if "not-run" in kinds or ("two-workers" in kinds and self.workers < 2):
            self.results[name] = "not-run"
            return False
        return True

    def problems(self):
        """Everything that is not as the list says."""
        found = []
        for name, result in sorted(self.results.items()):
            if result == "skipped" and "skipped" not in {kind for kind, _ in self.expected.of(name)}:
                found.append(f"{name} was skipped, and the list does not say why")
            elif result not in ("passed", "not-run", "skipped"):
                found.append(f"{name}: {result}")
        for _, pattern in self.expected.entries:
            if pattern not in self.used:
                found.append(f"the list names {pattern}, and the suite has no such test")
        count = sum(result == "passed" for result in self.results.values())
        left_out = sum(
            result == "not-run" and {kind for kind, _ in self.expected.of(name)} == {"two-workers"}
            for name, result in self.results.items()
        )
        if count + left_out != self.expected.passed and not found:
            found.append(f"{count + left_out} tests pass or need two workers; the list says {self.expected.passed}")
        return found


def run_unittest(module, report):
    """A suite of `unittest` cases."""

    class Result(unittest.TextTestResult):
        def _note(self, test, result):
            name = getattr(test, "test_case", test).id().partition(".")[2]
            if report.results.get(name) not in ("failed", "error"):
                report.results[name] = result

        def addSuccess(self, test):
            super().addSuccess(test)
            self._note(test, "passed")

        def addError(self, test, error):
            super().addError(test, error)
            self._note(test, "error")

        def addFailure(self, test, error):
            super().addFailure(test, error)
            self._note(test, "failed")

        def addSubTest(self, test, subtest, error):
            super().addSubTest(test, subtest, error)
            if error is not None:
                self._note(test, "failed")

        def addSkip(self, test, reason):
            super().addSkip(test, reason)
            self._note(test, "skipped")

    def cases(tests):
        for test in tests:
            if isinstance(test, unittest.TestSuite):
                yield from cases(test)
            else:
                yield test

    loaded = unittest.defaultTestLoader.loadTestsFromName(module)
    chosen = unittest.TestSuite(test for test in cases(loaded) if report.is_run(test.id().partition(".")[2]))
    unittest.TextTestRunner(stream=sys.stdout, resultclass=Result, verbosity=2).run(chosen)


def run_pytest(module, report):
    """joblib's suite, of which `joblib_plugin` keeps the tests for rankpool's backend."""
    import importlib.util

    import joblib_plugin
    import pytest

    class Notes:
        @pytest.hookimpl(trylast=True)
        def pytest_collection_modifyitems(self, config, items):
            items[:] = [item for item in items if report.is_run(item.name)]

        def pytest_runtest_logreport(self, report):  # noqa: the name is pytest's
            name = report.nodeid.rpartition("::")[2]
            if report.when == "call" or report.outcome != "passed":
                results.setdefault(name, report.outcome)
                if report.outcome == "failed":
                    results[name] = "failed"

    results = report.results
    path = importlib.util.find_spec(module).origin
    options = ["-q", "-p", "no:cacheprovider", "-W", "ignore", "--durations=5", path]
    pytest.main(options, plugins=[joblib_plugin, Notes()])


SUITES = {
    "futures": (run_unittest, "futures_shim"),
    "pool": (run_unittest, "pool_shim"),
    "mpi4py_futures": (run_unittest, "test_futures"),
    "mpi4py_pool": (run_unittest, "test_util_pool"),
    "joblib": (run_pytest, "joblib.test.test_parallel"),
}


def main():
    name, expected, target = sys.argv[1:]
    del sys.argv[1:]
    import rankpool

    with rankpool.Executor() as executor:
        workers = executor.num_workers
    report = Report(Expected(expected), workers)
    run, module = SUITES[name]
    run(module, report)
    Path(target).write_text(json.dumps({"problems": report.problems(), "results": report.results, "workers": workers}))


if __name__ == "__main__":
    main()
