"""Traffic forecast by fitted IDM: everybody keeps to its lane and follows whoever is ahead."""

from __future__ import annotations

from dataclasses import replace

import torch

from drivecast.envs.behaviour.fitted_drivers import DriverTraits, FittedDrivers, idm_acceleration
from drivecast.worldmodel.scene.kinematics import MAX_BRAKING_MPS2
from drivecast.worldmodel.scene.neighbours import find_neighbours
from drivecast.worldmodel.scene.road import Road
from drivecast.worldmodel.scene.traffic import TrafficState


def idm_forecast(
    drivers: FittedDrivers, history: TrafficState, road: Road, steps: int, dt_s: float = 0.1
) -> TrafficState:
    """`steps` steps of everybody by the typical driver's IDM, along the lane's direction: `(batch, time, agent)`.

    Everyone wants at least its present speed. Braking is limited as the ego's is.

    Args:
        drivers: Fitted IDM.
        history: `(batch, time, agent)`, the present last.
        road: The road.
        steps: How far, in steps.
        dt_s: Time step, s.
    """
    scene, scenes = history[:, -1], []
    typical = drivers.typical
    wanted = scene.speed_mps.clamp_min(typical.desired_speed_mps)
    traits = replace(
        DriverTraits(*(torch.full_like(wanted, float(value)) for value in typical.values())), desired_speed_mps=wanted
    )
    for _ in range(steps):
        there = road.project(scene.position_m)
        ahead = find_neighbours(scene, there)
        leads = ahead.present[..., 0]
        closing = ahead.closing_mps[..., 0] * leads
        gap = ahead.gap_m[..., 0].masked_fill(~leads, torch.inf)
        lengths = (ahead.length_m[..., 0] + scene.length_m) / 2
        acceleration = idm_acceleration(traits, scene.speed_mps, closing, gap, lengths)
        acceleration = acceleration.clamp(-MAX_BRAKING_MPS2, float(typical.acceleration_mps2))
        speed = (scene.speed_mps + acceleration * dt_s).clamp_min(0.0)
        course = torch.stack([there.heading_rad.cos(), there.heading_rad.sin()], -1)
        moved = scene.position_m + course * ((scene.speed_mps + speed) / 2 * dt_s)[..., None]
        scene = replace(scene, position_m=moved, speed_mps=speed, heading_rad=there.heading_rad)
        scenes.append(scene)
    return TrafficState.stack(scenes, 1)
