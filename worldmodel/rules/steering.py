"""Steering that follows a lane: highway-env's cascaded controller, on any road."""

from __future__ import annotations

import torch
from torch import Tensor

from drivecast.worldmodel.rules.laws import TAU_PURSUIT_S, lane_steering
from drivecast.worldmodel.scene.kinematics import MAX_STEERING_RAD
from drivecast.worldmodel.scene.lane_neighbours import single_lane
from drivecast.worldmodel.scene.road import Road
from drivecast.worldmodel.scene.traffic import TrafficState

MOST_SLIP_SINE = 0.9  # beyond the wheels' limit


def lane_keeping_steering(ego: TrafficState, road: Road, lane: Tensor, offset_m: Tensor | float = 0.0) -> Tensor:
    """Steering angle in rad, left positive, that brings the ego to the centre of `lane (batch,)` and keeps it there.

    Held within what a car's wheels reach (0.7 rad; highway-env: 1.05), see
    `drivecast.worldmodel.rules.laws.lane_steering`.

    Args: `ego (batch,)`; `offset_m` from the centre, left positive, if it is to be kept there.
    """
    only = single_lane(road, lane)
    there = only.project(ego.position_m[:, None])
    ahead = ego.position_m + _along(there.heading_rad[:, 0]) * (ego.speed_mps * TAU_PURSUIT_S)[:, None]
    lane_heading = only.project(ahead[:, None]).heading_rad[:, 0]
    across_m, half_length_m = there.across_m[:, 0] - offset_m, ego.length_m / 2
    return lane_steering(
        ego.speed_mps, across_m, ego.heading_rad, lane_heading, half_length_m, MOST_SLIP_SINE, MAX_STEERING_RAD
    )


def _along(heading_rad: Tensor) -> Tensor:
    return torch.stack([heading_rad.cos(), heading_rad.sin()], -1)
