"""Atomic writes: a reader sees the old file or folder, or the whole new one, whenever the writer is stopped."""

from __future__ import annotations

import ctypes
import os
import re
import shutil
import sys
import uuid
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

AT_FDCWD, RENAME_EXCHANGE = -100, 2  # Linux: renameat2(2)
RENAME_SWAP = 2  # macOS: renamex_np(2)
PART, OLD = "part", "old"


@contextmanager
def atomic_file(path: Path) -> Iterator[Path]:
    """Yield a temporary path beside `path`; it takes the name `path` when the block ends without an exception."""
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = _beside(path, PART)
    try:
        yield temporary
        with temporary.open("rb") as written:
            os.fsync(written.fileno())
        os.replace(temporary, path)
    finally:
        temporary.unlink(missing_ok=True)


def copy_file(source: Path, target: Path) -> None:
    """Copy `source` to `target`, which is whole or not there; nothing is done where they are one file."""
    if source.resolve() == target.resolve():
        return
    with atomic_file(target) as temporary:
        shutil.copyfile(source, temporary)


@contextmanager
def atomic_directory(path: Path, carried: tuple[str, ...] = (), check: Callable[[], None] = lambda: None):
    """Yield a new temporary folder; it replaces `path` when the block ends without an exception.

    The two change places in one step where the system can (Linux, macOS). Elsewhere, and where the file system cannot,
    there is a moment with no folder at `path`: who is killed in it is mended by `recover_directory`.

    Args:
        path: The folder, or a symbolic link to it, which stays.
        carried: Names of files of the old folder that the new one keeps, as the same files.
        check: Called just before the change; raises where the old folder must stay.
    """
    path = Path(os.path.realpath(path))
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = _beside(path, PART)
    temporary.mkdir()
    try:
        yield temporary
        _sync(temporary)
        check()
        for name in carried:
            if (path / name).is_file() and not (temporary / name).exists():
                _same_file(path / name, temporary / name)
        if not path.exists():
            os.replace(temporary, path)
        elif exchange(temporary, path):
            pass  # what is at `temporary` now is the old folder
        else:
            retired = _beside(path, OLD)
            os.replace(path, retired)
            os.replace(temporary, path)
            shutil.rmtree(retired, ignore_errors=True)
    finally:
        shutil.rmtree(temporary, ignore_errors=True)


@contextmanager
def scratch_directory(path: Path) -> Iterator[Path]:
    """Yield a folder beside `path` for what is needed meanwhile; it goes at the end, or by `recover_directory`."""
    temporary = _beside(Path(os.path.realpath(path)), PART)
    temporary.mkdir(parents=True)
    try:
        yield temporary
    finally:
        shutil.rmtree(temporary, ignore_errors=True)


def exchange(one: Path, other: Path) -> bool:
    """Let two files or folders of one file system change their names in one step; False where that is not possible."""
    try:
        library = ctypes.CDLL(None, use_errno=True)
        if sys.platform == "darwin":
            return library.renamex_np(os.fsencode(one), os.fsencode(other), RENAME_SWAP) == 0
        return library.renameat2(AT_FDCWD, os.fsencode(one), AT_FDCWD, os.fsencode(other), RENAME_EXCHANGE) == 0
    except (OSError, AttributeError, TypeError):  # no such library, no such function, no library to name (Windows)
        return False


def recover_directory(path: Path) -> None:
    """Mend what a killed `atomic_directory` or `atomic_file` of `path` left. Only for who alone writes there.

    Where it was killed between two renames, the old folder gets its name back; half-written ones are removed.
    """
    path = Path(os.path.realpath(path))
    if not path.parent.is_dir():
        return
    left = re.compile(rf"\.{re.escape(path.name)}\.[0-9a-f]{{8}}\.({PART}|{OLD})")
    found = sorted(entry for entry in path.parent.iterdir() if left.fullmatch(entry.name))
    if not path.exists():
        for entry in [entry for entry in found if entry.suffix == f".{OLD}"][-1:]:
            os.replace(entry, path)
    for entry in found:
        if entry.is_dir():
            shutil.rmtree(entry, ignore_errors=True)
        else:
            entry.unlink(missing_ok=True)


def _beside(path: Path, ending: str) -> Path:
    return path.with_name(f".{path.name}.{uuid.uuid4().hex[:8]}.{ending}")


def _same_file(source: Path, target: Path) -> None:
    try:
        os.link(source, target)  # the same file: who has it open goes on writing to it
    except OSError:
        shutil.copy2(source, target)


def _sync(folder: Path) -> None:
    for file in folder.rglob("*"):
        if file.is_file():
            with file.open("rb") as written:
                os.fsync(written.fileno())
