"""Killed workers and killed parents of the verbs that have them, round after round."""

from __future__ import annotations

import os
import signal
import subprocess
import time
from pathlib import Path

import pytest
from command import alive, start, wait_for, workers_of

pytestmark = pytest.mark.faults
OFF = ("--tracking.enabled", "false")
HIGHWAY = ("--driver", "idm", "--workers", "2")
VERBS = {
    "record": ("record", "--episodes", "4000", "--workers", "2", "--output", "out"),
    "record, highway-env": (
        "record",
        "--episodes",
        "400",
        "--simulator",
        "highway-env",
        "--workers",
        "2",
        "--output",
        "out",
    ),
    "evaluate": ("evaluate", *HIGHWAY, "--environment", "highway-v0", "--episodes", "4000", "--output", "out"),
    "benchmark": ("benchmark", *HIGHWAY, "--output", "out"),
}


def at_work(folder: Path, verb: str) -> tuple[subprocess.Popen[str], list[int]]:
    """The verb with both its workers busy."""
    process = start(folder, *VERBS[verb], *OFF)
    wait_for(lambda: len(workers_of(process.pid)) == 2, "two workers")
    working = workers_of(process.pid)
    wait_for(lambda: all(seconds_used(each) > 2.0 for each in working), "their being at work", 120)
    return process, working


def seconds_used(process: int) -> float:
    try:
        fields = Path(f"/proc/{process}/stat").read_text().rpartition(")")[2].split()
    except FileNotFoundError:
        return 0.0
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


@pytest.mark.parametrize("verb", VERBS)
@pytest.mark.parametrize("number", range(5))
def test_a_killed_worker_ends_the_verb_in_one_line(tmp_path, verb, number):
    process, working = at_work(tmp_path, verb)
    time.sleep(0.3 * number)  # at another moment each time
    os.kill(working[number % 2], signal.SIGKILL)
    _, told = process.communicate(timeout=60)
    assert process.returncode == 2
    assert told.count("\n") == 1, told
    assert told.startswith("drivecast: workers: one of the processes was killed by signal 9"), told
    wait_for(lambda: not any(map(alive, working)), "the end of the other worker", 20)


@pytest.mark.parametrize("verb", VERBS)
@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGHUP, signal.SIGTERM, signal.SIGINT])
def test_workers_end_with_the_verb(tmp_path, verb, number):
    process, working = at_work(tmp_path, verb)
    if number == signal.SIGINT:
        os.killpg(process.pid, number)  # as a terminal does
    else:
        process.send_signal(number)
    _, told = process.communicate(timeout=60)
    wait_for(lambda: not any(map(alive, working)), "the end of the workers", 20)
    expected = {signal.SIGKILL: (-9, ""), signal.SIGINT: (130, "drivecast: interrupted\n")}
    assert (process.returncode, told) == expected.get(number, (143, "drivecast: terminated\n"))
