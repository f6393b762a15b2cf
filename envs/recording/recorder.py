"""Recorded episodes of a plan, whoever simulates them, in as many processes as one likes."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from functools import partial
from itertools import chain
from typing import Any

from drivecast.envs.batched.traffic import BATCHED
from drivecast.envs.recording import batched_episodes as batched_recording
from drivecast.envs.recording import highway_episodes as highway_recording
from drivecast.envs.recording.cast import RecordingPlan
from drivecast.envs.recording.recorded_episode import RecordedEpisode

Map = Callable[[Callable[[Any], Any], list[Any]], Iterable[Any]]
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


def record_episodes(plan: RecordingPlan, episodes: int, simulator: str, mapped: Map = map) -> Iterator[RecordedEpisode]:
    """Episodes 0 to `episodes - 1`, in an order of their own; `mapped` runs a function on items, here or elsewhere."""
    if simulator == "highway-env":
        yield from mapped(partial(highway_recording.record_episode, plan), list(range(episodes)))
        return
    parts = batched_recording.parts_of(plan, episodes)
    yield from chain.from_iterable(mapped(partial(batched_recording.record_part, plan), parts))
