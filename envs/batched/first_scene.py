"""Spawned episodes as one scene."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from drivecast.envs.batched.lanes import Lanes
from drivecast.envs.batched.scene import Scene
from drivecast.envs.batched.spawn import DEFAULT_EXPONENT, Spawn

NOWHERE_M = -1e6  # where the places without a car are, each on its own


def first_scene(
    spawns: Sequence[Spawn], lanes: Lanes, obstacles: Sequence[tuple[float, ...]], dtype: torch.dtype
) -> Scene:
    """The scene of all episodes of `spawns`; the ego has no target and no driver yet.

    Args:
        spawns: Who is where.
        lanes: The road.
        obstacles: Places (x, y) in m of what stands on it; they become the last agents.
        dtype: Of the state.
    """
    cars, device = max(len(spawn.x_m) for spawn in spawns), lanes.start_x_m.device
    episodes, agents = sum(spawn.episodes for spawn in spawns), cars + len(obstacles)

    def table(name: str, empty: float, of_obstacle: list[float]) -> NDArray[np.float64]:
        values = np.full((episodes, agents), empty)
        values[:, cars:] = of_obstacle
        first = 0
        for spawn in spawns:
            values[first : first + spawn.episodes, : len(spawn.x_m)] = spawn.table(name)
            first += spawn.episodes
        return values

    still = [0.0] * len(obstacles)
    x = table("x_m", np.nan, [place[0] for place in obstacles])
    missing = np.isnan(x)
    x = np.where(missing, NOWHERE_M * (1 + np.arange(agents)), x)
    y = np.where(missing, 0.0, table("y_m", 0.0, [place[1] for place in obstacles]))
    speed = np.where(missing, 0.0, table("speed_mps", 0.0, still))
    target_speed = np.where(missing, 0.0, table("target_speed_mps", 0.0, still))
    target_speed[:, 0] = 0.0
    exponent = np.where(
        missing, DEFAULT_EXPONENT, table("exponent", DEFAULT_EXPONENT, [DEFAULT_EXPONENT] * len(obstacles))
    )
    timer = ((x + y) * np.pi) % 1.0  # `IDMVehicle.__init__`

    def tensor(values: np.ndarray) -> Tensor:
        return torch.as_tensor(values, dtype=dtype, device=device)

    nothing = torch.zeros(episodes, agents, dtype=dtype, device=device)
    no = torch.zeros(episodes, agents, dtype=torch.bool, device=device)
    vehicle = torch.as_tensor(x > NOWHERE_M, device=device)
    vehicle[:, cars:] = False
    others = vehicle.clone()
    others[:, 0] = False
    x_m, y_m = tensor(x), tensor(y)
    lane = lanes.nearest(x_m, y_m, nothing)
    return Scene(
        x_m=x_m,
        y_m=y_m,
        heading_rad=nothing,
        speed_mps=tensor(speed),
        acceleration_mps2=nothing,
        steering_rad=nothing,
        lane=lane,
        target_lane=lane,
        timer_s=tensor(timer),
        crashed=no,
        impact_x_m=nothing,
        impact_y_m=nothing,
        struck=no,
        target_speed_mps=tensor(target_speed),
        exponent=tensor(exponent),
        idm=others,
        aims=others.clone(),
        vehicle=vehicle,
    )


def widened(scene: Scene, agents: int, obstacles: int) -> Scene:
    """The scene with empty places between cars and obstacles, up to `agents`."""
    missing = agents - scene.x_m.shape[1]
    if not missing:
        return scene
    cars = scene.x_m.shape[1] - obstacles
    empty = {
        "x_m": NOWHERE_M * (1 + torch.arange(cars, cars + missing)),
        "exponent": torch.full((missing,), DEFAULT_EXPONENT),
    }

    def wider(name: str, values: Tensor) -> Tensor:
        filling = empty.get(name, torch.zeros(missing)).to(values).expand(len(values), missing)
        return torch.cat([values[:, :cars], filling, values[:, cars:]], 1)

    return Scene(**{name: wider(name, values) for name, values in vars(scene).items()})
