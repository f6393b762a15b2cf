"""Signals that ask the process to end, held back until a moment when nothing is half done."""

from __future__ import annotations

import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType
from typing import Any

ENDING = ("SIGINT", "SIGTERM", "SIGHUP")


class HeldBack:
    """The first signal waits; a second one is not held back."""

    def __init__(self) -> None:
        self.waiting = False
        self._handlers: dict[int, Any] = {}
        self._given: tuple[int, FrameType | None] = (0, None)

    def deliver(self) -> None:
        """Let the signal do what it would have done at once: as a rule it raises `KeyboardInterrupt`."""
        if self.waiting:
            self.waiting = False
            number, frame = self._given
            self._handlers[number](number, frame)

    def _receive(self, number: int, frame: FrameType | None) -> None:
        if self.waiting:
            self._handlers[number](number, frame)
        self.waiting, self._given = True, (number, frame)


@contextmanager
def held_back() -> Iterator[HeldBack]:
    """Hold back the signals that Python code handles; not those that are ignored or end the process by themselves.

    What still waits is delivered at the end. Where this isn't the main thread, nothing is held back.
    """
    held = HeldBack()
    if threading.current_thread() is threading.main_thread():
        numbers = [getattr(signal, name) for name in ENDING if hasattr(signal, name)]
        held._handlers = {n: handler for n in numbers if callable(handler := signal.getsignal(n))}
    for number in held._handlers:
        signal.signal(number, held._receive)
    try:
        yield held
    finally:
        for number, handler in held._handlers.items():
            signal.signal(number, handler)
    held.deliver()
