"""Traffic of different drivers in the batched simulator."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import fields

import torch

from drivecast.envs.batched.simulator import BatchedHighway
from drivecast.envs.behaviour.mixed import draw_drivers
from drivecast.worldmodel.rules.driver_parameters import HIGHWAY_ENV, DriverParameters


def mix_drivers(simulator: BatchedHighway, seeds: Sequence[int]) -> None:
    """Give the others of each episode their parameters, after a reset; the ego's are highway-env's."""
    scene = simulator.scene
    table = {
        field.name: torch.full_like(scene.x_m, float(getattr(HIGHWAY_ENV, field.name)))
        for field in fields(DriverParameters)
    }
    speed_factor = torch.ones_like(scene.x_m)
    last = scene.x_m.shape[1] - len(simulator.obstacles)
    for row, seed in enumerate(seeds):
        count = int(scene.vehicle[row, 1:last].sum())
        parameters, factor = draw_drivers(int(seed), count)
        speed_factor[row, 1 : 1 + count] = torch.as_tensor(factor).to(speed_factor)
        for name, values in parameters.items():
            table[name][row, 1 : 1 + count] = torch.as_tensor(values).to(speed_factor)
    simulator.scene = scene.but(target_speed_mps=scene.target_speed_mps * speed_factor)
    simulator.drivers = DriverParameters(**table)
