"""A bar for a map: by tqdm if it is installed (in a notebook, tqdm's widget), otherwise lines on stderr."""

import sys
import threading
import warnings
from time import monotonic

from ._functions import display_name

_BAR_SECONDS = 0.1
_LINE_SECONDS = 5.0
_LAST_SECONDS = 1.0


class Progress:
    """Counts the finished jobs of a map, and shows them from a thread of its own."""

    def __init__(self, fn, total):
        self.done = 0
        self.failed = 0
        self._total = total
        self._name = display_name(fn)
        self._end = threading.Event()
        self._shown = 0
        self._begin = monotonic()
        self._bar = self._make_bar()
        self._thread = threading.Thread(target=self._show, name="rankpool-progress", daemon=True)
        self._thread.start()

    def count(self, jobs, failed):
        """Note finished jobs."""
        self.done += jobs
        self.failed += failed

    def end(self):
        """The map has finished."""
        self._end.set()

    def wait(self):
        """Wait until the last state is shown."""
        self._thread.join(_LAST_SECONDS)

    def _make_bar(self):
        options = {"total": self._total, "desc": self._name, "unit": "job", "file": sys.stderr}
        try:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")
                from tqdm import auto, std

                try:
                    return auto.tqdm(**options)
                except ImportError:  # In a notebook without ipywidgets.
                    return std.tqdm(**options)
        except ImportError:
            return None

    def _show(self):
        seconds = _LINE_SECONDS if self._bar is None else _BAR_SECONDS
        is_over = False
        while not is_over:
            is_over = self._end.wait(seconds)
            try:
                if self._bar is None:
                    self._write_line()
                else:
                    self._update_bar(is_over)
            except Exception:
                return  # No bar is worth an error: stderr may be closed.

    def _update_bar(self, is_over):
        done, failed = self.done, self.failed
        if failed:
            self._bar.set_postfix(failed=failed, refresh=False)
        self._bar.update(done - self._shown)
        self._shown = done
        if is_over:
            self._bar.close()

    def _write_line(self):
        seconds = max(monotonic() - self._begin, 1e-9)
        of = "" if self._total is None else f" of {self._total}"
        failed = f", {self.failed} failed" if self.failed else ""
        rate = self.done / seconds
        print(f"{self._name}: {self.done}{of} jobs{failed}, {rate:.3g} jobs/s", file=sys.stderr, flush=True)
