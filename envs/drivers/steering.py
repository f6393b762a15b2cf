"""Steering that follows a lane: highway-env's cascaded controller, batched."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from envs.neighbours import single_lane
from worldmodel.kinematics import MAX_STEERING_RAD
from worldmodel.road import Road
from worldmodel.traffic import TrafficState

TAU_HEADING_S = 0.2
TAU_LATERAL_S = 0.6
PURSUIT_S = 0.5 * TAU_HEADING_S  # the lane's heading is taken this far ahead
MOST_TURN_RAD = math.pi / 4  # of the heading away from the lane
MOST_SLIP_SINE = math.sin(math.atan(0.5 * math.tan(MAX_STEERING_RAD)))
STANDING_MPS = 0.01  # highway-env `not_zero`


def lane_keeping_steering(ego: TrafficState, road: Road, lane: Tensor) -> Tensor:
    """Steering angle in rad, left positive, that brings the ego to the centre of `lane (batch,)` and keeps it there.

    lateral speed = -across / 0.6 s; heading = lane heading + asin(lateral speed / v), at most 45 degrees away;
    turn rate = (heading - own) / 0.2 s; slip = asin(length / 2 · turn rate / v); steering = atan(2 tan slip).
    Source: highway-env `ControlledVehicle.steering_control`; held within what a car's wheels reach (0.7 rad; there
    1.05).

    Args: `ego (batch,)`.
    """
    only = single_lane(road, lane)
    there = only.project(ego.position_m[:, None])
    speed = ego.speed_mps.clamp_min(STANDING_MPS)
    ahead = ego.position_m + _along(there.heading_rad[:, 0]) * (ego.speed_mps * PURSUIT_S)[:, None]
    lane_heading = only.project(ahead[:, None]).heading_rad[:, 0]
    across_mps = -there.across_m[:, 0] / TAU_LATERAL_S
    turn = torch.asin((across_mps / speed).clamp(-1.0, 1.0)).clamp(-MOST_TURN_RAD, MOST_TURN_RAD)
    error = lane_heading + turn - ego.heading_rad
    rate = torch.atan2(error.sin(), error.cos()) / TAU_HEADING_S
    # held here, not after: at a sine of 1 float32's tangent comes out with the wrong sign
    slip = torch.asin((ego.length_m / 2 / speed * rate).clamp(-MOST_SLIP_SINE, MOST_SLIP_SINE))
    return torch.atan(2 * slip.tan())


def _along(heading_rad: Tensor) -> Tensor:
    return torch.stack([heading_rad.cos(), heading_rad.sin()], -1)
