"""The traffic that highway-env starts episodes with, for given seeds.

Random numbers are drawn from the same generators in the same order, so that the same seed gives the same scene
(`Vehicle.create_random`, `HighwayEnv._create_vehicles`, `MergeEnv._make_vehicles`, `MergeGenericEnv._make_vehicles`).
All episodes draw at once.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from drivecast.envs.batched.random_streams import RandomStreams

DEFAULT_EXPONENT = 4.0
EXPONENT_RANGE = (3.5, 4.5)
Numbers = float | NDArray[Any]  # the same in all episodes, or one for each


@dataclass
class Spawn:
    """The agents of some episodes, the ego first; lists that grow together, an entry per agent.

    Attributes:
        episodes: Their number.
        x_m: Along the road, m; not a number where an episode has no such agent.
        y_m: Across it, m, positive to the right.
        speed_mps: m/s.
        target_speed_mps: What the cars would like, m/s (of the ego: see the simulator).
        exponent: IDM's delta.
    """

    episodes: int
    x_m: list[Numbers] = field(default_factory=list)
    y_m: list[Numbers] = field(default_factory=list)
    speed_mps: list[Numbers] = field(default_factory=list)
    target_speed_mps: list[Numbers] = field(default_factory=list)
    exponent: list[Numbers] = field(default_factory=list)

    def add(
        self,
        x_m: Numbers,
        y_m: Numbers,
        speed_mps: Numbers,
        target_speed_mps: Numbers | None = None,
        exponent: Numbers = DEFAULT_EXPONENT,
    ) -> None:
        """One more agent; without a target speed it wants to keep its speed."""
        self.x_m.append(x_m)
        self.y_m.append(y_m)
        self.speed_mps.append(speed_mps)
        self.target_speed_mps.append(speed_mps if target_speed_mps is None else target_speed_mps)
        self.exponent.append(exponent)

    @property
    def agents(self) -> NDArray[np.int64]:
        """How many there are, `(episode,)`."""
        return np.asarray((~np.isnan(self.table("x_m"))).sum(1))

    def table(self, name: str) -> NDArray[np.float64]:
        """The numbers of the list `name`, `(episode, agent)`."""
        return np.stack([np.broadcast_to(number, self.episodes) for number in getattr(self, name)], 1)

    def close_ranks(self) -> None:
        """Those whom an episode lacks come last there, the others keep their order."""
        order = np.isnan(self.table("x_m")).argsort(1, kind="stable")
        for name in ("x_m", "y_m", "speed_mps", "target_speed_mps", "exponent"):
            setattr(self, name, list(np.take_along_axis(self.table(name), order, 1).T))


def spawn_highway(random: RandomStreams, config: dict[str, Any]) -> Spawn:
    """highway-v0 and highway-fast-v0: each car some way ahead of the last one, on any lane."""
    lanes, limit = config["lanes_count"], 30.0
    thinning = math.exp(-5 / 40 * lanes)
    chosen = config["initial_lane_id"]
    spawn = Spawn(random.count)
    lane = random.integers(lanes) if chosen is None else chosen
    offset = config["ego_spacing"] * (12 + 1.0 * 25.0) * thinning
    x = 3 * offset + offset * random.uniform(0.9, 1.1)
    spawn.add(x, 4.0 * lane, 25.0)
    spacing = 1 / config["vehicles_density"]
    for _ in range(config["vehicles_count"]):
        lane = random.integers(lanes)
        speed = random.uniform(0.7 * limit, 0.8 * limit)
        gap = spacing * (12 + 1.0 * speed) * thinning
        x = x + gap * random.uniform(0.9, 1.1)
        spawn.add(x, 4.0 * lane, speed, exponent=random.uniform(*EXPONENT_RANGE))
    return spawn


def spawn_merge(random: RandomStreams, config: dict[str, Any]) -> Spawn:
    """merge-v0 and merge-v1: three cars on the highway, one on the ramp."""
    spawn = Spawn(random.count)
    spawn.add(30.0, 4.0, 30.0)
    for along, speed in ((90.0, 29.0), (70.0, 31.0), (5.0, 31.5)):
        lane = random.integers(2)
        x = along + random.uniform(-5.0, 5.0)
        spawn.add(x, 4.0 * lane, speed + random.uniform(-1.0, 1.0))
    spawn.add(110.0, 6.5 + 4 + 4, 20.0, target_speed_mps=30.0)
    return spawn


def spawn_merge_generic(random: RandomStreams, config: dict[str, Any]) -> Spawn:
    """merge-generic-v0 and -v1: cars anywhere on the highway that is free, one on the ramp."""
    lanes, tries, clear_m = config["lanes_count"], 10, 15.0
    end = config["before_merge_length"] + config["converge_merge_length"] + config["parallel_merge_length"]
    spawn = Spawn(random.count)
    spawn.add(30.0, 4.0 * (lanes - 1), 30.0)
    taken = [(np.full(random.count, lanes - 1), np.full(random.count, 30.0))]
    for _ in range(config["vehicles_count"]):
        places = np.full(random.count, np.nan)
        lane, speed = np.zeros(random.count, dtype=np.int64), np.zeros(random.count)
        for _ in range(tries):
            looking = np.isnan(places)
            tried_lane, along = random.integers(lanes, looking), random.uniform(0, end, looking)
            for other_lane, other in taken:  # whose place is not a number is not in the way
                looking &= ~((other_lane == tried_lane) & (abs(along - other) <= clear_m))
            places[looking], lane[looking] = along[looking], tried_lane[looking]
            speed[looking] = 30.0 + random.uniform(-2.0, 2.0, looking)[looking]
        taken.append((lane, places))
        spawn.add(places, 4.0 * lane, speed)
    spawn.add(60.0, 4.0 * lanes + 2 * 3.25, 20.0, target_speed_mps=30.0)
    spawn.close_ranks()
    return spawn
