"""What the world model is trained to lower: multi-step reconstruction plus the information of its latent."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor
from torch.nn.functional import huber_loss

from drivecast.worldmodel.forecaster.latent import DiagonalNormal, drop_latent, kl_divergence, with_free_bits
from drivecast.worldmodel.forecaster.model import Memory, WorldModel
from drivecast.worldmodel.scene.road import Road
from drivecast.worldmodel.scene.traffic import TrafficState

FORWARD_SCALE_M, LEFT_SCALE_M, SPEED_SCALE_MPS = 1.0, 0.4, 1.0  # an error of this size counts as one
QUADRATIC_UP_TO = 2.0  # of those units; beyond it the loss grows linearly (Huber)


@dataclass(frozen=True)
class ObjectiveConfig:
    """Loss of the world model.

    Args:
        kl_weight: Weight of the KL divergence, after its warm-up.
        free_nats: Free information of each latent dimension, in nats.
        latent_dropout: Probability that a vehicle's latent of one stretch does not come from the posterior; half of it
            strikes the vehicle for the whole rollout, half single stretches.
        latent_dropout_variant: What replaces it: `zero`, or a draw from the `prior`.
    """

    kl_weight: float = 0.1
    free_nats: float = 0.02
    latent_dropout: float = 0.5
    latent_dropout_variant: Literal["zero", "prior"] = "zero"

    def __post_init__(self) -> None:
        if not 0.0 <= self.latent_dropout <= 1.0:
            raise ValueError(f"latent_dropout must lie in [0, 1], not {self.latent_dropout}")
        if self.kl_weight < 0.0 or self.free_nats < 0.0:
            raise ValueError("kl_weight and free_nats must not be negative")


@dataclass(frozen=True)
class Loss:
    """Loss of one batch; `kl_nats (latent,)` is the mean KL of each dimension, without free bits."""

    total: Tensor
    reconstruction: Tensor
    kl: Tensor
    kl_nats: Tensor


def reconstruction_error(forecast: TrafficState, target: TrafficState) -> Tensor:
    """Huber error of position (in the target's frame) and speed, unreduced: `(..., agent)`."""
    offset, direction = forecast.position_m - target.position_m, target.direction
    forward = (offset * direction).sum(-1) / FORWARD_SCALE_M
    left = (direction[..., 0] * offset[..., 1] - direction[..., 1] * offset[..., 0]) / LEFT_SCALE_M
    faster = (forecast.speed_mps - target.speed_mps) / SPEED_SCALE_MPS
    errors = torch.stack([forward, left, 0.5 * faster], -1)
    return huber_loss(errors, torch.zeros_like(errors), reduction="none", delta=QUADRATIC_UP_TO).sum(-1)


def latent_from_posterior(
    model: WorldModel,
    memory: Memory,
    target: TrafficState,
    dropout: float,
    config: ObjectiveConfig,
    generator: torch.Generator | None,
) -> tuple[Tensor, DiagonalNormal, DiagonalNormal, Tensor]:
    """A latent for the next stretch: `(latent, posterior, prior, which vehicles have a target)`."""
    prior, posterior = model.prior(memory), model.posterior(memory, target)
    seen = target.valid.any(1) & memory.scene.valid
    latent = torch.where(seen[..., None], posterior.sample(generator), prior.sample(generator))
    latent = drop_latent(latent, prior, dropout, config.latent_dropout_variant, generator)
    return latent, posterior, prior, seen


def loss_of_rollout(
    model: WorldModel,
    history: TrafficState,
    future: TrafficState,
    road: Road,
    who: Tensor,
    counted: Tensor,
    config: ObjectiveConfig,
    kl_weight: float,
    generator: torch.Generator | None = None,
    known: TrafficState | None = None,
    shuffle_latent: bool = False,
    feature_dropout: bool = True,
) -> Loss:
    """Unroll the model over `future (batch, time, agent)` under posterior latents and compare.

    Args:
        model: The world model.
        history: `(batch, time, agent)`.
        future: What happened, `(batch, time, agent)`.
        road: The road.
        who: Vehicles whose motion is known, `(batch, agent)`; they are not scored.
        counted: Vehicles that are scored where they are valid, `(batch, agent)`.
        config: Loss settings.
        kl_weight: Present weight of the KL divergence (its schedule is the caller's).
        generator: Source of randomness.
        known: Motion of the known vehicles if not `future`'s: to test how much it matters.
        shuffle_latent: Give each vehicle another's latent: to test how much it carries.
        feature_dropout: Apply the decoder's dropout, one mask per vehicle held for the rollout.
    """
    known = future if known is None else known
    steps, hold = future.valid.shape[1], model.config.latent_hold_steps
    memory = model.observe(history, road)
    scored = counted & ~who & memory.scene.valid
    masks = model.dropout_masks(*scored.shape, generator=generator) if feature_dropout else None
    scenes, divergences, weights = [], [], []
    latent = model.no_latent(memory)
    # half of the latent dropout strikes a vehicle for the whole rollout: only so is a forecast without any latent
    # trained on its own drift; the other half strikes single stretches
    rate = config.latent_dropout / 2
    silent = torch.rand((*scored.shape, 1), generator=generator, device=scored.device) < rate
    for step in range(steps):
        if step % hold == 0 and model.config.latent_dims:
            latent, posterior, prior, seen = latent_from_posterior(
                model, memory, future[:, step : step + hold], rate / (1.0 - rate), config, generator
            )
            replacement = (
                torch.zeros_like(latent) if config.latent_dropout_variant == "zero" else prior.sample(generator)
            )
            latent = torch.where(silent, replacement, latent)
            if shuffle_latent:
                order = torch.randperm(latent.shape[0] * latent.shape[1], generator=generator, device=latent.device)
                latent = latent.flatten(0, 1)[order].view_as(latent)
            divergences.append(kl_divergence(posterior, prior))
            weights.append(seen & scored)
        memory = model.step(memory, latent, road, known[:, step], who & known.valid[:, step], masks)
        scenes.append(memory.scene)
    errors = reconstruction_error(TrafficState.stack(scenes, 1), future)  # (batch, time, agent)
    weight = (future.valid & scored[:, None]).to(errors)
    reconstruction = (errors * weight).sum() / weight.sum().clamp_min(1.0)
    if divergences:
        kl_all, counts = torch.stack(divergences, 1), torch.stack(weights, 1)
        kl = with_free_bits(kl_all, counts, config.free_nats)
        kl_nats = (kl_all * counts[..., None]).flatten(0, -2).sum(0) / counts.sum().clamp_min(1)
    else:
        kl, kl_nats = reconstruction.new_zeros(()), reconstruction.new_zeros(0)
    return Loss(reconstruction + kl_weight * kl, reconstruction, kl, kl_nats.detach())
