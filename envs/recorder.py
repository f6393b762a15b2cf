"""Recorded episodes of a plan, whoever simulates them, in as many processes as one likes."""

from __future__ import annotations

import signal
import threading
from collections.abc import Iterator
from concurrent.futures import ProcessPoolExecutor
from contextlib import contextmanager
from functools import partial
from itertools import chain
from multiprocessing import get_context
from typing import Any

from envs import highway_recording
from envs.batched import recording as batched_recording
from envs.batched.traffic import BATCHED
from envs.recorded_episode import RecordedEpisode
from envs.recording_cast import RecordingPlan

WORTH_A_PROCESS = 4  # parts of the batched simulator: starting one takes as long as running that many


def simulator_of(environment: str, wanted: str) -> str:
    """Who simulates: highway-env itself where the batched simulator does not have the road."""
    return wanted if environment in BATCHED else "highway-env"


def processes_for(plan: RecordingPlan, episodes: int, simulator: str, most: int) -> int:
    """How many processes are worth starting, at most `most`."""
    if simulator == "highway-env":
        return min(most, episodes)
    parts = len(batched_recording.parts_of(plan, episodes))
    return max(1, min(most, parts // WORTH_A_PROCESS))


def record_episodes(plan: RecordingPlan, episodes: int, workers: int, simulator: str) -> Iterator[RecordedEpisode]:
    """Episodes 0 to `episodes - 1`, in an order of their own, run by `workers` processes (1: in this one)."""
    if simulator == "highway-env":
        yield from _mapped(partial(highway_recording.record_episode, plan), range(episodes), workers)
        return
    parts = batched_recording.parts_of(plan, episodes)
    yield from chain.from_iterable(_mapped(partial(batched_recording.record_part, plan), parts, workers))


def _mapped(function: Any, items: Any, workers: int) -> Iterator[Any]:
    if workers == 1:
        yield from map(function, items)
        return
    # spawned, not forked: the caller may hold threads (a tracking client, torch) whose locks a fork would copy
    pool = ProcessPoolExecutor(workers, get_context("spawn"), initializer=_one_thread)
    try:
        with _interrupts_ignored():  # inherited by the processes: Ctrl-C is the caller's to handle
            results = pool.map(function, items)
        yield from results
    finally:
        pool.shutdown(wait=True, cancel_futures=True)


def _one_thread() -> None:
    """The processes are as many as there is use for: threads of theirs would only wait for each other."""
    import torch

    torch.set_num_threads(1)


@contextmanager
def _interrupts_ignored() -> Iterator[None]:
    if threading.current_thread() is not threading.main_thread():
        yield  # only the main thread may set signals, and only it is interrupted
        return
    before = signal.signal(signal.SIGINT, signal.SIG_IGN)
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, before)
