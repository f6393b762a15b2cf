"""Processes that share work: what they give back, and that none is left alone or waited for in vain."""

from __future__ import annotations

import os
import signal
import sys
import time
from pathlib import Path

import pytest
from command import alive, start, wait_for, workers_of

from drivecast.scripts.driving.workers import FailedThere, Workers, cores
from drivecast.worldmodel.errors import InputError


def squared(value: int) -> tuple[int, int]:
    return value * value, os.getpid()


def killed(value: int) -> int:
    if value == 2:
        os.kill(os.getpid(), signal.SIGKILL)
    time.sleep(0.05)
    return value


def large_then_killed(value: int) -> bytes:
    if value == 3:
        os.kill(os.getpid(), signal.SIGKILL)
    return bytes(50_000_000)


def failing(value: int) -> int:
    raise InputError(f"{value}: expected less")


class UnreadableError(Exception):
    def __init__(self, one: str, other: str) -> None:
        super().__init__(one + other)


def unreadable(value: int) -> int:
    raise UnreadableError("a", "bug")


def test_each_result_comes_with_its_item_from_as_many_processes_as_asked():
    with Workers(2) as workers:
        first = dict(workers.run(squared, range(20)))
        second = dict(workers.run(squared, range(5)))
    assert {item: value for item, (value, _) in first.items()} == {n: n * n for n in range(20)}
    assert len({process for _, process in first.values()}) == 2
    assert {process for _, process in second.values()} <= {process for _, process in first.values()}  # kept


def test_one_worker_or_one_item_starts_no_process():
    with Workers(1) as one, Workers(2) as two:
        results = [*one.run(squared, range(3)), *two.run(squared, [3])]
    assert {process for _, (_, process) in results} == {os.getpid()}


def test_an_item_is_prepared_when_its_turn_comes():
    done: list[int] = []
    seen: list[int] = []

    def prepared(item: int) -> int:
        seen.append(len(done))
        return item

    with Workers(2) as workers:
        for item, _ in workers.run(squared, range(6), prepared):
            done.append(item)
    assert seen[:2] == [0, 0]
    assert seen[-1] >= 3


@pytest.mark.parametrize("function", [killed, large_then_killed])
def test_a_process_that_is_killed_is_one_line_and_no_hang(function):
    began_s = time.monotonic()
    with pytest.raises(InputError, match=r"^workers: one of the processes was killed by signal 9, .*--workers"), Workers(2) as workers:  # fmt: skip  # noqa: E501
        list(workers.run(function, range(10)))
    assert time.monotonic() - began_s < 60


def test_an_error_there_is_the_same_error_here_with_its_traceback():
    with pytest.raises(InputError, match="expected less") as raised, Workers(2) as workers:
        list(workers.run(failing, range(4)))
    assert isinstance(raised.value.__cause__, FailedThere)
    assert "in failing" in str(raised.value.__cause__)
    with pytest.raises(RuntimeError, match="UnreadableError: abug"), Workers(2) as workers:
        list(workers.run(unreadable, range(4)))


def test_who_stops_listening_leaves_no_process_at_work():
    with Workers(2) as workers:
        for _ in workers.run(squared, range(50)):
            break
        assert {item for item, _ in workers.run(squared, range(3))} == {0, 1, 2}


def test_cores_are_counted_where_a_system_has_no_affinity(monkeypatch):
    monkeypatch.delattr(os, "sched_getaffinity", raising=False)
    monkeypatch.setattr(os, "cpu_count", lambda: 3)
    assert cores() == 3


ENDLESS = """
import sys, time
from drivecast.scripts.driving.workers import Workers
if __name__ == "__main__":
    with Workers(2) as workers:
        for _ in workers.run(time.sleep, [0.0, 0.0, 600.0, 600.0]):
            print("at work", flush=True)
"""


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="looks at /proc")
@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGTERM, signal.SIGINT, signal.SIGHUP])
def test_no_process_outlives_the_one_it_works_for(tmp_path, number):
    (tmp_path / "endless.py").write_text(ENDLESS)
    folder = str(tmp_path / "tmp")
    os.mkdir(folder)
    process = start(tmp_path, code="import runpy; runpy.run_path('endless.py', run_name='__main__')", TMPDIR=folder)
    assert process.stdout.readline() == "at work\n"
    working = workers_of(process.pid)
    assert len(working) == 2
    os.killpg(process.pid, number) if number == signal.SIGINT else process.send_signal(number)
    process.wait(20)
    wait_for(lambda: not any(map(alive, working)), "the end of the workers", 20)
    wait_for(lambda: not list(Path(folder).iterdir()), "their files to be gone", 20)
    told = process.stderr.read()
    assert told.count("Traceback") == (1 if number == signal.SIGINT else 0), told  # of this process alone
