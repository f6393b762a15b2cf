"""Who drives while traffic is recorded in highway-env itself. `batched_egos.py` has the same as tensors.

Imports highway-env, which takes a second: import this module only where traffic is simulated.
"""

from __future__ import annotations

from typing import Any

import torch
from highway_env.vehicle.behavior import IDMVehicle
from highway_env.vehicle.kinematics import Vehicle

from drivecast.envs.highway.ego import give
from drivecast.envs.recording.cast import Cast, Whims
from drivecast.worldmodel.scene.kinematics import within_limits
from drivecast.worldmodel.scene.traffic import Controls


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

    def __init__(self, *args: Any, whims: Whims, dt_s: float, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.whims, self.dt_s, self.number = whims, dt_s, -1

    def act(self, action: Any = None) -> None:
        self.number += 1
        if not self.crashed:
            acceleration, steering = self._wished()
            Vehicle.act(self, self._held(acceleration, steering))

    def _wished(self) -> tuple[float, float]:
        super().act()
        return self.action["acceleration"], self.action["steering"]

    def _held(self, acceleration: float, steering: float) -> dict[str, float]:
        *wished, speed = torch.tensor([acceleration, steering, self.speed], dtype=torch.float64)
        held = within_limits(Controls(*wished), speed, self.dt_s)
        return {"acceleration": float(held.acceleration_mps2), "steering": float(held.steering_rad)}

    def _roam(self) -> None:
        """Take a neighbouring lane, if it feels like it and is not about to already."""
        if self.lane_index != self.target_lane_index or not self.whims.roams[self.number]:
            return
        network = self.road.network
        near = [
            index
            for index in network.side_lanes(self.target_lane_index)
            if network.get_lane(index).is_reachable_from(self.position)
        ]
        if near:
            self.target_lane_index = near[int(self.whims.side[self.number] * len(near))]


class SuddenlyBraking(RecordedEgo):
    def _wished(self) -> tuple[float, float]:
        acceleration, steering = super()._wished()
        braking = self.whims.braking_mps2[self.number]
        return (min(acceleration, -braking) if braking > 0 else acceleration), steering


class LaneChanger(RecordedEgo):
    def change_lane_policy(self) -> None:
        self._roam()


class Noise(RecordedEgo):
    """Acceleration and steering wander on top of lane tracking."""

    def _wished(self) -> tuple[float, float]:
        self.follow_road()
        self._roam()
        acceleration = 0.3 * (self.target_speed - self.speed) + self.whims.acceleration_mps2[self.number]
        steering = self.steering_control(self.target_lane_index) + self.whims.steering_rad[self.number]
        return acceleration, steering


CLASSES: dict[str, type[RecordedEgo]] = {
    "idm": RecordedEgo,
    "idm-any-speed": RecordedEgo,
    "tailgater": RecordedEgo,
    "noise": Noise,
    "sudden-braking": SuddenlyBraking,
    "lane-changer": LaneChanger,
    "bully": SuddenlyBraking,
}


def enter(simulator: Any, cast: Cast, dt_s: float) -> None:
    """Put the recorded ego in the place of highway-env's, and make the other cars those of `cast`."""
    road, old = simulator.road, simulator.vehicle
    others = [vehicle for vehicle in road.vehicles if vehicle is not old]
    road.steps_per_s = 1 / dt_s
    for number, vehicle in enumerate(others):
        vehicle.speed *= cast.speed_scale
        vehicle.target_speed *= cast.speed_scale
        vehicle.target_speed *= cast.target_speed_factor[number]
        give(vehicle, {name: values[number] for name, values in cast.others.items()})
    position, heading = old.position.copy(), old.heading
    if cast.partner is not None:
        partner = others[cast.partner]
        position, partner.position = partner.position.copy(), position
        heading, partner.heading = partner.heading, heading
        partner.on_state_update()
        partner.target_lane_index = partner.lane_index
    ego = CLASSES[cast.behaviour](
        road,
        position,
        heading,
        old.speed * cast.speed_factor,
        target_speed=cast.desired_speed_mps,
        whims=cast.whims,
        dt_s=dt_s,
    )
    give(ego, cast.ego)
    road.vehicles[road.vehicles.index(old)] = ego
    ego.check_collisions = old.check_collisions
    simulator.vehicle = ego
