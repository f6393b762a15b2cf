"""What the user sees while a verb works: lines, tables and progress, on a terminal or in a log file."""

from __future__ import annotations

import os
import re
import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Protocol, TextIO

SECONDS_BETWEEN_LINES = 10.0  # of a progress that is written to a file instead of a terminal


class Progress(Protocol):
    """A count on its way to its total."""

    def advance(self, n: float = 1, **shown: object) -> None:
        """Count `n` more; `shown` values (a loss, a rate) stand beside the count."""
        ...


class Console:
    """Writes to one stream: live bars on a terminal, else a plain line every `SECONDS_BETWEEN_LINES` at most."""

    def __init__(self, stream: TextIO | None = None) -> None:
        self.stream = stream or sys.stdout
        self.live = self.stream.isatty()
        self._bar: _TerminalBar | None = None

    def say(self, line: str) -> None:
        """One line for the user, at once."""
        if self._bar is not None:
            self._bar.say(line)
            return
        try:
            self.stream.write(line + "\n")
            self.stream.flush()
        except OSError:  # the terminal was closed, or who read the pipe is gone: the work goes on without them
            self.stream = Path(os.devnull).open("w", encoding="utf-8")  # noqa: SIM115 (for as long as this process)

    def table(self, title: str, columns: Sequence[str], rows: Sequence[Sequence[object]]) -> None:
        """A table of aligned columns; numbers to the right."""
        cells = [[_cell(value) for value in row] for row in rows]
        widths = [max(len(text) for text in column) for column in zip(columns, *cells, strict=True)]
        numeric = [all(_is_number(row[i]) for row in cells) for i in range(len(columns))]

        def aligned(texts: Sequence[str]) -> str:
            padded = [
                text.rjust(width) if right else text.ljust(width)
                for text, width, right in zip(texts, widths, numeric, strict=True)
            ]
            return "  ".join(padded).rstrip()

        for line in [title, aligned(columns), "  ".join("-" * width for width in widths), *map(aligned, cells)]:
            self.say(line)

    @contextmanager
    def progress(self, total: float, what: str) -> Iterator[Progress]:
        """Show how far `what` is, how fast it goes and how long it still takes."""
        if self.live and self._bar is None:
            self._bar = _TerminalBar(self.stream, total, what)
            try:
                with self._bar:
                    yield self._bar
            finally:
                self._bar = None
        else:
            lines = _ProgressLines(self, total, what)
            yield lines
            lines.close()


class _ProgressLines:
    """Progress for log files."""

    def __init__(self, console: Console, total: float, what: str) -> None:
        self.console, self.total, self.what = console, total, what
        self.done: float = 0
        self.shown: dict[str, object] = {}
        self.started_s = self.written_s = time.monotonic()

    def advance(self, n: float = 1, **shown: object) -> None:
        self.done += n
        self.shown.update(shown)
        now_s = time.monotonic()
        # the last count is told by `close`
        if now_s - self.written_s >= SECONDS_BETWEEN_LINES and self.done < self.total:
            self.written_s = now_s
            rate = self.done / (now_s - self.started_s)
            left_s = (self.total - self.done) / rate if rate > 0 else float("inf")
            self._write(f"{rate:.3g}/s, {_duration(left_s)} left")

    def close(self) -> None:
        took_s = time.monotonic() - self.started_s
        rate = f", {self.done / took_s:.3g}/s" if took_s > 0.05 else ""
        self._write(f"took {_duration(took_s)}{rate}")

    def _write(self, timing: str) -> None:
        values = "".join(f", {key} {_cell(value)}" for key, value in self.shown.items())
        self.console.say(f"{self.what}: {self.done:g}/{self.total:g}{values} ({timing})")


class _TerminalBar:
    """A live bar on a terminal."""

    def __init__(self, stream: TextIO, total: float, what: str) -> None:
        from rich.console import Console as RichConsole
        from rich.progress import BarColumn, MofNCompleteColumn, TextColumn, TimeElapsedColumn, TimeRemainingColumn
        from rich.progress import Progress as RichProgress

        self.bar = RichProgress(
            TextColumn("{task.description}"),
            BarColumn(),
            MofNCompleteColumn(),
            TextColumn("{task.fields[rate]}"),
            TimeElapsedColumn(),
            TextColumn("left"),
            TimeRemainingColumn(),
            TextColumn("{task.fields[shown]}"),
            console=RichConsole(file=stream),
            refresh_per_second=4,
        )
        self.task = self.bar.add_task(what, total=total, rate="", shown="")
        self.shown: dict[str, object] = {}
        self.started_s = time.monotonic()
        self.done: float = 0

    def __enter__(self) -> _TerminalBar:
        self.bar.start()
        return self

    def __exit__(self, *exception: object) -> None:
        self.bar.stop()

    def advance(self, n: float = 1, **shown: object) -> None:
        self.done += n
        self.shown.update(shown)
        rate = self.done / max(time.monotonic() - self.started_s, 1e-9)
        text = "  ".join(f"{key} {_cell(value)}" for key, value in self.shown.items())
        self.bar.update(self.task, advance=n, rate=f"{rate:.3g}/s", shown=text)

    def say(self, line: str) -> None:
        self.bar.console.print(line, markup=False, highlight=False, soft_wrap=True)


def _cell(value: object) -> str:
    return f"{value:.4g}" if isinstance(value, float) else str(value)


def _is_number(text: str) -> bool:
    return re.match(r"[-+]?\d|[-\u2013]?$", text) is not None


def _duration(seconds: float) -> str:
    if seconds == float("inf"):
        return "unknown time"
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    if hours:
        return f"{hours} h {minutes} min"
    return f"{minutes} min {rest} s" if minutes else (f"{rest} s" if seconds >= 1 else f"{seconds:.2f} s")
