"""Recorded episodes of a plan, whoever simulates them, in as many processes as one likes."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from functools import partial
from itertools import chain
from typing import Any

from drivecast.envs.batched.traffic import BATCHED
from drivecast.envs.recording import batched_episodes as batched_recording
from drivecast.envs.recording import highway_episodes as highway_recording
from drivecast.envs.recording.cast import DRIVEN, RecordingPlan
from drivecast.envs.recording.recorded_episode import RecordedEpisode
from drivecast.worldmodel.errors import InputError
from drivecast.worldmodel.scene.driver import Driver

Map = Callable[[Callable[[Any], Any], list[Any]], Iterable[Any]]
WORTH_A_PROCESS = 4  # parts of the batched simulator: starting one takes as long as running that many


def simulator_of(environment: str, wanted: str) -> str:
    """Who simulates: highway-env itself where the batched simulator does not have the road."""
    return wanted if environment in BATCHED else "highway-env"


def processes_for(plan: RecordingPlan, episodes: int, simulator: str, most: int) -> int:
    """How many processes are worth starting, at most `most`."""
    if simulator == "highway-env":
        return min(most, episodes)
    parts = len(_parts(plan, episodes))
    return max(1, min(most, parts if plan.behaviour == DRIVEN else parts // WORTH_A_PROCESS))


def record_episodes(
    plan: RecordingPlan,
    episodes: int,
    simulator: str,
    mapped: Map = map,
    make_driver: Callable[[], Driver] | None = None,
) -> Iterator[RecordedEpisode]:
    """Episodes 0 to `episodes - 1`, in an order of their own; `mapped` runs a function on items, here or elsewhere.

    `make_driver` makes who drives egos whose behaviour is `driven`, in each process.

    Raises:
        InputError: There is a driver and egos are not driven, or the other way round, or not in this simulator.
    """
    if (make_driver is not None) != (plan.behaviour == DRIVEN):
        raise InputError(f"behaviour: '{DRIVEN}' is that of egos with a driver, and theirs alone; give --driver NAME")
    if simulator == "highway-env":
        if make_driver is not None:
            raise InputError(f"driver: egos are driven in the batched simulator alone, which has {', '.join(BATCHED)}")
        yield from mapped(partial(highway_recording.record_episode, plan), list(range(episodes)))
        return
    record = partial(batched_recording.record_part, plan, make_driver=make_driver)
    yield from chain.from_iterable(mapped(record, _parts(plan, episodes)))


def _parts(plan: RecordingPlan, episodes: int) -> list[list[int]]:
    driven = plan.behaviour == DRIVEN
    most = batched_recording.DRIVEN_PART_EPISODES if driven else batched_recording.PART_EPISODES
    return batched_recording.parts_of(plan, episodes, most)
