"""The half of a connection that receives: the thread that gives calls their results, and what has no result at the end."""

from . import _frames as frames
from ._frames import FrameReader
from ._futures import JobFuture, begin, settle
from ._results import outcome_of
from ._runs import abandoned, cancel_abandoned, live_runs


class Receiving:
    """A part of `Connection`, which has the fields and the lock."""

    def _receive(self):
        """The thread that receives."""
        why = "the connection to rankpool is closed: its process has ended"
        try:
            reader = FrameReader(self._socket)
            while True:
                batch = reader.read()
                if batch is None:
                    break
                why = self._handle(batch) or why
                batch = None
        except BaseException as error:
            why = f"the connection to rankpool has failed: {type(error).__name__}: {error}"
        self._end(why)

    def _handle(self, batch):
        """Handle frames. Returns the text of an ENDING frame."""
        results = []
        why = None
        for frame in batch:
            header, body = frame
            kind = header[0]
            if kind == frames.RESULT:
                results.append(frame)
            elif kind == frames.WINDOW:
                self.window = max(1, header[4])
            elif kind == frames.WELCOME:
                self.welcome = bytes(body)
                self.slots = max(1, header[4])
                self.window = self.slots + 1
                self._welcome.set()
            elif kind == frames.ENDING:
                why = bytes(body).decode(errors="replace")
        if results:
            self._settle(results)
        if why is not None:
            self._end_pending(why)
        if abandoned:
            cancel_abandoned()
        if self._waiting:
            self.pump()
        return why

    def _settle(self, results):
        """Give calls their results."""
        answered = self._unanswered.pop
        with self.lock:
            calls = [answered(header[5], None) for header, _ in results]
            for call in calls:
                if call is not None:
                    call.core.flying -= 1
            if self._memfds is not None:
                for header, _ in results:
                    self._memfds.answered(header[5])
        outcomes = []
        for call, (header, body) in zip(calls, results):
            if type(call) is JobFuture:
                outcomes.append((call, *outcome_of(call, header, body)))
            elif call is not None:
                call.run.answered(call, header[2], *outcome_of(call, header, body), header[8], header[9])
        if outcomes:
            settle(outcomes)
            self._release(outcomes)

    def _release(self, outcomes):
        """Count finished jobs of futures."""
        with self.lock:
            for future, _, _ in outcomes:
                future.core.count_finished(1)
                future.record = None
                if future.uses:
                    future.uses = None

    # The end.

    def _end_pending(self, why):
        """Take no more calls, and fail those that were not sent."""
        with self.lock:
            if self.over is not None:
                return
            self.over = why
            sources = [source for core in self._waiting for source in core.pending]
            cores = list(self._waiting)
            self._waiting.clear()
            for core in cores:
                core.pending.clear()
                core.queued = False
        self._welcome.set()
        self._wake_flusher.release()
        if not sources:
            return
        error = self.error()
        futures = [(source, False, error) for source in sources if type(source) is JobFuture]
        settle([outcome for outcome in futures if begin((outcome[0],))])
        self._release(futures)
        for source in sources:
            if type(source) is not JobFuture:
                source.fail(error)

    def _end(self, why):
        """The stream is at its end: what has no answer gets none."""
        self._end_pending(why)
        with self.lock:
            calls = list(self._unanswered.values())
            self._unanswered.clear()
        runs = [run for run in live_runs() if run.connection is self]
        if not calls and not runs:
            return
        error = self.error()
        futures = [(call, False, error) for call in calls if type(call) is JobFuture]
        settle(futures)
        self._release(futures)
        for call in calls:
            if type(call) is not JobFuture:
                call.run.answered(call, frames.CANCELLED, False, error, 0.0)
        for run in runs:
            run.fail(error)
