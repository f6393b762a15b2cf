"""How highway-env's cars move (`vehicle/kinematics.py`): a bicycle, integrated by explicit Euler."""

from __future__ import annotations

import torch
from torch import Tensor

from drivecast.envs.batched.decisions import HALF_LENGTH_M
from drivecast.envs.batched.lanes import Lanes
from drivecast.envs.batched.places import Few, anywhere
from drivecast.envs.batched.scene import Scene
from drivecast.worldmodel.rules.elementary import atan, cos, sin, tan

MAX_SPEED_MPS = 40.0


def move(scene: Scene, lanes: Lanes, dt_s: float) -> Scene:
    """One frame: x += v cos(ψ + β) dt, ψ += v sin β / (L/2) dt, v += a dt with β = atan(tan δ / 2).

    Crashed cars brake by 1/s times their speed, wheels straight; an impact moves a car once, and crashes it.
    """
    speed, crashed = scene.speed_mps, scene.crashed
    steering = scene.steering_rad.masked_fill(crashed, 0.0)
    acceleration = torch.where(crashed, -speed, scene.acceleration_mps2)
    if anywhere(speed.abs() > MAX_SPEED_MPS):
        slower, faster = MAX_SPEED_MPS - speed, -MAX_SPEED_MPS - speed
        acceleration = torch.where(speed > MAX_SPEED_MPS, acceleration.minimum(slower), acceleration)
        acceleration = torch.where(speed < -MAX_SPEED_MPS, acceleration.maximum(faster), acceleration)
    turning = Few.of(scene.heading_rad.bool() | steering.bool())  # the others drive straight along the road
    cos_course, sin_course, sin_slip = turning.apply(_course, scene.heading_rad, steering, otherwise=(1.0, 0.0, 0.0))
    x = scene.x_m + speed * cos_course * dt_s + scene.impact_x_m
    y = scene.y_m + speed * sin_course * dt_s + scene.impact_y_m
    heading = scene.heading_rad + speed * sin_slip / HALF_LENGTH_M * dt_s
    with torch.no_grad():
        lane = lanes.nearest(x, y, heading)
    nothing = torch.zeros_like(x)
    return scene.but(
        x_m=x,
        y_m=y,
        heading_rad=heading,
        speed_mps=speed + acceleration * dt_s,
        acceleration_mps2=acceleration,
        steering_rad=steering,
        lane=lane,
        timer_s=scene.timer_s + dt_s,
        crashed=crashed | scene.struck,
        impact_x_m=nothing,
        impact_y_m=nothing,
        struck=torch.zeros_like(crashed),
    )


def _course(heading: Tensor, steering: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """cos and sin of ψ + β, sin of β."""
    slip = atan(0.5 * tan(steering))
    return cos(heading + slip), sin(heading + slip), sin(slip)
