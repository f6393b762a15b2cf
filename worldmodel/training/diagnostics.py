"""Does the model use its latent, does it listen to the ego, are its samples possible? Logged at each validation."""

from __future__ import annotations

from dataclasses import replace

import torch
from torch import Tensor

from drivecast.worldmodel.forecaster.forecast import forecast, sampled_forecasts
from drivecast.worldmodel.forecaster.model import WorldModel
from drivecast.worldmodel.recordings.window import Window
from drivecast.worldmodel.scene.contact import parallel_overlap_m
from drivecast.worldmodel.scene.kinematics import bicycle_step, recorded_controls
from drivecast.worldmodel.scene.road import Road
from drivecast.worldmodel.scene.traffic import TrafficState
from drivecast.worldmodel.training.objective import (
    ObjectiveConfig,
    loss_of_rollout,
    reconstruction_error,
    sampled_energy_score,
)

ACTIVE_UNIT_NATS = 0.02  # a latent dimension whose mean KL is above it carries information


@torch.no_grad()
def diagnose(
    model: WorldModel,
    window: Window,
    config: ObjectiveConfig,
    device: str,
    generator: torch.Generator,
    samples: int = 8,
) -> dict[str, float]:
    """Diagnostics on one batch of windows whose ego's motion (agent 0) is known.

    - `reconstruction`, `kl`, `kl_dim_*`, `active_units`: under posterior latents, no latent dropout.
    - `latent_gap`: by how much the reconstruction worsens when vehicles get each other's latents (0: z is ignored).
    - `ego_gap`: by how much the forecast of the others worsens when the ego is given another ego's controls.
    - `energy_score`: of futures sampled from the prior (`objective.sampled_energy_score`).
    - `forecast_error`: error with the prior's mean latent; `constant_velocity_error`: the same for constant velocity.
    - `sampled_collision_rate`, `sampled_off_road_rate`: share of vehicles that touch another, or are off the road, at
      the end of futures sampled from the prior; `recorded_*`: the same in what happened.
    """
    history, future, road = window.history.to(device), window.future.to(device), window.road.to(device)
    who = torch.zeros_like(history.valid[:, -1])
    who[:, 0] = True
    counted = history.valid[:, -1]
    whole = replace(config, latent_dropout=0.0)

    def error(**changes) -> Tensor:
        generator_state = generator.clone_state()
        return loss_of_rollout(
            model, history, future, road, who, counted, whole, 0.0, generator_state, feature_dropout=False, **changes
        ).reconstruction

    true = loss_of_rollout(
        model, history, future, road, who, counted, whole, 0.0, generator.clone_state(), feature_dropout=False
    )
    values = {"reconstruction": float(true.reconstruction), "kl": float(true.kl_nats.sum())}
    values |= {f"kl_dim_{number}": float(kl) for number, kl in enumerate(true.kl_nats)}
    values["active_units"] = float((true.kl_nats > ACTIVE_UNIT_NATS).sum())
    values["latent_gap"] = float(error(shuffle_latent=True) - true.reconstruction)

    memory, steps = model.observe(history, road), future.valid.shape[1]
    weight = (future.valid & (counted & ~who)[:, None]).float()

    def mean_error(guess: TrafficState) -> float:
        return float((reconstruction_error(guess, future) * weight).sum() / weight.sum().clamp_min(1))

    values["forecast_error"] = mean_error(forecast(model, memory, road, steps, future, who))
    others_ego = with_shuffled_ego(history, future, model.config.dt_s)
    values["ego_gap"] = mean_error(forecast(model, memory, road, steps, others_ego, who)) - values["forecast_error"]
    values["constant_velocity_error"] = mean_error(constant_velocity(memory.scene, steps, model.config.dt_s))
    sampled = sampled_forecasts(model, memory, road, steps, samples, future, who, generator=generator)
    values["energy_score"] = float(
        sampled_energy_score(sampled.map(lambda tensor: tensor.transpose(0, 1)), future, weight > 0, model.config.dt_s)
    )
    flat = sampled.map(lambda tensor: tensor[:, :, -1].flatten(0, 1))
    roads = road[torch.arange(len(who), device=who.device).repeat_interleave(samples)]
    values["sampled_collision_rate"], values["sampled_off_road_rate"] = impossible_rates(flat, roads)
    values["recorded_collision_rate"], values["recorded_off_road_rate"] = impossible_rates(future[:, -1], road)
    return values


def constant_velocity(scene: TrafficState, steps: int, dt_s: float) -> TrafficState:
    """Every vehicle straight on at its present speed: `(batch, time, agent)`."""
    times = dt_s * torch.arange(1, steps + 1, device=scene.speed_mps.device, dtype=scene.speed_mps.dtype)
    ahead = scene.map(lambda tensor: tensor[:, None].expand(-1, steps, *tensor.shape[1:]))
    position = ahead.position_m + scene.velocity_mps[:, None] * times[:, None, None]
    return replace(ahead, position_m=position)


def with_shuffled_ego(history: TrafficState, future: TrafficState, dt_s: float) -> TrafficState:
    """`future` with each ego driving, from its own state, by the controls of the next window's ego."""
    ego, now = future[:, :, 0], history[:, -1, 0]
    heading = torch.cat([now.heading_rad[:, None], ego.heading_rad], 1)
    speed = torch.cat([now.speed_mps[:, None], ego.speed_mps], 1)
    acceleration, steering = recorded_controls(heading, speed, now.length_m, dt_s)
    acceleration, steering = acceleration.roll(1, 0), steering.roll(1, 0)
    state = (now.position_m, now.heading_rad, now.speed_mps)
    track = []
    for step in range(ego.speed_mps.shape[1]):
        state = bicycle_step(*state, now.length_m, acceleration[:, step], steering[:, step], dt_s)
        track.append(state)
    position, headings, speeds = (torch.stack(values, 1) for values in zip(*track, strict=True))
    return replace(
        future,
        position_m=torch.cat([position[:, :, None], future.position_m[:, :, 1:]], 2),
        heading_rad=torch.cat([headings[:, :, None], future.heading_rad[:, :, 1:]], 2),
        speed_mps=torch.cat([speeds[:, :, None], future.speed_mps[:, :, 1:]], 2),
    )


def impossible(scene: TrafficState, road: Road) -> tuple[Tensor, Tensor]:
    """Which vehicles of `scene (batch, agent)` overlap another, and which are off the road, bool `(batch, agent)`."""
    along, across, pairs = parallel_overlap_m(scene)
    touching = ((along > 0.0) & (across > 0.0) & pairs).any(-1)
    return touching, (road.off_road_m(scene.position_m) > 0.0) & scene.valid


def impossible_rates(scene: TrafficState, road: Road) -> tuple[float, float]:
    """Shares of valid vehicles of `scene (batch, agent)` that overlap another, and that are off the road."""
    valid = scene.valid.sum().clamp_min(1)
    touching, outside = impossible(scene, road)
    return float(touching.sum() / valid), float(outside.sum() / valid)
