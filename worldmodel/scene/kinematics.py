"""How vehicles move: the ego's kinematic bicycle (known), its limits, and the unicycle that integrates forecasts."""

from __future__ import annotations

from dataclasses import replace

import torch
from torch import Tensor

from drivecast.worldmodel.scene.traffic import Controls, TrafficState

MAX_ACCELERATION_MPS2 = 6.0  # what highway-env's own drivers are held to
MAX_BRAKING_MPS2 = 8.0  # an emergency stop on a dry road
MAX_STEERING_RAD = 0.7  # about what a road car's front wheels reach
TURN_AT_LEAST_MPS = 5.0  # below it a lateral acceleration no longer says how far to turn the wheels
MIN_SPEED_FOR_STEERING_MPS = 0.5  # below it a recorded heading says nothing about the wheels


def bicycle_step(
    position_m: Tensor,
    heading_rad: Tensor,
    speed_mps: Tensor,
    length_m: Tensor,
    acceleration_mps2: Tensor,
    steering_rad: Tensor,
    dt_s: float,
) -> tuple[Tensor, Tensor, Tensor]:
    """One explicit Euler step of the kinematic bicycle, in highway-env's form, for any leading shape.

    beta = atan(tan(steering) / 2); x += v cos(heading + beta) dt; heading += v sin(beta) / (length / 2) dt;
    v += a dt, held at or above zero (a car does not brake into reverse).
    Source: Polack et al. 2017 (IV), "The kinematic bicycle model", eq. 2; highway-env `vehicle/kinematics.py`.

    Returns the next `(position_m, heading_rad, speed_mps)`.
    """
    slip = torch.atan(0.5 * torch.tan(steering_rad))
    course = heading_rad + slip
    step_m = speed_mps * dt_s
    position = position_m + step_m[..., None] * torch.stack([course.cos(), course.sin()], -1)
    heading = heading_rad + step_m * slip.sin() / (length_m / 2)
    return position, heading, (speed_mps + acceleration_mps2 * dt_s).clamp_min(0.0)


def drive(vehicle: TrafficState, controls: Controls, dt_s: float) -> TrafficState:
    """`vehicle (batch,)` one `bicycle_step` on."""
    position, heading, speed = bicycle_step(
        vehicle.position_m,
        vehicle.heading_rad,
        vehicle.speed_mps,
        vehicle.length_m,
        controls.acceleration_mps2,
        controls.steering_rad,
        dt_s,
    )
    return replace(vehicle, position_m=position, heading_rad=heading, speed_mps=speed)


def within_limits(controls: Controls, speed_mps: Tensor, dt_s: float) -> Controls:
    """Controls that a car at `speed_mps` can follow, of its kind of number and on its device.

    Steering is held within ±0.7 rad, acceleration within -8 and 6 m/s² and so that the speed stays at or above zero.
    """
    braking = (speed_mps.clamp_min(0.0) / dt_s).clamp_max(MAX_BRAKING_MPS2)
    return Controls(
        controls.acceleration_mps2.to(speed_mps).clamp_max(MAX_ACCELERATION_MPS2).maximum(-braking),
        controls.steering_rad.to(speed_mps).clamp(-MAX_STEERING_RAD, MAX_STEERING_RAD),
    )


def lateral_acceleration(steering_rad: Tensor, speed_mps: Tensor, length_m: Tensor) -> Tensor:
    """Of the bicycle, m/s², left positive: v² sin(beta) / (length / 2), beta as in `bicycle_step`."""
    return speed_mps**2 * (torch.atan(0.5 * torch.tan(steering_rad)).sin() / (length_m / 2))


def steering_for(lateral_mps2: Tensor, speed_mps: Tensor, length_m: Tensor) -> Tensor:
    """Steering angle, rad, of this `lateral_acceleration`; below 5 m/s as if at 5 m/s, and as far as wheels turn."""
    curvature = lateral_mps2 / speed_mps.clamp_min(TURN_AT_LEAST_MPS) ** 2
    slip = torch.asin((curvature * length_m / 2).clamp(-0.5, 0.5))
    return torch.atan(2 * slip.tan()).clamp(-MAX_STEERING_RAD, MAX_STEERING_RAD)


def wrapped(angle_rad: Tensor) -> Tensor:
    """The angle within ±pi, rad, with its gradient."""
    return torch.atan2(angle_rad.sin(), angle_rad.cos())


def unicycle_step(
    position_m: Tensor,
    heading_rad: Tensor,
    speed_mps: Tensor,
    acceleration_mps2: Tensor,
    yaw_rate_radps: Tensor,
    dt_s: float,
) -> tuple[Tensor, Tensor, Tensor]:
    """One step of a unicycle with mid-point speed and heading, for any leading shape.

    Returns the next `(position_m, heading_rad, speed_mps)`; speed never becomes negative.
    """
    speed = speed_mps + acceleration_mps2 * dt_s
    # a car that brakes to a stop learns of its braking, too: the gradient passes where the speed is held at zero
    speed = speed + (speed.clamp_min(0.0) - speed).detach()
    turn = yaw_rate_radps * dt_s
    course = heading_rad + turn / 2
    step_m = (speed_mps + speed) / 2 * dt_s
    position = position_m + step_m[..., None] * torch.stack([course.cos(), course.sin()], -1)
    return position, heading_rad + turn, speed


def recorded_controls(heading_rad: Tensor, speed_mps: Tensor, length_m: Tensor, dt_s: float) -> tuple[Tensor, Tensor]:
    """The bicycle's controls that explain a recorded motion: inverse of `bicycle_step` in speed and heading.

    Args: `heading_rad, speed_mps (..., time)`, `length_m (...,)`.
    Returns `(acceleration_mps2, steering_rad)`, each `(..., time - 1)`; steering is zero for a car that stands.
    """
    acceleration = torch.diff(speed_mps, dim=-1) / dt_s
    turn = wrapped(torch.diff(heading_rad, dim=-1))
    speed = speed_mps[..., :-1]
    moving = speed > MIN_SPEED_FOR_STEERING_MPS
    sine = turn * (length_m / 2)[..., None] / (speed.clamp_min(MIN_SPEED_FOR_STEERING_MPS) * dt_s)
    slip = torch.asin(sine.clamp(-0.38, 0.38))
    steering = torch.atan(2 * slip.tan()).clamp(-MAX_STEERING_RAD, MAX_STEERING_RAD)
    return acceleration, torch.where(moving, steering, torch.zeros_like(steering))


def knot_weights(steps: int, knots: int) -> Tensor:
    """Weights `(step, knot)` of a motion that is linear between `knots` moments, evenly spread over `steps`."""
    place = torch.linspace(0.0, knots - 1.0, steps)
    return (1.0 - (place[:, None] - torch.arange(knots)).abs()).clamp_min(0.0)
