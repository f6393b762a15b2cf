"""Recorded episodes of highway-env itself, one at a time."""

from __future__ import annotations

from functools import lru_cache
from typing import Any

import numpy as np

from drivecast.envs.highway.road import through_lanes
from drivecast.envs.highway.simulator import HighwayScenario, make_simulator, read_state, road_users
from drivecast.envs.recording.cast import RecordingPlan, draw_cast, draw_setting
from drivecast.envs.recording.highway_egos import OtherCar, enter
from drivecast.envs.recording.recorded_episode import RecordedEpisode, tracks_of


def record_episode(plan: RecordingPlan, index: int) -> RecordedEpisode:
    """Run episode `index` of the plan until the ego crashes, leaves the road or the section, or time is up."""
    draw = np.random.default_rng([plan.seed, index])
    setting = draw_setting(plan, draw)
    simulator = _simulator(setting.scenario)
    if setting.density is not None:
        simulator.config["vehicles_density"] = setting.density
    simulator.reset(seed=setting.seed)
    enter(simulator, draw_cast(plan, setting.behaviour, len(simulator.road.vehicles) - 1, draw), plan.dt_s)
    lanes = through_lanes(simulator.road.network)
    lane_number = {segment: number for number, lane in enumerate(lanes, 1) for segment in lane.segments}
    users = road_users(simulator)
    states, lane_ids, controls = [read_state(users)], [[lane_number[u.lane_index] for u in users]], []
    ended = "time"
    for _ in range(plan.steps):
        *_, terminated, _, _ = simulator.step(None)
        ego = simulator.vehicle
        controls.append((ego.action["acceleration"], -ego.action["steering"]))
        states.append(read_state(users))
        lane_ids.append([lane_number[u.lane_index] for u in users])
        ended = "collision" if ego.crashed else "off_road" if not ego.on_road else "completed" if terminated else ended
        if ended != "time":
            break
    kinds = ["car" if hasattr(user, "clip_actions") else "obstacle" for user in users]
    return RecordedEpisode(
        index=index,
        name=plan.name(index),
        tracks=tracks_of(np.stack(states), np.array(lane_ids), kinds, plan.dt_s),
        controls=np.array(controls),
        lanes=lanes,
        ended=ended,
        behaviour=setting.behaviour,
        dt_s=plan.dt_s,
    )


@lru_cache(maxsize=64)
def _simulator(scenario: HighwayScenario) -> Any:
    kind = f"{OtherCar.__module__}.{OtherCar.__qualname__}"
    return make_simulator(scenario, other_vehicles_type=kind)
