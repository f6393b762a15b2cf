"""The traffic that highway-env starts an episode with, for a given seed.

Random numbers are drawn from the same generator in the same order, so that the same seed gives the same scene
(`Vehicle.create_random`, `HighwayEnv._create_vehicles`, `MergeEnv._make_vehicles`, `MergeGenericEnv._make_vehicles`).
"""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from typing import Any

import numpy as np

DEFAULT_EXPONENT = 4.0
EXPONENT_RANGE = (3.5, 4.5)


@dataclass
class Spawn:
    """One episode's agents, the ego first; lists that grow together.

    Attributes:
        x_m: Along the road, m.
        y_m: Across it, m, positive to the right.
        speed_mps: m/s.
        target_speed_mps: What the cars would like, m/s (of the ego: see the simulator).
        exponent: IDM's delta.
    """

    x_m: list[float] = field(default_factory=list)
    y_m: list[float] = field(default_factory=list)
    speed_mps: list[float] = field(default_factory=list)
    target_speed_mps: list[float] = field(default_factory=list)
    exponent: list[float] = field(default_factory=list)

    def add(
        self,
        x_m: float,
        y_m: float,
        speed_mps: float,
        target_speed_mps: float | None = None,
        exponent: float = DEFAULT_EXPONENT,
    ) -> None:
        """One more agent; without a target speed it wants to keep its speed."""
        self.x_m.append(x_m)
        self.y_m.append(y_m)
        self.speed_mps.append(speed_mps)
        self.target_speed_mps.append(speed_mps if target_speed_mps is None else target_speed_mps)
        self.exponent.append(exponent)


def spawn_highway(random: np.random.Generator, config: dict[str, Any]) -> Spawn:
    """highway-v0 and highway-fast-v0: each car some way ahead of the last one, on any lane."""
    lanes, limit = config["lanes_count"], 30.0
    thinning = math.exp(-5 / 40 * lanes)
    chosen, uniform = config["initial_lane_id"], random.uniform
    spawn = Spawn()
    lane = int(random.integers(lanes)) if chosen is None else chosen
    offset = config["ego_spacing"] * (12 + 1.0 * 25.0) * thinning
    x = 3 * offset + offset * uniform(0.9, 1.1)
    spawn.add(x, 4.0 * lane, 25.0)
    spacing = 1 / config["vehicles_density"]
    for _ in range(config["vehicles_count"]):
        lane = int(random.integers(lanes))
        speed = uniform(0.7 * limit, 0.8 * limit)
        offset = spacing * (12 + 1.0 * speed) * thinning
        x = x + offset * uniform(0.9, 1.1)
        spawn.add(x, 4.0 * lane, speed, exponent=uniform(*EXPONENT_RANGE))
    return spawn


def spawn_merge(random: np.random.Generator, config: dict[str, Any]) -> Spawn:
    """merge-v0 and merge-v1: three cars on the highway, one on the ramp."""
    spawn = Spawn()
    spawn.add(30.0, 4.0, 30.0)
    for along, speed in ((90.0, 29.0), (70.0, 31.0), (5.0, 31.5)):
        lane = int(random.integers(2))
        x = along + random.uniform(-5.0, 5.0)
        spawn.add(x, 4.0 * lane, speed + random.uniform(-1.0, 1.0))
    spawn.add(110.0, 6.5 + 4 + 4, 20.0, target_speed_mps=30.0)
    return spawn


def spawn_merge_generic(random: np.random.Generator, config: dict[str, Any]) -> Spawn:
    """merge-generic-v0 and -v1: cars anywhere on the highway that is free, one on the ramp."""
    lanes, tries, clear_m = config["lanes_count"], 10, 15.0
    end = config["before_merge_length"] + config["converge_merge_length"] + config["parallel_merge_length"]
    spawn = Spawn()
    spawn.add(30.0, 4.0 * (lanes - 1), 30.0)
    taken: list[list[float]] = [[] for _ in range(lanes)]
    taken[-1].append(30.0)
    for _ in range(config["vehicles_count"]):
        for _ in range(tries):
            lane, along = int(random.integers(lanes)), random.uniform(0, end)
            if all(abs(along - other) > clear_m for other in taken[lane]):
                spawn.add(along, 4.0 * lane, 30.0 + random.uniform(-2.0, 2.0))
                taken[lane].append(along)
                break
    spawn.add(60.0, 4.0 * lanes + 2 * 3.25, 20.0, target_speed_mps=30.0)
    return spawn
