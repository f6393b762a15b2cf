"""What the uncertainty cost is measured against: the model's disagreement where egos drive as they were recorded."""

from __future__ import annotations

import itertools
from collections.abc import Sequence

import torch
from torch import Tensor

from drivecast.planner.imagination.rollout import imagine
from drivecast.planner.imagination.starts import StartConfig, interacting
from drivecast.worldmodel.energy.uncertainty import UncertaintyConfig, UncertaintyScale
from drivecast.worldmodel.forecaster.model import WorldModel
from drivecast.worldmodel.recordings.sampling import WindowRequest, WindowSampler
from drivecast.worldmodel.recordings.store import WindowStore
from drivecast.worldmodel.scene.kinematics import recorded_controls
from drivecast.worldmodel.scene.traffic import Controls, Goal, TrafficState


@torch.no_grad()
def measure_uncertainty(
    model: WorldModel,
    stores: Sequence[WindowStore],
    starts: StartConfig,
    horizon_steps: int,
    config: UncertaintyConfig,
    sample_latent: bool,
    generator: torch.Generator,
    noise: torch.Generator,
    windows: int = 256,
    mask_draws: int = 16,
) -> UncertaintyScale:
    """Mean and spread of the model's disagreement when the egos drive as they were recorded.

    Pooled over `mask_draws` sets of dropout masks: one set's disagreement differs from another's as much as one
    scene's does from another's.

    Args:
        model: The world model, frozen.
        stores: Recordings; their `train` split is driven.
        starts: Start states of the rollouts whose cost it will scale: as many of the windows as there have an ego that
            follows someone.
        horizon_steps: Length of these rollouts.
        config: How disagreement is measured.
        sample_latent: Draw z from the prior, otherwise hold it at the prior's mean.
        generator: Draws the windows (on the CPU).
        noise: Draws latents and dropout masks, on the model's device.
        windows: Windows in all.
        mask_draws: Sets of dropout masks.
    """
    device = next(model.parameters()).device
    raws = []
    sampler = WindowSampler(stores, "train", WindowRequest(starts.history_steps, horizon_steps, starts.max_agents))
    each = max(windows // mask_draws, 1)
    drawn = [sampler.draw(each * starts.candidates, generator) for _ in range(mask_draws)]
    for window in itertools.chain.from_iterable(drawn):
        wanted = max(round(len(window.row) / starts.candidates), 1)
        chosen = interacting(window.present, window.road, wanted, starts, generator)
        history, future, road = (part[chosen].to(device) for part in (window.history, window.future, window.road))
        heading = torch.cat([history.heading_rad[:, -1:, 0], future.heading_rad[:, :, 0]], 1)
        speed = torch.cat([history.speed_mps[:, -1:, 0], future.speed_mps[:, :, 0]], 1)
        acceleration, steering = recorded_controls(heading, speed, history.length_m[:, -1, 0], model.config.dt_s)
        nothing = torch.zeros_like(speed[:, 0])
        goal = Goal(nothing, torch.full_like(nothing, -1, dtype=torch.long))

        def recorded(
            step: int, scene: TrafficState, before: TrafficState, a: Tensor = acceleration, s: Tensor = steering
        ) -> Controls:
            return Controls(a[:, step], s[:, step])

        memory = model.observe(history, road)
        before = history[:, -2]
        _, raw = imagine(model, memory, before, road, goal, recorded, horizon_steps, noise, sample_latent, config)
        assert raw is not None
        raws.append(raw)
    return UncertaintyScale.measured(torch.cat(raws))
