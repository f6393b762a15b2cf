"""The command, as a user starts it: as a process of its own, or within this one."""

from __future__ import annotations

import contextlib
import io
import os
import signal
import subprocess
import sys
import time
import warnings
from collections.abc import Callable
from pathlib import Path

import pytest

from drivecast.scripts.command import cli

REPOSITORY = Path(__file__).resolve().parents[1]
# warnings that Python shows nobody
UNHEARD = (DeprecationWarning, PendingDeprecationWarning, ImportWarning, ResourceWarning)


def start(folder: Path, *arguments: str, code: str = "", **environment: str) -> subprocess.Popen[str]:
    """The command in `folder`, or other `code`; in a session of its own."""
    program = ["-c", code] if code else ["-m", "drivecast.scripts.command.cli"]
    return subprocess.Popen(
        [sys.executable, *program, *arguments],
        cwd=folder,
        env={**os.environ, "PYTHONPATH": str(REPOSITORY / "src"), "OMP_NUM_THREADS": "1", **environment},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
        preexec_fn=_listening,
    )


def _listening() -> None:
    """Interrupts and hang-ups are ignored where the tests run in the background, under nohup."""
    for name in (signal.SIGINT, signal.SIGHUP):
        signal.signal(name, signal.SIG_DFL)


def drivecast(folder: Path, *arguments: str) -> tuple[int, str]:
    """Exit status, and what was said on the error stream: of the command in `folder`, within this process.

    A process of its own takes seconds to start, before the command itself begins.
    """
    told = io.StringIO()
    with pytest.MonkeyPatch.context() as here, warnings.catch_warnings(record=True) as warned:
        for unheard in UNHEARD:
            warnings.simplefilter("ignore", unheard)
        here.chdir(folder)
        with contextlib.redirect_stderr(told):
            status = cli.main(arguments)
    return status, told.getvalue() + "".join(f"{warning.message}\n" for warning in warned)


def wait_for(condition: Callable[[], object], what: str, seconds: float = 60.0) -> None:
    """Until something is so."""
    until_s = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < until_s, f"waited in vain for {what}"
        time.sleep(0.05)


def descendants(process: int) -> list[int]:
    """All processes that a process started, and those that they started."""
    children = []
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit():
            try:
                parent = int((entry / "stat").read_text().rpartition(")")[2].split()[1])
            except (FileNotFoundError, ProcessLookupError):
                continue
            if parent == process:
                children.append(int(entry.name))
    return children + [each for child in children for each in descendants(child)]


def alive(process: int) -> bool:
    """Whether it runs: it may be dead and not yet be asked about."""
    try:
        return Path(f"/proc/{process}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except (FileNotFoundError, ProcessLookupError):
        return False


def workers_of(process: int) -> list[int]:
    """Processes that work for one, by what they were started as; not multiprocessing's own helper."""
    found = []
    for each in descendants(process):
        try:
            command = Path(f"/proc/{each}/cmdline").read_bytes()
        except (FileNotFoundError, ProcessLookupError):
            continue
        if b"spawn_main" in command:
            found.append(each)
    return found
