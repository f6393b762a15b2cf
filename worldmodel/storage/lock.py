"""One writer at a time: a lock on a folder that says who holds it, and goes when its holder goes."""

from __future__ import annotations

import json
import os
import socket
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from filelock import BaseFileLock, FileLock, Timeout

from drivecast.worldmodel.errors import InputError

SOMEBODY = "another process"


@contextmanager
def held_for_writing(folder: Path, what: str) -> Iterator[bool]:
    """Be the only one who writes to `folder`; yields False where this process holds it already.

    The lock is the file `.NAME.lock` beside the folder, or in it where its parent cannot be written. The system lets go
    of it when the process ends, however it ends.

    Args:
        folder: Or a file. Need not exist.
        what: Who holds it, for whoever comes second.

    Raises:
        InputError: Another process holds it, or nothing can be written there.
    """
    folder = Path(os.path.realpath(folder))
    lock = _acquired(folder)
    if lock is None:
        yield False
        return
    path = Path(lock.lock_file)
    try:
        path.write_text(json.dumps(_about(what)), encoding="utf-8")
        yield True
    finally:
        with suppress(OSError):  # while it is held: whoever waits for this file then finds that it is gone
            path.unlink()
        lock.release()


def _acquired(folder: Path) -> BaseFileLock | None:
    """The folder's lock, now held; None: this process holds it already."""
    try:
        path = _lock_file(folder)
        if path.exists() and path.stat().st_size and _holder(path) == SOMEBODY:
            raise InputError(f"{path}: is in the place of a lock of drivecast's, and is none; move it away")
        lock = FileLock(path, is_singleton=True)
        if lock.is_locked:
            return None
        lock.acquire(blocking=False)
    except Timeout:
        raise InputError(f"{folder}: {_holder(path)} is writing there; wait for it, or give another folder") from None
    except OSError as error:
        raise InputError(f"{folder}: cannot be written ({error.strerror}); give another folder") from error
    return lock


def _lock_file(folder: Path) -> Path:
    folder.parent.mkdir(parents=True, exist_ok=True)
    beside = folder.parent / f".{folder.name}.lock"
    if os.access(folder.parent, os.W_OK) or not folder.is_dir():
        return beside
    return folder / beside.name


def _about(what: str) -> dict[str, object]:
    return {
        "what": what,
        "process": os.getpid(),
        "host": socket.gethostname(),
        "since": time.strftime("%Y-%m-%d %H:%M"),
    }


def _holder(path: Path) -> str:
    try:
        about = json.loads(path.read_text(encoding="utf-8"))
        return f"{about['what']} (process {about['process']} on {about['host']}, since {about['since']})"
    except (OSError, ValueError, KeyError, TypeError):
        return SOMEBODY
