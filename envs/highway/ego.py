"""highway-env's vehicles changed after a reset: an ego that others see, and others that differ.

Imports highway-env only when it is used, which takes a second.
"""

from __future__ import annotations

from collections.abc import Mapping
from functools import cache
from typing import Any

from drivecast.envs.behaviour.mixed import HIGHWAY_ENVS_NAMES, draw_drivers


@cache
def _shown_class() -> type:
    from highway_env.vehicle.controller import ControlledVehicle
    from highway_env.vehicle.kinematics import Vehicle

    class ShownEgo(ControlledVehicle):
        """Driven by its controls alone; its target speed and lane are there for the others to see."""

        def act(self, action: Any = None) -> None:
            Vehicle.act(self, action)

    return ShownEgo


def show_ego(simulator: Any, target_speed_mps: float) -> None:
    """Put an ego in the place of highway-env's that the others take for one of their own."""
    road, old = simulator.road, simulator.vehicle
    ego = _shown_class()(road, old.position, old.heading, old.speed, target_speed=target_speed_mps)
    ego.check_collisions = old.check_collisions
    road.vehicles[road.vehicles.index(old)] = ego
    simulator.vehicle = ego


def mix_vehicles(simulator: Any, seed: int) -> None:
    """Give the others the parameters that `draw_drivers` has for this seed."""
    others = [vehicle for vehicle in simulator.road.vehicles if vehicle is not simulator.vehicle]
    parameters, speed_factor = draw_drivers(seed, len(others))
    for number, vehicle in enumerate(others):
        vehicle.target_speed *= float(speed_factor[number])
        give(vehicle, {name: values[number] for name, values in parameters.items()})


def give(vehicle: Any, parameters: Mapping[str, Any]) -> None:
    """Set parameters of highway-env's `IDMVehicle`, by their names in `DriverParameters`."""
    for name, value in parameters.items():
        sign = -1.0 if name == "comfort_braking_mps2" else 1.0
        setattr(vehicle, HIGHWAY_ENVS_NAMES[name], sign * float(value))
