"""Controls at their limits: a policy that is always there has stopped to look, and gets next to no gradient."""

from __future__ import annotations

import torch
from torch import Tensor

from drivecast.planner.costs.trajectory import Trajectory
from drivecast.planner.policy.network import PolicyConfig, limited_lateral
from drivecast.worldmodel.scene.kinematics import MAX_STEERING_RAD
from drivecast.worldmodel.scene.traffic import TrafficState

AT_LIMIT = 0.95  # share of a limit from which a control counts as saturated


def saturated_share(trajectory: Trajectory, start: TrafficState, limits: PolicyConfig) -> Tensor:
    """Share of the steps of each rollout whose acceleration or steering is beyond 95 % of its limit: `(batch,)`.

    The steering's limit is the lateral acceleration that it asks for, max(v, 5 m/s)² sin(beta) / (length / 2) with
    beta = atan(tan(steering) / 2) as in `bicycle_step`, or the angle that the wheels reach. v is the speed at which
    the control was chosen: `start (batch, agent)` is the scene before the trajectory's first step.
    """
    acceleration, steering = trajectory.controls.acceleration_mps2, trajectory.controls.steering_rad  # (batch, time)
    strongest = torch.where(acceleration > 0, limits.max_acceleration_mps2, limits.max_braking_mps2)
    speed = torch.cat([start.speed_mps[:, :1], trajectory.states.speed_mps[:, :-1, 0]], 1)
    lateral = limited_lateral(steering, speed, start.length_m[:, :1])
    saturated = acceleration.abs() > AT_LIMIT * strongest
    saturated |= lateral.abs() > AT_LIMIT * limits.max_lateral_mps2
    saturated |= steering.abs() > AT_LIMIT * MAX_STEERING_RAD
    return saturated.float().mean(1)
