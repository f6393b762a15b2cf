"""What the world model is trained to lower: multi-step reconstruction plus the information of its latent."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor
from torch.nn.functional import huber_loss

from drivecast.worldmodel.energy.scoring import fair_energy_score
from drivecast.worldmodel.forecaster.draws import LatentDraws
from drivecast.worldmodel.forecaster.latent import DiagonalNormal, drop_latent, kl_divergence, with_free_bits
from drivecast.worldmodel.forecaster.model import Memory, WorldModel
from drivecast.worldmodel.scene.contact import parallel_overlap_m
from drivecast.worldmodel.scene.road import Road
from drivecast.worldmodel.scene.traffic import TrafficState, along_and_left

FORWARD_SCALE_M, LEFT_SCALE_M, SPEED_SCALE_MPS = 1.0, 0.4, 1.0  # an error of this size counts as one
SMOOTHING = 1e-6  # of norms, which gives them a gradient at zero
LANDMARK_STEPS = 5  # between positions that sampled futures are scored by
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
        samples: Futures drawn from the prior, if one of the weights below is not zero; 2 or more.
        likeliest_weight: Weight of the error of the future in which nobody has a latent.
        energy_score_weight: Weight of the energy score of these futures: it makes them as wide as the world.
        overlap_weight: Weight of the area, in m², by which vehicles overlap in these futures.
    """

    kl_weight: float = 0.1
    free_nats: float = 0.02
    latent_dropout: float = 0.5
    latent_dropout_variant: Literal["zero", "prior"] = "zero"
    samples: int = 2
    likeliest_weight: float = 0.0
    energy_score_weight: float = 0.0
    overlap_weight: float = 0.0

    def __post_init__(self) -> None:
        if not 0.0 <= self.latent_dropout <= 1.0:
            raise ValueError(f"latent_dropout must lie in [0, 1], not {self.latent_dropout}")
        for name in ("kl_weight", "free_nats", "likeliest_weight", "energy_score_weight", "overlap_weight"):
            if getattr(self, name) < 0.0:
                raise ValueError(f"{name} must not be negative")
        if self.samples < 2:
            raise ValueError(f"samples must be at least 2, not {self.samples}")

    @property
    def scores_samples(self) -> bool:
        """Whether futures are drawn from the prior in training."""
        return any((self.likeliest_weight, self.energy_score_weight, self.overlap_weight))


@dataclass(frozen=True)
class Loss:
    """Loss of one batch; `kl_nats (latent,)` is the mean KL of each dimension, without free bits.

    `likeliest` is the reconstruction's counterpart where no vehicle has a latent. It, `energy_score` and `overlap_m2`
    are zero where no futures were drawn from the prior.
    """

    total: Tensor
    reconstruction: Tensor
    kl: Tensor
    kl_nats: Tensor
    likeliest: Tensor
    energy_score: Tensor
    overlap_m2: Tensor


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
    last: Tensor | None,
    dropout: float,
    config: ObjectiveConfig,
    generator: torch.Generator | None,
) -> tuple[Tensor, DiagonalNormal, DiagonalNormal, Tensor]:
    """A latent for the next stretch, after the `last`: `(latent, posterior, prior, which vehicles have a target)`."""
    prior, posterior = model.prior(memory, last), model.posterior(memory, target, last)
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
    score_samples: bool = False,
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
        score_samples: Unroll the future without latents, and futures under the prior, beside it in the same batch, and
            score these, too.
    """
    known = future if known is None else known
    batch, steps, hold = future.valid.shape[0], future.valid.shape[1], model.config.latent_hold_steps
    memory = model.observe(history, road)
    scored = counted & ~who & memory.scene.valid
    masks = model.dropout_masks(*scored.shape, generator=generator) if feature_dropout else None
    samples = config.samples if score_samples and model.config.latent_dims else 0
    if samples:  # rows of the batch: under the posterior, under no latent, then `samples` times under the prior
        repeated = torch.arange(batch, device=scored.device).repeat(2 + samples)
        memory, road, known, who = memory[repeated], road[repeated], known[repeated], who[repeated]
        if masks is not None:  # futures are drawn as they will be: without dropout
            masks = torch.cat([masks, masks, torch.ones_like(masks).repeat(samples, 1, 1)])
    scenes, divergences, weights = [], [], []
    latent = model.no_latent(memory)
    last: Tensor | None = None
    # half of the latent dropout strikes a vehicle for the whole rollout: only so is a forecast without any latent
    # trained on its own drift; the other half strikes single stretches
    rate = config.latent_dropout / 2
    silent = torch.rand((*scored.shape, 1), generator=generator, device=scored.device) < rate
    draws = LatentDraws(model, True, generator)
    for step in range(steps):
        if step % hold == 0 and model.config.latent_dims:
            here = memory[:batch] if samples else memory
            latent, posterior, prior, seen = latent_from_posterior(
                model, here, future[:, step : step + hold], last, rate / (1.0 - rate), config, generator
            )
            replacement = (
                torch.zeros_like(latent) if config.latent_dropout_variant == "zero" else prior.sample(generator)
            )
            latent = torch.where(silent, replacement, latent)
            if shuffle_latent:
                order = torch.randperm(latent.shape[0] * latent.shape[1], generator=generator, device=latent.device)
                latent = latent.flatten(0, 1)[order].view_as(latent)
            last = latent
            divergences.append(kl_divergence(posterior, prior))
            weights.append(seen & scored)
            if samples:
                latent = torch.cat([latent, model.no_latent(here), draws.at(step, memory[2 * batch :])])
        memory = model.step(memory, latent, road, known[:, step], who & known.valid[:, step], masks)
        scenes.append(memory.scene)
    rollout = TrafficState.stack(scenes, 1)
    weight = (future.valid & scored[:, None]).to(future.speed_mps)  # (batch, time, agent)

    def mean_error(guess: TrafficState) -> Tensor:
        return (reconstruction_error(guess, future) * weight).sum() / weight.sum().clamp_min(1.0)

    reconstruction = mean_error(rollout[:batch])
    if divergences:
        kl_all, counts = torch.stack(divergences, 1), torch.stack(weights, 1)
        kl = with_free_bits(kl_all, counts, config.free_nats)
        kl_nats = (kl_all * counts[..., None]).flatten(0, -2).sum(0) / counts.sum().clamp_min(1)
    else:
        kl, kl_nats = reconstruction.new_zeros(()), reconstruction.new_zeros(0)
    total = reconstruction + kl_weight * kl
    likeliest, score, overlap = (reconstruction.new_zeros(()) for _ in range(3))
    if samples:
        likeliest = mean_error(rollout[batch : 2 * batch])
        sampled = rollout[2 * batch :].map(lambda tensor: tensor.view(samples, batch, *tensor.shape[1:]))
        score = sampled_energy_score(sampled, future, weight > 0, model.config.dt_s)
        overlap = overlap_m2(sampled[:, :, LANDMARK_STEPS - 1 :: LANDMARK_STEPS], scored)
        total = total + config.likeliest_weight * likeliest
        total = total + config.energy_score_weight * score + config.overlap_weight * overlap
    return Loss(total, reconstruction, kl, kl_nats.detach(), likeliest, score, overlap)


def sampled_energy_score(sampled: TrafficState, future: TrafficState, counted: Tensor, dt_s: float) -> Tensor:
    """Energy score of sampled positions, of each vehicle's trajectories and of whole scenes; the mean of the three.

    Positions every half second in units of `FORWARD_SCALE_M` and `LEFT_SCALE_M` times `error_growth`, so that early and
    late ones matter alike; vectors of many are taken over the root of their number.

    Args:
        sampled: `(sample, batch, time, agent)`.
        future: What happened, `(batch, time, agent)`.
        counted: What counts, bool `(batch, time, agent)`.
        dt_s: Time step, s.
    """
    every = slice(LANDMARK_STEPS - 1, None, LANDMARK_STEPS)
    time_s = dt_s * torch.arange(1, future.valid.shape[1] + 1, device=counted.device)[every]
    sampled, future, counted = sampled[:, :, every], future[:, every], counted[:, every]
    offset = (sampled.position_m - future.position_m).masked_fill(~counted[..., None], 0.0)
    forward, left = along_and_left(offset, future.direction)
    # (sample, batch, moment, agent, 2)
    errors = torch.stack([forward / FORWARD_SCALE_M, left / LEFT_SCALE_M], -1)
    errors = errors / error_growth(time_s)[:, None]
    truth = torch.zeros_like(errors[0])
    positions = (fair_energy_score(errors, truth, SMOOTHING) * counted).sum() / counted.sum().clamp_min(1)
    own, moments = errors.transpose(2, 3).flatten(3), counted.sum(1)  # (sample, batch, agent, part)
    each = fair_energy_score(own, torch.zeros_like(own[0]), SMOOTHING) / moments.clamp_min(1).sqrt()
    there = (moments > 0).to(each)
    vehicles = (each * there).sum() / there.sum().clamp_min(1.0)
    parts = counted.flatten(1).sum(1)
    whole = fair_energy_score(errors.flatten(2), truth.flatten(1), SMOOTHING) / parts.clamp_min(1).sqrt()
    some = (parts > 0).to(whole)
    return (positions + vehicles + (whole * some).sum() / some.sum().clamp_min(1.0)) / 3


def error_growth(time_s: Tensor) -> Tensor:
    """How errors of forecasts grow with `time_s (moment,)`: along and to the left, `(moment, 2)`, in the scales' units.

    On US-101 about 0.4 m along after 1 s, 1.5 m after 3 s and 3 m after 5 s; 0.1 m, 0.2 m and 0.35 m to the left.
    """
    return torch.stack([0.1 + 0.3 * time_s**1.4, 0.1 + 0.15 * time_s], -1)


def overlap_m2(sampled: TrafficState, counted: Tensor) -> Tensor:
    """Mean over vehicles of the area by which they overlap others in `sampled (sample, batch, moment, agent)`, in m².

    Boxes are taken as parallel; `counted (batch, agent)` are the vehicles that are judged. Recorded vehicles hardly
    ever touch, which positions alone don't tell the model.
    """
    along, across, pairs = parallel_overlap_m(sampled)
    area = along.clamp_min(0.0) * across.clamp_min(0.0)
    both = pairs & counted[:, None, :, None]
    judged = (sampled.valid & counted[:, None]).sum().clamp_min(1)
    return (area * both).sum() / judged
