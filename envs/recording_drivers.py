"""Who drives while traffic is recorded. The egos are careful, pushy and erratic, so that a world model sees what others
do around all of them. Imports highway-env, which takes a second: import this module only where traffic is simulated.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from highway_env.vehicle.behavior import IDMVehicle
from highway_env.vehicle.kinematics import Vehicle

from envs.highway_simulator import MAX_ACCELERATION_MPS2, MAX_BRAKING_MPS2
from worldmodel.kinematics import MAX_STEERING_RAD

# behaviour: share of the episodes
BEHAVIOURS = {
    "idm": 0.2,  # highway-env's IDM and MOBIL, its desired speed 30 m/s
    "idm-any-speed": 0.2,  # the same with a desired speed drawn for the episode
    "tailgater": 0.15,  # IDM with a time gap of 0.2 to 0.7 s, 28 to 35 m/s, changes lane as soon as it gains by it
    "noise": 0.2,  # acceleration and place in the lane wander, looks at nobody
    "sudden-braking": 0.1,  # IDM that brakes hard now and then, for no reason
    "lane-changer": 0.15,  # IDM that changes lane at random, looks at nobody there
}


class OtherCar(IDMVehicle):
    """highway-env's IDM car, but for braking into reverse: highway-env's own rolls back when its leader is too near."""

    def act(self, action: Any = None) -> None:
        super().act(action)
        if not self.crashed:
            standstill_mps2 = -max(self.speed, 0.0) * self.road.steps_per_s
            self.action["acceleration"] = max(self.action["acceleration"], standstill_mps2)


class RecordedEgo(IDMVehicle):
    """IDM and MOBIL, held to the controls that our bicycle allows."""

    target_lane_index: Any

    def __init__(self, *args: Any, draw: np.random.Generator, dt_s: float, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.draw, self.dt_s = draw, dt_s

    def act(self, action: Any = None) -> None:
        super().act(action)
        if not self.crashed:
            Vehicle.act(self, self._held(self.action["acceleration"], self.action["steering"]))

    def _held(self, acceleration: float, steering: float) -> dict[str, float]:
        braking = min(MAX_BRAKING_MPS2, max(self.speed, 0.0) / self.dt_s)
        return {
            "acceleration": float(np.clip(acceleration, -braking, MAX_ACCELERATION_MPS2)),
            "steering": float(np.clip(steering, -MAX_STEERING_RAD, MAX_STEERING_RAD)),
        }

    def _happens(self, per_s: float) -> bool:
        return bool(self.draw.random() < per_s * self.dt_s)

    def _take_any_neighbouring_lane(self) -> None:
        network = self.road.network
        near = [
            index
            for index in network.side_lanes(self.target_lane_index)
            if network.get_lane(index).is_reachable_from(self.position)
        ]
        if near:
            self.target_lane_index = near[self.draw.integers(len(near))]


class Tailgater(RecordedEgo):
    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.TIME_WANTED = self.draw.uniform(0.2, 0.7)
        self.DISTANCE_WANTED = self.LENGTH + self.draw.uniform(1.0, 3.0)
        self.LANE_CHANGE_MIN_ACC_GAIN = 0.05
        self.LANE_CHANGE_MAX_BRAKING_IMPOSED = self.draw.uniform(3.0, 9.0)


class SuddenlyBraking(RecordedEgo):
    braking_for_s = 0.0
    braking_mps2 = 0.0

    def act(self, action: Any = None) -> None:
        super().act(action)
        if self.crashed:
            return
        if self.braking_for_s <= 0 and self._happens(per_s=0.2):
            self.braking_for_s = self.draw.uniform(0.5, 2.0)
            self.braking_mps2 = self.draw.uniform(3.0, MAX_BRAKING_MPS2)
        if self.braking_for_s > 0:
            self.braking_for_s -= self.dt_s
            acceleration = min(self.action["acceleration"], -self.braking_mps2)
            Vehicle.act(self, self._held(acceleration, self.action["steering"]))


class LaneChanger(RecordedEgo):
    def change_lane_policy(self) -> None:
        if self.lane_index == self.target_lane_index and self._happens(per_s=0.35):
            self._take_any_neighbouring_lane()


class Noise(RecordedEgo):
    """Ornstein-Uhlenbeck acceleration (1.2 m/s², 1.5 s) and steering (0.006 rad, 0.5 s) on top of lane tracking."""

    noise_mps2 = 0.0
    noise_rad = 0.0

    def act(self, action: Any = None) -> None:
        if self.crashed:
            return
        self.follow_road()
        if self.lane_index == self.target_lane_index and self._happens(per_s=0.15):
            self._take_any_neighbouring_lane()
        self.noise_mps2 = self._wander(self.noise_mps2, spread=1.2, time_s=1.5)
        self.noise_rad = self._wander(self.noise_rad, spread=0.006, time_s=0.5)
        towards = 0.3 * (self.target_speed - self.speed)
        steering = self.steering_control(self.target_lane_index) + self.noise_rad
        Vehicle.act(self, self._held(towards + self.noise_mps2, steering))

    def _wander(self, value: float, spread: float, time_s: float) -> float:
        keep = float(np.exp(-self.dt_s / time_s))
        return keep * value + spread * float(np.sqrt(1 - keep**2)) * float(self.draw.standard_normal())


CLASSES: dict[str, type[RecordedEgo]] = {
    "idm": RecordedEgo,
    "idm-any-speed": RecordedEgo,
    "tailgater": Tailgater,
    "noise": Noise,
    "sudden-braking": SuddenlyBraking,
    "lane-changer": LaneChanger,
}


def desired_speed(behaviour: str, speeds_mps: tuple[float, float], draw: np.random.Generator) -> float:
    """Speed in m/s that an ego of this behaviour wants, where the others' range is `speeds_mps`."""
    if behaviour == "idm":
        return 30.0
    if behaviour == "tailgater":
        return float(draw.uniform(28.0, 35.0))
    return float(draw.uniform(*speeds_mps))


def vary_driver(vehicle: Any, draw: np.random.Generator) -> None:
    """Make one of highway-env's IDM cars a driver of its own; a wider spread than highway-env's exponent (3.5 to 4.5).

    Desired speed times 0.8 to 1.2, time gap 1.0 to 2.0 s, jam distance 8 to 12 m, acceleration 2 to 4 m/s²,
    politeness 0 to 0.5.
    """
    vehicle.target_speed *= draw.uniform(0.8, 1.2)
    vehicle.TIME_WANTED = draw.uniform(1.0, 2.0)
    vehicle.DISTANCE_WANTED = draw.uniform(8.0, 12.0)
    vehicle.COMFORT_ACC_MAX = draw.uniform(2.0, 4.0)
    vehicle.POLITENESS = draw.uniform(0.0, 0.5)
