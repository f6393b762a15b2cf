"""`drivecast record`: traffic of highway-env as a recording store."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass, field, replace
from functools import partial
from pathlib import Path
from typing import Any

from drivecast.envs.drivers import IDMConfig
from drivecast.envs.highway.simulator import SIMULATORS, HighwayScenario
from drivecast.envs.recording.cast import BEHAVIOURS, DRIVEN
from drivecast.planner.planning.driver import PlannerConfig
from drivecast.scripts.driving.driver_kinds import TIED_TO_TRAFFIC, explains_drivers, kind_of
from drivecast.scripts.driving.drivers import check_driver, check_policy_file, make_driver
from drivecast.scripts.driving.registry import located
from drivecast.scripts.tracking.run import Run
from drivecast.worldmodel.errors import InputError


@explains_drivers
@dataclass(frozen=True)
class RecordConfig:
    """Record traffic of highway-env around egos that drive carefully, pushily and erratically, as a recording store.

    Each episode is a recording of 10 frames a second that ends early when the ego crashes, leaves the road or reaches
    the end of the section. Number of cars, lanes, density and speeds are drawn anew for each episode, from the seed.

    Args:
        output: Folder of the store; one that is there is replaced once the new one is complete.
        environment: highway-env's name: highway-v0, highway-fast-v0, merge-v1, exit-v0, roundabout-v1, ...
        episodes: Number of episodes.
        seed: The same seed gives the same store, whatever the number of workers.
        duration_s: Longest an episode is recorded, s.
        vehicles: Least and greatest number of cars beside the ego (highway-*, merge-generic-*).
        lanes: Least and greatest number of lanes; the middle is drawn more often (highway-*, merge-generic-*).
        density: Least and greatest density of the traffic at the start (highway-*), in highway-env's measure: 1 is
            about one car per 21 m of a road of 4 lanes.
        speed_scale: Least and greatest factor on the initial and desired speeds of the other cars, one per episode.
        desired_speed_mps: Least and greatest speed that an ego wants, m/s (two behaviours have their own).
        behaviour: Of every ego: idm, idm-any-speed, tailgater, noise, sudden-braking, lane-changer, or bully (a
            tailgater that brakes hard now and then). Empty: drawn for each episode, but no bully.
        driver: Who drives the egos, in the place of those behaviours: {drivers}. They start where others would, and are
            asked for a speed drawn for the episode. Empty: nobody, they behave.
        planner: The driver planner.
        simulator: Who simulates: batched (tensors, many episodes at once) or highway-env; the same episodes. exit-* and
            roundabout-* are always highway-env's.
        workers: Greatest number of processes; 0: one per core. No more are started than there is use for.
    """

    output: Path
    environment: str = "highway-v0"
    episodes: int = 300
    seed: int = 0
    duration_s: float = 12.0
    vehicles: tuple[int, int] = (10, 30)
    lanes: tuple[int, int] = (3, 5)
    density: tuple[float, float] = (0.8, 1.5)
    speed_scale: tuple[float, float] = (0.8, 1.2)
    desired_speed_mps: tuple[float, float] = (15.0, 32.0)
    behaviour: str = ""
    driver: str = ""
    planner: PlannerConfig = field(default_factory=PlannerConfig)
    simulator: str = "batched"
    workers: int = 0

    def __post_init__(self) -> None:
        for name, least in (("episodes", 1), ("seed", 0), ("workers", 0)):
            if getattr(self, name) < least:
                raise InputError(f"{name}: expected {least} or more, got {getattr(self, name)}")
        if self.simulator not in SIMULATORS:
            raise InputError(f"simulator: expected {' or '.join(SIMULATORS)}, got '{self.simulator}'")
        if self.behaviour and self.behaviour not in BEHAVIOURS:
            raise InputError(f"behaviour: expected one of {', '.join(BEHAVIOURS)}, got '{self.behaviour}'")
        for name in ("vehicles", "lanes", "density", "speed_scale", "desired_speed_mps"):
            low, high = getattr(self, name)
            smallest = {"vehicles": 0, "lanes": 1}.get(name, 1e-3)
            if not smallest <= low <= high:
                raise InputError(f"{name}: expected [least, greatest], both {smallest:g} or more; got [{low}, {high}]")
        HighwayScenario(self.environment, duration_s=self.duration_s)
        if self.driver:
            check_driver(self.driver, self.environment)
            if kind_of(self.driver) in TIED_TO_TRAFFIC:
                raise InputError(f"driver: '{self.driver}' looks into an evaluation's traffic; record another one")
            if self.behaviour not in ("", DRIVEN):
                raise InputError(
                    f"behaviour: '{self.behaviour}' is that of an ego without a driver; leave one of them out"
                )


def run(config: RecordConfig, run: Run) -> None:
    """Record the episodes and write the store."""
    import pandas as pd

    from drivecast.envs.recording.cast import RecordingPlan
    from drivecast.envs.recording.recorded_episode import RecordedEpisode
    from drivecast.envs.recording.recorder import processes_for, record_episodes, simulator_of
    from drivecast.scripts.driving.workers import Workers, cores
    from drivecast.worldmodel.recordings.split import split_recordings
    from drivecast.worldmodel.recordings.store_writer import write_store

    given = asdict(config)
    wanted = {name: given[name] for name in RecordingPlan.__dataclass_fields__ if name in given}
    plan, make = RecordingPlan(**wanted), None
    if config.driver:
        place = located(config.driver)
        check_policy_file(place)
        make = partial(make_driver, place, IDMConfig(dt_s=plan.dt_s), "cpu", config.planner)
        make()  # what cannot be loaded is told before anything is driven
        plan, wanted = replace(plan, behaviour=DRIVEN), {**wanted, "behaviour": DRIVEN, "driver": config.driver}
    simulator = simulator_of(config.environment, config.simulator)
    workers = processes_for(plan, config.episodes, simulator, config.workers or cores())
    began_s = time.monotonic()
    episodes: list[RecordedEpisode] = []
    outcomes: Counter[tuple[str, str]] = Counter()
    with Workers(workers) as pool, run.progress(total=config.episodes, what="episodes") as progress:

        def mapped(function: Callable[[Any], Any], items: list[Any]) -> Iterator[Any]:
            yield from (result for _, result in pool.run(function, items))

        for episode in record_episodes(plan, config.episodes, simulator, mapped, make):
            episodes.append(episode)
            outcomes[episode.behaviour, episode.ended] += 1
            progress.advance(1, collisions=sum(n for (_, ended), n in outcomes.items() if ended == "collision"))
    episodes.sort(key=lambda episode: episode.index)
    meta = write_store(
        config.output,
        (episode.recording() for episode in episodes),
        splits=split_recordings([episode.name for episode in episodes], seed=config.seed),
        source={"kind": "highway-env", "highway_env": _highway_env_version(), "episodes": config.episodes, **wanted},
        drives=pd.concat([episode.drive() for episode in episodes], ignore_index=True),
    )
    took_s = time.monotonic() - began_s
    endings = sorted({ended for _, ended in outcomes})
    run.table(
        "episodes by the ego's behaviour and how they ended",
        ["behaviour", *endings],
        [[kind, *(outcomes[kind, ended] for ended in endings)] for kind in sorted({kind for kind, _ in outcomes})],
    )
    counts = {**meta["counts"], "episodes": config.episodes, "seconds": took_s}
    run.log_metrics({f"record/{name}": value for name, value in counts.items()})
    run.say(
        f"{config.output}: {config.episodes} episodes, {counts['rows']:,} rows, recorded in {took_s:.0f} s "
        f"by {workers} process{'es' if workers > 1 else ''} of the {simulator} simulator"
    )


def _highway_env_version() -> str:
    from importlib.metadata import version

    return version("highway-env")
