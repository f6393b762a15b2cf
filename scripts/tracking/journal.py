"""The journal of a run: OUTPUT/metrics.jsonl holds everything a tracking server should know, written at once.

One JSON object a line, each with `run`, the id of its run, as several runs may write to the same output:

    {"run", "begin": {experiment, name, tracking_uri, params, tags, config, start_ms}}
    {"run", "step": int or null, "time_ms", "metrics": {name: number, or "nan", "inf"}}
    {"run", "params": {name: text}}
    {"run", "artifact": path, "folder"}          {"run", "model": path, "name"}
    {"run", "mlflow_run_id": id}                 the server knows the run under this id
    {"run", "end": status, "end_ms", "sent": true when the server has everything}
"""

from __future__ import annotations

import json
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any, BinaryIO

from drivecast.worldmodel.errors import InputError

FILE_NAME = "metrics.jsonl"
BEGINNING = '{"run":'  # of every line
Entry = dict[str, Any]


class Journal:
    """Appends entries of one run to `folder/metrics.jsonl`.

    Waits for the folder to exist (a store appears only when it is whole), and writes everything again when the folder
    was replaced. Without a folder it stays in memory.
    """

    def __init__(self, folder: Path | None, run: str) -> None:
        self.path = folder / FILE_NAME if folder is not None else None
        self.run = run
        self._lines: list[str] = []
        self._inode: int | None = None
        self._written = 0

    def append(self, entry: Entry) -> None:
        self._lines.append(json.dumps({"run": self.run, **entry}, separators=(",", ":"), default=str) + "\n")
        self.write()

    def write(self) -> None:
        """Bring the file up to date, as soon as its folder is there."""
        if self.path is None or not self.path.parent.is_dir():
            return
        inode = self.path.stat().st_ino if self.path.exists() else None
        if inode is None or inode != self._inode:
            self._written = 0
        with self.path.open("ab+") as stream:
            if self._written == 0:
                _end_last_line(stream)
            stream.write("".join(self._lines[self._written :]).encode())
            stream.flush()
            self._inode = self.path.stat().st_ino
        self._written = len(self._lines)


def _end_last_line(stream: BinaryIO) -> None:
    """A line that was cut off by a power cut must not swallow the next one."""
    if stream.seek(0, os.SEEK_END):
        stream.seek(-1, os.SEEK_END)
        if stream.read(1) != b"\n":
            stream.write(b"\n")


def read_journal(folder: Path) -> dict[str, list[Entry]]:
    """The entries of each run of a journal, in order. Lines that were cut off (a power cut) are left out.

    Raises:
        InputError: There is none, or a line was never an entry.
    """
    path = folder / FILE_NAME if folder.is_dir() else folder
    if not path.is_file():
        raise InputError(f"{path}: expected the metrics file of a run, found nothing; give the run's output folder")
    runs: dict[str, list[Entry]] = {}
    lines = path.read_text(encoding="utf-8", errors="replace").splitlines()
    for number, line in enumerate(lines, start=1):
        entries = _entries(line)
        if entries is None and number < len(lines):
            raise InputError(f"{path}, line {number}: expected an entry of a run's metrics, got '{line[:60]}'")
        for entry in entries or ():
            runs.setdefault(entry["run"], []).append(entry)
    return runs


def _entries(line: str) -> list[Entry] | None:
    """The entries in a line: one; none of a cut one; None where it was never an entry.

    A power cut leaves the beginning of a line, or zeros; an older version then wrote on in the same line.
    """
    line = line.replace("\0", "")
    if (whole := _entry(line)) is not None:
        return [whole]
    rest, *pieces = line.split(BEGINNING)
    if not BEGINNING.startswith(rest):
        return None
    return [entry for piece in pieces if (entry := _entry(BEGINNING + piece)) is not None]


def _entry(text: str) -> Entry | None:
    try:
        entry = json.loads(text)
    except ValueError:
        return None
    return entry if isinstance(entry, dict) and isinstance(entry.get("run"), str) else None


def begun_by(folder: Path) -> set[str]:
    """The verbs whose runs wrote to a folder, by its journal; none where there is no readable one."""
    try:
        runs = read_journal(folder) if (folder / FILE_NAME).is_file() else {}
    except (InputError, OSError):
        return set()
    begins = [entry["begin"] for entries in runs.values() for entry in entries if "begin" in entry]
    return {str(begin.get("tags", {}).get("verb")) for begin in begins if isinstance(begin, dict)}


def is_recorded(folder: Path) -> bool:
    """Whether the tracking server has all that the journal of a folder holds."""
    return all(
        any("end" in entry and entry.get("sent") for entry in entries[-1:]) for entries in read_journal(folder).values()
    )


def metric_entries(entry: Entry) -> Iterator[tuple[str, float, int, int]]:
    """The `(name, value, time_ms, step)` of an entry of metrics."""
    for name, value in entry["metrics"].items():
        yield name, float(value), int(entry["time_ms"]), int(entry["step"] or 0)
