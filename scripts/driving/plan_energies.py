"""The energy of a plan as the future of the ego: what it says of the plan's true cost without any rollout."""

from __future__ import annotations

from dataclasses import replace

import torch
from torch import Tensor

from drivecast.scripts.driving.candidate_plans import CandidatePlans
from drivecast.worldmodel.energy_methods.coordinates import FutureCoordinates
from drivecast.worldmodel.energy_methods.method import Method
from drivecast.worldmodel.energy_methods.surroundings import FRAME_S, Surroundings, surroundings_of
from drivecast.worldmodel.scene.traffic import TrafficState


def surroundings_of_plans(plans: CandidatePlans, steps: int, answering: bool) -> Surroundings:
    """Those of each plan `(scene · plan,)`: others go on at their velocities, or if `answering` as they truly do."""
    scenes, count = plans.cost.shape
    rows = torch.arange(scenes).repeat_interleave(count)
    if answering:
        future = plans.future[:, :, :steps].map(lambda values: values.flatten(0, 1))
        return surroundings_of(plans.history[rows], future, plans.road[rows], plans.dt_s)
    future = at_constant_velocity(plans.history[:, -1], steps, plans.dt_s)
    return surroundings_of(plans.history, future, plans.road, plans.dt_s)[rows]


def at_constant_velocity(present: TrafficState, steps: int, dt_s: float) -> TrafficState:
    """`present (scene, agent)` going on, `(scene, time, agent)`."""
    time_s = dt_s * torch.arange(1, steps + 1).to(present.speed_mps)
    future = present.map(lambda values: values[:, None].expand(-1, steps, *values.shape[1:]))
    moved = present.velocity_mps[:, None] * time_s[:, None, None]
    return replace(future, position_m=future.position_m + moved)


def energies_of_plans(
    method: Method, coordinates: FutureCoordinates, plans: CandidatePlans, past: Surroundings
) -> Tensor:
    """`(scene, plan)` of the first seconds of `plans`, as many as the method's futures have; `past` of each plan."""
    every = round(FRAME_S / plans.dt_s)
    own = plans.ego.position_m.flatten(0, 1)[:, every - 1 :: every][:, : coordinates.frames]
    vector = coordinates.vector(past.to_lane(own), past)
    found = [
        method.energy(method.look(past[rows]), vector[rows][:, None])[:, 0].detach()
        for rows in torch.arange(len(vector)).split(1024)
    ]
    return torch.cat(found).view(plans.cost.shape)
