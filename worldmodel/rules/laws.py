"""IDM, MOBIL and lane-keeping steering: highway-env's equations, once for all that drive by them.

Equations and constants are those of highway-env 1.12.1 (`vehicle/behavior.py`, `vehicle/controller.py`); IDM: Treiber,
Hennecke, Helbing 2000; MOBIL: Kesting, Treiber, Helbing 2007. They act on tensors of any shape, in any frame: a frame
that is mirrored gives mirrored steering.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor

from drivecast.worldmodel.rules.driver_parameters import DriverParameters
from drivecast.worldmodel.rules.elementary import asin, atan, power, tan

TAU_HEADING_S = 0.2
TAU_LATERAL_S = 0.6
TAU_PURSUIT_S = 0.5 * TAU_HEADING_S  # a lane's heading is taken so far ahead
MOST_TURN_RAD = math.pi / 4  # of the heading away from the lane


def not_zero(value: Tensor, least: float = 1e-2) -> Tensor:
    """`value`, kept `least` away from zero on its side (`utils.not_zero`); zero, -0.0 too, counts as positive."""
    return value.abs().clamp_min(least) * torch.where(value.detach() >= 0.0, 1.0, -1.0)


def wrap_to_pi(angle: Tensor) -> Tensor:
    """`angle` within [-pi, pi), rad."""
    return torch.remainder(angle + math.pi, 2 * math.pi) - math.pi


def desired_gap(speed: Tensor, closing: Tensor, drivers: DriverParameters) -> Tensor:
    """IDM's d* = d0 + T v + v Δv / (2 sqrt(a b)), m."""
    return drivers.jam_distance_m + speed * drivers.time_gap_s + speed * closing / drivers.closing_mps2


def free_acceleration(speed: Tensor, desired: Tensor, exponent: Tensor | float, drivers: DriverParameters) -> Tensor:
    """IDM's a (1 - (v / v0)^δ), m/s²: with nobody ahead."""
    if not isinstance(exponent, Tensor):
        exponent = torch.full_like(speed, exponent)
    return drivers.comfort_acceleration_mps2 * (1 - power(speed.clamp_min(0.0) / desired, exponent))


def interaction(speed: Tensor, closing: Tensor, distance: Tensor, drivers: DriverParameters) -> Tensor:
    """IDM's a (d* / d)², m/s²: how much a leader takes off; nothing where `distance` is infinite."""
    gap = (desired_gap(speed, closing, drivers) / not_zero(distance)) ** 2
    return drivers.comfort_acceleration_mps2 * gap


def worth_changing(gain: Tensor, imposed: Tensor, drivers: DriverParameters) -> Tensor:
    """Bool. MOBIL: the lane change gains enough, and the new follower need not brake too hard."""
    return (gain >= drivers.least_gain_mps2) & (imposed >= -drivers.most_imposed_mps2)


def lane_steering(
    speed: Tensor,
    across: Tensor,
    heading: Tensor,
    lane_heading: Tensor | float,
    half_length: Tensor,
    most_slip_sine: float,
    most_steering_rad: float,
) -> Tensor:
    """Steering angle that leads to a lane's centre, rad (`ControlledVehicle.steering_control`).

    lateral speed = -across / 0.6 s; heading = lane heading + asin(lateral speed / v), at most 45 degrees away;
    turn rate = (heading - own) / 0.2 s; slip = asin(half length · turn rate / v); steering = atan(2 tan slip).

    Args:
        speed: Along the heading, m/s.
        across: From the lane's centre, m, on the side to which headings grow.
        heading: rad.
        lane_heading: Of the lane, where the vehicle will be in `TAU_PURSUIT_S`, rad.
        half_length: Of the vehicle, m.
        most_slip_sine: highway-env's is 1; from the largest steering on, more makes no difference, and float32 gives
            tan(asin(1)) the wrong sign.
        most_steering_rad: How far the wheels turn.
    """
    speed = not_zero(speed)
    lateral_speed = -1 / TAU_LATERAL_S * across
    wanted = asin((lateral_speed / speed).clamp(-1.0, 1.0)).clamp(-MOST_TURN_RAD, MOST_TURN_RAD)
    heading_rate = 1 / TAU_HEADING_S * wrap_to_pi(lane_heading + wanted - heading)
    slip = asin((half_length / speed * heading_rate).clamp(-most_slip_sine, most_slip_sine))
    return atan(2 * tan(slip)).clamp(-most_steering_rad, most_steering_rad)
