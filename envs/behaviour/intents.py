"""What vehicles are about to do: told by who knows, or read from how they move."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

from drivecast.worldmodel.rules.laws import TAU_LATERAL_S
from drivecast.worldmodel.scene.road import Road
from drivecast.worldmodel.scene.traffic import TrafficState, _TensorRecord


@dataclass(frozen=True)
class Intents(_TensorRecord):
    """What each vehicle of a scene is about to do, `(batch, agent)` each."""

    lane: Tensor  # long: the lane that it is bound for
    desired_speed_mps: Tensor  # within the limit of its lane


IntentSource = Callable[[TrafficState, Road], Intents]


def observed_intents(scene: TrafficState, road: Road) -> Intents:
    """What can be seen from outside: a vehicle goes on at its speed, to where its drift leads it.

    highway-env's cars, like people, move across at their distance from the lane's centre over 0.6 s: so much later
    they would be there. Its true target lane shows so one frame after the decision.
    """
    drift = scene.velocity_mps * TAU_LATERAL_S
    here = road.project(scene.position_m)
    # the part of the drift along the lane leads nowhere else
    along = torch.stack([here.heading_rad.cos(), here.heading_rad.sin()], -1)
    sideways = drift - (drift * along).sum(-1, keepdim=True) * along
    return Intents(road.project(scene.position_m + sideways).lane, scene.speed_mps)
