"""Copies of running episodes that go on in the true simulator and branch: a world without model error."""

from __future__ import annotations

import torch
from torch import Tensor

from drivecast.envs.batched.frame import Frame
from drivecast.envs.batched.scene import Scene
from drivecast.envs.batched.simulator import shown
from drivecast.envs.batched.traffic import BatchedHighwayTraffic, state_of
from drivecast.worldmodel.rules.driver_parameters import DriverParameters
from drivecast.worldmodel.scene.kinematics import within_limits
from drivecast.worldmodel.scene.road import Road
from drivecast.worldmodel.scene.traffic import Controls, TrafficState


class SimulatedWorld:
    """Episodes of `traffic` that go on under other controls, `(row, agent)`; the traffic itself stays as it is.

    A `planner.imagination.World`: with everybody's true parameters and intentions.

    Args:
        traffic: On straight highways: parallel lanes of one stretch.
        scene: Who is where.
        drivers: Everybody's parameters.
        road: The road of each row.
    """

    decide_steps = 2  # the ego's law decides as seldom as in a learned world

    def __init__(self, traffic: BatchedHighwayTraffic, scene: Scene, drivers: DriverParameters, road: Road) -> None:
        self._traffic, self._now, self._drivers, self.road = traffic, scene, drivers, road
        self.scene = self.before = self._state()
        self._bound: Tensor | None = None

    @staticmethod
    def of(traffic: BatchedHighwayTraffic, rows: Tensor, road: Road) -> SimulatedWorld:
        """The present of the episodes `rows (row,)`; `road (episode,)`."""
        simulator = traffic.simulator
        drivers = simulator.drivers.map(lambda values: values[rows])
        return SimulatedWorld(traffic, simulator.scene.map(lambda values: values[rows]), drivers, road[rows])

    @property
    def first_acceleration(self) -> Tensor:
        """The ego's, m/s², over the step that led here, `(row,)`."""
        return self._now.acceleration_mps2[:, 0].to(self.scene.speed_mps)

    @property
    def crashed(self) -> Tensor:
        """Bool `(row,)`: whether the simulator counts the ego as crashed; it moves on by itself then.

        highway-env foresees an overlap of the next step, and parts who touch: boxes need never be seen to overlap.
        """
        return self._now.crashed[:, 0]

    def announce(self, lane: Tensor) -> None:
        """The lane of the road `(row,)` that the ego steers for from now on; others may see it."""
        self._bound = lane

    def advance(self, controls: Controls) -> TrafficState:
        """One step on under `controls (row,)`; the scene after it."""
        traffic, scene = self._traffic, self._now
        simulator = traffic.simulator
        if traffic.reactive:
            own = scene.lane[:, 0]
            aim = traffic.lane_announced(self._bound, own)
            scene = shown(scene, aim, torch.full_like(scene.x_m[:, 0], traffic.desired_speed_mps))
        held = within_limits(controls, scene.speed_mps[:, 0], traffic.dt_s)
        frame = Frame.decided(scene, simulator.lanes, self._drivers, scene.idm & ~scene.crashed)
        frame = frame.with_ego(held.acceleration_mps2, -held.steering_rad)
        self._now = frame.carried_out(traffic.dt_s, simulator.ego_only, len(simulator.obstacles))
        self.before, self.scene = self.scene, self._state()
        return self.scene

    def picked(self, rows: Tensor) -> SimulatedWorld:
        """The worlds of `rows`, which may be named several times: from here on they go their own ways."""
        drivers = self._drivers.map(lambda values: values[rows])
        world = SimulatedWorld(self._traffic, self._now.map(lambda values: values[rows]), drivers, self.road[rows])
        world.before = self.before[rows]
        world._bound = None if self._bound is None else self._bound[rows]
        return world

    def _state(self) -> TrafficState:
        return state_of(self._now, len(self._traffic.simulator.obstacles), self.road.width_m.dtype)
