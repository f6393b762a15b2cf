"""A run that is recorded with MLflow, and goes on when the tracking server does not."""

from __future__ import annotations

import math
import threading
import time
import uuid
from collections.abc import Mapping
from contextlib import AbstractContextManager
from pathlib import Path

from drivecast.scripts.tracking.console import Console, Progress
from drivecast.scripts.tracking.journal import Entry, Journal
from drivecast.scripts.tracking.mlflow_server import RUN_TAG, SQLITE, MlflowServer, Rejected, RunDeleted, Unreachable
from drivecast.scripts.tracking.run import ConsoleRun, existing, numbers

SECONDS_BETWEEN_DELIVERIES = 2.0
METRICS_BEFORE_DELIVERY = 500
SECONDS_BETWEEN_TRIES = (5.0, 10.0, 20.0, 40.0, 60.0)  # while the server does not answer
SECONDS_TO_DELIVER_AT_END = 120.0
SECONDS_OF_LAST_TRIES, SECONDS_BETWEEN_LAST_TRIES = 15.0, 0.5  # of a database in a file


class JournalRun(ConsoleRun):
    """A run whose metrics go to OUTPUT/metrics.jsonl, at once.

    It is there for others to see from the moment when its work begins: with the first progress or the first thing that
    is recorded. A command that is refused before that leaves no run.

    Args:
        console: Where it talks.
        folder: Where its journal goes; None: it stays in memory.
        begin: What it depends on.
        run: Its id in the journal; none given: a new one. With that of an earlier run it goes on with that run.
    """

    def __init__(self, console: Console, folder: Path | None, begin: Entry, run: str = "") -> None:
        super().__init__(console)
        self.journal = Journal(folder, run or uuid.uuid4().hex[:12])
        self._begin = begin
        self.begun = False

    def begin(self) -> None:
        """The work begins; it may be said more than once."""
        if not self.begun:
            self.begun = True
            self._record({"begin": {**self._begin, "tags": {**self._begin["tags"], RUN_TAG: self.journal.run}}})

    def progress(self, total: float, what: str) -> AbstractContextManager[Progress]:
        self.begin()
        return super().progress(total, what)

    def finish(self, status: str) -> None:
        self.begin()
        self.journal.append({"end": status, "end_ms": _now_ms(), "sent": True})

    def log_params(self, params: Mapping[str, object]) -> None:
        self._record({"params": {key: str(value) for key, value in params.items()}})

    def log_metrics(self, metrics: Mapping[str, float], step: int | None = None) -> None:
        values = {key: value if math.isfinite(value) else str(value) for key, value in numbers(metrics).items()}
        self._record({"step": step, "time_ms": _now_ms(), "metrics": values})

    def log_artifact(self, path: Path | str, folder: str | None = None) -> None:
        self._record({"artifact": str(existing(path)), "folder": folder})

    def register_model(self, path: Path | str, name: str) -> None:
        self._record({"model": str(existing(path)), "name": name})

    def _record(self, entry: Entry) -> None:
        self.begin()
        self.journal.append(entry)


class MlflowRun(JournalRun):
    """A run that a thread delivers to MLflow. No method but `finish` ever waits for the server."""

    def __init__(
        self, console: Console, folder: Path | None, begin: Entry, server: MlflowServer, run: str = ""
    ) -> None:
        super().__init__(console, folder, begin, run)
        self.server = server
        self._pending: list[Entry] = []
        self._metrics_pending = 0
        self._failures = 0
        self._rejected = 0
        self._deleted = False
        self._changed = threading.Condition()
        self._ending_at_s: float | None = None
        self._thread = threading.Thread(target=self._deliver_all, name="tracking", daemon=True)
        self._thread.start()

    def _record(self, entry: Entry) -> None:
        self.begin()
        with self._changed:  # the order of the journal is the order of delivery
            self.journal.append(entry)
            self._pending.append(entry)
            self._metrics_pending += len(entry.get("metrics", ()))
            if self._metrics_pending >= METRICS_BEFORE_DELIVERY or "begin" in entry:
                self._changed.notify()

    def finish(self, status: str) -> None:
        """Deliver what is left; where the server does not answer, say where it is kept."""
        self.begin()
        end: Entry = {"end": status, "end_ms": _now_ms()}
        with self._changed:
            self._pending.append(end)
            self._ending_at_s = time.monotonic() + SECONDS_TO_DELIVER_AT_END
            self._changed.notify()
        self._thread.join(SECONDS_TO_DELIVER_AT_END + 30)
        with self._changed:
            unsent = len(self._pending)
            self.journal.append({**end, "sent": unsent == 0 and self._rejected == 0})
        if unsent:
            self.say(self._where_the_rest_is())

    def _where_the_rest_is(self) -> str:
        path = self.journal.path
        what = "does not have this run any more, it was deleted there" if self._deleted else "does not answer"
        if path is None or not path.exists():
            return f"tracking: {self.server.uri} {what}; this run is not recorded there"
        return (
            f"tracking: {self.server.uri} {what}; everything is kept in {path}; "
            f"send it {'as a new run' if self._deleted else 'later'} with: drivecast sync-metrics {path.parent}"
        )

    def _deliver_all(self) -> None:
        while True:
            with self._changed:
                self._changed.wait_for(self._due, timeout=self._patience_s())
                ending = self._ending_at_s is not None
                batch = self._next_batch()
            try:
                while batch:
                    self._deliver(batch)
                    with self._changed:
                        del self._pending[: len(batch)]
                        self._metrics_pending -= sum(len(entry.get("metrics", ())) for entry in batch)
                        batch = self._next_batch()
                        if self._ending_at_s is not None and time.monotonic() > self._ending_at_s:
                            return
                if ending:
                    return
            except Exception as error:  # whatever it is: the run goes on, and nothing is lost
                self._note_failure(error)
                if ending and not self._worth_another_try():
                    return

    def _worth_another_try(self) -> bool:
        """At the end: a database that others write to is locked for moments only."""
        if self._deleted or not self.server.uri.startswith(SQLITE) or self._ending_at_s is None:
            return False
        time.sleep(SECONDS_BETWEEN_LAST_TRIES)
        return time.monotonic() < self._ending_at_s - SECONDS_TO_DELIVER_AT_END + SECONDS_OF_LAST_TRIES

    def _due(self) -> bool:
        if self._ending_at_s is not None:
            return True
        if self._failures:
            return False  # metrics keep coming; try again after a while only
        return self._metrics_pending >= METRICS_BEFORE_DELIVERY or any("begin" in entry for entry in self._pending[:1])

    def _patience_s(self) -> float:
        if self._failures:
            return SECONDS_BETWEEN_TRIES[min(self._failures, len(SECONDS_BETWEEN_TRIES)) - 1]
        return SECONDS_BETWEEN_DELIVERIES

    def _next_batch(self) -> list[Entry]:
        """Leading entries that go in one request: a stretch of metrics, or one of another kind."""
        count = 0
        while count < len(self._pending) and "metrics" in self._pending[count]:
            count += 1
        return self._pending[: max(count, 1)]

    def _deliver(self, batch: list[Entry]) -> None:
        if "begin" in batch[0]:
            try:
                run_id = self.server.begin(batch[0]["begin"])
            except Rejected as error:  # without a run there is nothing to add to: a deleted experiment, no permission
                raise Unreachable(str(error)) from error
            with self._changed:
                self.journal.append({"mlflow_run_id": run_id})
        else:
            try:
                self.server.deliver(batch)
            except Rejected as error:
                self._rejected += 1
                self.say(f"tracking: not recorded: {error}")
        if self._failures:
            self._failures, self._deleted = 0, False
            self.say(f"tracking: {self.server.uri} answers again")

    def _note_failure(self, error: Exception) -> None:
        self._failures += 1
        self._deleted = isinstance(error, RunDeleted)
        if self._failures == 1:
            kept = f"metrics are kept in {self.journal.path}" if self.journal.path else "metrics are kept until then"
            what = (str(error).strip().splitlines() or [type(error).__name__])[0]
            if not isinstance(error, Unreachable):
                what = f"{type(error).__name__}: {what}"
            trouble = f"says: {what}" if self._deleted else f"does not answer ({what})"
            self.say(f"tracking: {self.server.uri} {trouble}; going on, {kept}")


def _now_ms() -> int:
    return time.time_ns() // 1_000_000
