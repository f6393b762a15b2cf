"""Drives on which a planner teaches a policy: which, and each of them in any process."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
from torch import Tensor

from drivecast.envs.evaluation.closed_loop import ClosedLoopConfig, run_episodes
from drivecast.envs.evaluation.suites import SUITES
from drivecast.envs.recorded.config import OTHERS, RecordedTrafficConfig
from drivecast.planner.distillation.teacher import TaughtDriver
from drivecast.planner.planning.driver import GradientPlanner, PlannerConfig
from drivecast.planner.policy.driver import load_driver
from drivecast.scripts.driving.drivers import RECORDED, TrafficSource, highway_of
from drivecast.worldmodel.forecaster.loading import load_world_model

PART = 24  # episodes side by side
FIRST_SEED = 20_000_000  # of training; suites begin at 3,000,000,000
VALIDATED = 6  # every so manieth part is never fitted


@dataclass(frozen=True)
class Lessons:
    """One part of a round: some episodes side by side.

    Attributes:
        number: Of the part, over all rounds.
        source: The traffic.
        seeds: One episode each.
        policy: File of the policy that drives.
        world_model: File of the world model in which the planner searches.
        searched_share: Of its episodes, in which the planner's choices are driven.
        planner: The planner.
    """

    number: int
    source: TrafficSource
    seeds: tuple[int, ...]
    policy: Path
    world_model: Path
    searched_share: float
    planner: PlannerConfig = field(default_factory=PlannerConfig)

    @property
    def validates(self) -> bool:
        """Whether what is taught here is for validation alone."""
        return self.number % VALIDATED == VALIDATED - 1


@dataclass(frozen=True)
class Taught:
    """What came of a part: `views (moment, feature)`, `energies (moment, choice)`, and how the drives went."""

    views: Tensor
    energies: Tensor
    drive: dict[str, float]


def parts_of_round(
    suites: Sequence[str],
    data: Sequence[Path],
    episodes: int,
    number: int,
    seed: int,
    desired_mps: tuple[float, float],
    common: dict[str, Any],
) -> list[Lessons]:
    """The parts of round `number`, suites and ways in which recorded others behave in turn.

    Args:
        suites: Whose traffic is driven in.
        data: Recordings, of which the train split is; in the place of suites.
        episodes: In all, rounded up to whole parts.
        number: Of the round.
        seed: Of everything.
        desired_mps: Least and greatest speed that is asked for in simulated traffic.
        common: The rest of `Lessons`.
    """
    count = -(-episodes // PART)
    parts = []
    for part in range(count):
        place = number * count + part
        random = np.random.default_rng([seed, place])
        if data:
            others = OTHERS[place % len(OTHERS)]
            source = TrafficSource(RECORDED, tuple(data), "train", RecordedTrafficConfig(others=others))
            seeds = tuple(random.integers(0, 1_000_000, PART).tolist())
        else:
            suite = SUITES[suites[place % len(suites)]]
            # the suite's own wish in half of the parts, which is the highest and the one that overtakes
            wish = suite.desired_speed_mps if random.random() < 0.5 else float(random.uniform(*desired_mps))
            source = TrafficSource(suite.environment, highway=replace(highway_of(suite), desired_speed_mps=wish))
            first = FIRST_SEED + seed * 1_000_000 + place * PART
            seeds = tuple(range(first, first + PART))
        parts.append(Lessons(place, source, seeds, **common))
    return parts


def teach(lessons: Lessons) -> Taught:
    """Drive one part."""
    policy = load_driver(lessons.policy).policy
    planner = GradientPlanner(load_world_model(lessons.world_model), lessons.planner)
    driver = TaughtDriver(policy, planner, lessons.searched_share, lessons.number)
    table = run_episodes(
        lessons.source.open(), driver, lessons.seeds, ClosedLoopConfig(batch=len(lessons.seeds), keep="none")
    ).table
    views, energies = driver.lessons
    time_s = float(table["duration_s"].sum())
    drive = {
        "episodes": float(len(table)),
        "collisions": float((table["outcome"] == "collision").sum()),
        "distance_m": float(table["distance_m"].sum()),
        "duration_s": time_s,
    }
    return Taught(views.float(), energies.float(), drive)
