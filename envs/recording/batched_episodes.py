"""Recorded episodes of the batched simulator: those of `envs/recording/highway_episodes.py`, many at once."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from gymnasium.utils import seeding

from drivecast.envs.batched.first_scene import first_scene
from drivecast.envs.batched.random_streams import RandomStreams
from drivecast.envs.batched.scene import Scene
from drivecast.envs.batched.simulator import SPAWNS, BatchedHighway
from drivecast.envs.highway.road import through_lanes
from drivecast.envs.recording.batched_egos import CastTraffic
from drivecast.envs.recording.cast import RecordingPlan, Setting, draw_cast, draw_setting
from drivecast.envs.recording.drivers_seat import DriversSeat
from drivecast.envs.recording.recorded_episode import RecordedEpisode, tracks_of
from drivecast.worldmodel.rules.elementary import numpy_functions
from drivecast.worldmodel.scene.driver import Driver

PART_EPISODES = 256  # at once: from here on more of them are no faster
DRIVEN_PART_EPISODES = 32  # ... of those in which a driver drives, who may take much longer than the traffic
CAR_M, OBSTACLE_M = (5.0, 2.0), (2.0, 2.0)  # length, width


def parts_of(plan: RecordingPlan, episodes: int, most: int = PART_EPISODES) -> list[list[int]]:
    """Episodes 0 to `episodes - 1` in parts that can run at once: on the same road, and not too many.

    The largest come first. The parts do not depend on who runs them.
    """
    by_lanes = defaultdict(list)
    for index in range(episodes):
        setting = draw_setting(plan, np.random.default_rng([plan.seed, index]))
        by_lanes[setting.scenario.lanes].append(index)
    parts: list[list[int]] = []
    for indices in by_lanes.values():
        count = -(-len(indices) // most)
        parts += [part.tolist() for part in np.array_split(indices, count)]
    return sorted(parts, key=lambda part: (-len(part), part[0]))


@dataclass(frozen=True)
class Part:
    """Episodes that run at once.

    Attributes:
        simulator: Their road.
        traffic: Who drives in them.
        scene: How they begin.
        settings: Of each.
        cars: Number of cars of each, the ego included.
    """

    simulator: BatchedHighway
    traffic: CastTraffic
    scene: Scene
    settings: list[Setting]
    cars: list[int]


def begin_part(plan: RecordingPlan, indices: Sequence[int]) -> Part:
    """The episodes `indices` of the plan, all on a road of the same number of lanes, before they run."""
    draws = [np.random.default_rng([plan.seed, index]) for index in indices]
    settings = [draw_setting(plan, draw) for draw in draws]
    simulator = BatchedHighway(plan.environment, settings[0].scenario.highway_config())
    spawns = []
    for setting in settings:
        given = {"vehicles_count": setting.scenario.vehicles, "vehicles_density": setting.density}
        config = simulator.config | {name: value for name, value in given.items() if value is not None}
        spawns.append(SPAWNS[plan.environment](RandomStreams([seeding.np_random(setting.seed)[0]]), config))
    casts = [
        draw_cast(plan, setting.behaviour, int(spawn.agents[0]) - 1, draw)
        for setting, spawn, draw in zip(settings, spawns, draws, strict=True)
    ]
    with numpy_functions():
        scene = first_scene(spawns, simulator.lanes, simulator.obstacles, simulator.dtype)
        obstacles = len(simulator.obstacles)
        traffic, scene = CastTraffic.enter(scene, casts, simulator.lanes, plan.dt_s, simulator.ego_only, obstacles)
    return Part(simulator, traffic, scene, settings, [int(spawn.agents[0]) for spawn in spawns])


@torch.no_grad()
def record_part(
    plan: RecordingPlan, indices: Sequence[int], make_driver: Callable[[], Driver] | None = None
) -> list[RecordedEpisode]:
    """Run the episodes `indices` of the plan, all on a road of the same number of lanes.

    Sines and their relatives are NumPy's, so that the episodes are highway-env's but for a rare last bit, and the same
    in whichever company they run. Of episodes whose ego is `driven`, `make_driver` makes the driver.
    """
    part = begin_part(plan, indices)
    simulator, settings = part.simulator, part.settings
    obstacles = len(simulator.obstacles)
    seat = DriversSeat(simulator, make_driver(), part.scene) if make_driver else None
    scenes, endings, steps = run_part(plan, part, seat)
    through = through_lanes(simulator.network)
    lane_number = {name: number for number, lane in enumerate(through, 1) for name in lane.segments}
    numbers = np.array([lane_number[name] for name in simulator.lanes.names])
    states, lane_ids = np.stack([_state(scene, obstacles) for scene in scenes]), _stacked(scenes, "lane").numpy()
    controls = torch.stack([_stacked(scenes[1:], "acceleration_mps2"), -_stacked(scenes[1:], "steering_rad")], -1)
    episodes = []
    for row, index in enumerate(indices):
        cars, agents, time = part.cars[row], states.shape[2], steps[row] + 1
        there = [*range(cars), *range(agents - obstacles, agents)]
        kinds = ["car"] * cars + ["obstacle"] * obstacles
        lanes = numbers[lane_ids[:time, row][:, there]]
        episodes.append(
            RecordedEpisode(
                index=index,
                name=plan.name(index),
                tracks=tracks_of(states[:time, row][:, there], lanes, kinds, plan.dt_s),
                controls=controls[: time - 1, row, 0].numpy().copy(),
                lanes=through,
                ended=endings[row],
                behaviour=settings[row].behaviour,
                dt_s=plan.dt_s,
            )
        )
    return episodes


def run_part(
    plan: RecordingPlan, part: Part, seat: DriversSeat | None = None
) -> tuple[list[Scene], list[str], list[int]]:
    """Scenes, of each episode how it ended and after how many steps; `seat`: who drives the egos, if not they."""
    simulator, traffic, scene = part.simulator, part.traffic, part.scene
    scenes = [scene]
    endings, steps = ["time"] * len(scene.x_m), [plan.steps] * len(scene.x_m)
    for number in range(plan.steps):
        given = None
        if seat is not None:
            scene, given = seat.drive(scene)
        with numpy_functions():
            simulator.scene = scene = traffic.step(scene, number, given)
        scenes.append(scene)
        ends = {
            "collision": scene.crashed[:, 0],
            "off_road": ~simulator.on_road,
            "completed": simulator.passed_the_end,
        }
        for ending, here in ends.items():
            for row in here.nonzero()[:, 0].tolist():
                if endings[row] == "time":
                    endings[row], steps[row] = ending, number + 1
        if "time" not in endings:
            break
    return scenes, endings, steps


def _stacked(scenes: Sequence[Scene], name: str) -> torch.Tensor:
    return torch.stack([getattr(scene, name) for scene in scenes])


def _state(scene: Scene, obstacles: int) -> np.ndarray:
    """`(episode, agent, 6)` in our frame, as `drivecast.envs.highway.simulator.read_state` has it."""
    heading = scene.heading_to_the_left_rad
    length, width = (torch.full_like(heading, size) for size in CAR_M)
    if obstacles:
        length[:, -obstacles:], width[:, -obstacles:] = OBSTACLE_M
    return torch.stack([scene.x_m, -scene.y_m, heading, scene.speed_mps, length, width], -1).numpy()
