"""Processes that share a verb's work: one pool for all verbs, which a killed process ends in one line."""

from __future__ import annotations

import os
import pickle
import shutil
import signal
import tempfile
import threading
import time
import traceback
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from multiprocessing import connection, get_context, parent_process, resource_tracker
from multiprocessing.connection import Connection
from multiprocessing.process import BaseProcess
from pathlib import Path
from typing import Any, TypeVar

from drivecast.worldmodel.errors import InputError

T = TypeVar("T")
R = TypeVar("R")
GRACE_S = 0.3  # a signal that killed a process is on its way to us, too
ASKED_OF_US = tuple(getattr(signal, name) for name in ("SIGINT", "SIGHUP") if hasattr(signal, name))


class FailedThere(Exception):  # noqa: N818 (it carries the traceback of another error)
    """The traceback of what went wrong in another process."""


def cores() -> int:
    """How many this process may use."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


@dataclass
class _Worker:
    process: BaseProcess
    tasks: Connection
    item: Any = None


class Workers:
    """Processes that are kept from one piece of work to the next. A context manager.

    Results come back as files, so a process that is killed leaves nothing half-said, and nobody waits for it. The
    processes end with this one, however it ends.

    Args:
        count: Number of processes; 0: one per core; 1: none, all is done here.
    """

    def __init__(self, count: int = 0) -> None:
        self.count = count or cores()
        self._workers: list[_Worker] = []
        self._folder: Path | None = None
        self._numbers = 0

    def __enter__(self) -> Workers:
        return self

    def __exit__(self, *_: object) -> None:
        for worker in self._workers:
            worker.process.kill()  # what is half done is of no use, and what is done is read already
        for worker in self._workers:
            worker.process.join()
            worker.tasks.close()
        self._workers = []
        if self._folder is not None:
            shutil.rmtree(self._folder, ignore_errors=True)
            self._folder = None

    def run(
        self,
        function: Callable[[T], R],
        items: Sequence[T],
        prepared: Callable[[T], T] = lambda item: item,
        least: int = 2,
    ) -> Iterator[tuple[T, R]]:
        """`function` of each item, in the order in which they finish; each with its item.

        Args:
            function: Can be pickled, as its items and results can.
            items: Begun in their order.
            prepared: Called on an item, here, when its turn comes.
            least: So many items are worth starting processes; fewer are done here.

        Raises:
            InputError: A process was killed.
            Exception: What `function` raised.
        """
        waiting = list(items)
        if self.count == 1 or len(waiting) < least:
            for item in waiting:
                item = prepared(item)
                yield item, function(item)
            return
        self._start(min(self.count, len(waiting)))
        idle, busy = self._workers[: len(waiting)], list[_Worker]()
        try:
            while waiting or busy:
                while waiting and idle:
                    worker = idle.pop(0)
                    worker.item = prepared(waiting.pop(0))
                    busy.append(worker)
                    self._hand_out(worker, function)
                ready = set(connection.wait([each for w in busy for each in (w.tasks, w.process.sentinel)]))
                for worker in [w for w in busy if {w.tasks, w.process.sentinel} & ready]:
                    result = self._result(worker)
                    busy.remove(worker)
                    idle.append(worker)
                    yield worker.item, result
        finally:
            for worker in busy:  # nobody wants their results any more
                worker.process.kill()
                self._workers.remove(worker)

    def _start(self, count: int) -> None:
        if self._folder is None:
            self._folder = Path(tempfile.mkdtemp(prefix="drivecast-"))
        context = get_context("spawn")  # not forked: threads (a tracking client, torch) hold locks that a fork copies
        resource_tracker.ensure_running()  # which unblocks signals once it runs
        with _blocked(ASKED_OF_US):  # as the processes inherit it: these are ours to handle
            while len(self._workers) < count:
                here, there = context.Pipe()
                process = context.Process(target=_serve, args=(there, self._folder), daemon=True)
                process.start()
                there.close()  # so that the pipe ends with the process
                self._workers.append(_Worker(process, here))

    def _hand_out(self, worker: _Worker, function: Callable[[Any], Any]) -> None:
        assert self._folder is not None
        self._numbers += 1
        try:
            worker.tasks.send((self._folder / f"{self._numbers}.result", function, worker.item))
        except (BrokenPipeError, ConnectionResetError):
            self._was_killed(worker)

    def _result(self, worker: _Worker) -> Any:
        try:
            file: Path | OSError = worker.tasks.recv()
        except (EOFError, ConnectionResetError):
            self._was_killed(worker)
        if isinstance(file, OSError):
            raise file  # it could not be written: a full disk
        result, error, there = pickle.loads(file.read_bytes())
        file.unlink()
        if error is not None:
            raise error from FailedThere(there)
        return result

    def _was_killed(self, worker: _Worker) -> None:
        time.sleep(GRACE_S)
        worker.process.join(GRACE_S)
        code = worker.process.exitcode
        how = f"was killed by signal {-code}" if code is not None and code < 0 else f"ended with status {code}"
        raise InputError(
            f"workers: one of the processes {how}, as the system does when memory runs out; start again, with fewer "
            "--workers or smaller batches"
        )


def _serve(tasks: Connection, folder: Path) -> None:
    """What a worker does: tasks, one after the other, until it is killed."""
    threading.Thread(target=_end_with_parent, args=(folder,), daemon=True).start()
    import torch

    torch.set_num_threads(1)  # there are as many processes as cores
    while True:
        try:
            file, function, item = tasks.recv()
        except (EOFError, ConnectionResetError):
            return
        outcome: tuple[Any, BaseException | None, str]
        try:
            outcome = (function(item), None, "")
        except Exception as error:
            outcome = (None, error, traceback.format_exc())
        try:
            file.write_bytes(_pickled(outcome))
        except OSError as error:
            file = error
        try:
            tasks.send(file)
        except OSError:
            return  # nobody is there any more


def _pickled(outcome: tuple[Any, BaseException | None, str]) -> bytes:
    try:
        content = pickle.dumps(outcome)
        if outcome[1] is not None:
            pickle.loads(content)  # some errors are written but cannot be read
        return content
    except Exception:
        return pickle.dumps((None, RuntimeError(outcome[2] or traceback.format_exc()), outcome[2]))


def _end_with_parent(folder: Path) -> None:
    """Nobody is left to work for, and to tidy up, when the parent was killed."""
    parent = parent_process()
    assert parent is not None
    connection.wait([parent.sentinel])
    shutil.rmtree(folder, ignore_errors=True)
    os._exit(1)


@contextmanager
def _blocked(signals: Sequence[signal.Signals]) -> Iterator[None]:
    if not hasattr(signal, "pthread_sigmask"):
        yield
        return
    before = signal.pthread_sigmask(signal.SIG_BLOCK, signals)
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)
