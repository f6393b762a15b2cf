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
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from worldmodel.errors import InputError

FILE_NAME = "metrics.jsonl"
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
        with self.path.open("a", encoding="utf-8") as stream:
            stream.writelines(self._lines[self._written :])
            stream.flush()
            self._inode = self.path.stat().st_ino
        self._written = len(self._lines)


def read_journal(folder: Path) -> dict[str, list[Entry]]:
    """The entries of each run of a journal, in order. A last line that was cut off (a power cut) is left out."""
    path = folder / FILE_NAME if folder.is_dir() else folder
    if not path.is_file():
        raise InputError(f"{path}: expected the metrics file of a run, found nothing; give the run's output folder")
    runs: dict[str, list[Entry]] = {}
    lines = path.read_text(encoding="utf-8").splitlines()
    for number, line in enumerate(lines, start=1):
        try:
            entry = json.loads(line)
            runs.setdefault(entry["run"], []).append(entry)
        except (json.JSONDecodeError, TypeError, KeyError) as error:
            if number == len(lines):
                break
            raise InputError(
                f"{path}, line {number}: expected an entry of a run's metrics, got '{line[:60]}'"
            ) from error
    return runs


def metric_entries(entry: Entry) -> Iterator[tuple[str, float, int, int]]:
    """The `(name, value, time_ms, step)` of an entry of metrics."""
    for name, value in entry["metrics"].items():
        yield name, float(value), int(entry["time_ms"]), int(entry["step"] or 0)
