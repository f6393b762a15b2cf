"""The seat of recorded egos that a driver drives: what it sees and is asked for there, and what becomes of its wish."""

from __future__ import annotations

import torch

from drivecast.envs.batched.road_lanes import RoadLanes
from drivecast.envs.batched.scene import Scene
from drivecast.envs.batched.simulator import BatchedHighway
from drivecast.envs.batched.traffic import state_of
from drivecast.envs.highway.road import road_of, through_lanes
from drivecast.worldmodel.scene.driver import Driver, checked, history_steps_of
from drivecast.worldmodel.scene.road import NO_LANE, Road
from drivecast.worldmodel.scene.traffic import Controls, Goal, TrafficState, with_ego


class DriversSeat:
    """Drives the egos of some episodes on one road.

    Args:
        simulator: The road.
        driver: Who drives.
        scene: How the episodes begin; an ego's target speed is what is asked of it.
    """

    def __init__(self, simulator: BatchedHighway, driver: Driver, scene: Scene) -> None:
        through = through_lanes(simulator.network)
        self.driver, self._obstacles = driver, len(simulator.obstacles)
        self._lanes = RoadLanes.of(simulator.lanes, through)
        episodes = len(scene.x_m)
        self._road = Road.batch([road_of(through)] * episodes)
        desired = scene.target_speed_mps[:, 0].to(torch.get_default_dtype())
        self._goal = Goal(desired, torch.full((episodes,), NO_LANE, dtype=torch.long))
        self._most = history_steps_of(driver)
        self._seen: list[TrafficState] = []
        self._steps = 0

    def drive(self, scene: Scene) -> tuple[Scene, Controls]:
        """The scene with the lanes that the egos steer for, as others see it; and controls in the simulator's frame."""
        now = state_of(scene, self._obstacles, torch.get_default_dtype())
        if not self._seen:
            self.driver.reset(now, self._road, self._goal)
        self._seen = [*self._seen, now][-self._most :]
        wish = self.driver.act(TrafficState.stack(self._seen, 1), self._road, self._goal)
        wish = checked(wish, self.driver.name, self._steps)
        self._steps += 1
        own = scene.lane[:, 0]
        bound = getattr(self.driver, "chosen_lane", None)
        target = self._lanes.announced(bound, own)
        dtype = scene.x_m.dtype
        controls = Controls(wish.acceleration_mps2.to(dtype), -wish.steering_rad.to(dtype))
        return scene.but(target_lane=with_ego(scene.target_lane, target)), controls
