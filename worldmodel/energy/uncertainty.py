"""The uncertainty cost: dropout variance of the forecast, standardised on recorded controls, then hinged."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from drivecast.worldmodel.forecaster.model import Memory, WorldModel
from drivecast.worldmodel.scene.traffic import TrafficState


@dataclass(frozen=True)
class UncertaintyConfig:
    """The uncertainty cost.

    Args:
        masks: Dropout masks whose disagreement is measured.
        every_steps: Steps between measurements; the steps before one, back to the one before it, bear its cost.
        hinge: Standard deviations above the mean on recorded controls below which it costs nothing.
        reach_m: Vehicles within this distance of the ego count, in metres.
    """

    masks: int = 8
    every_steps: int = 10
    hinge: float = 1.0
    reach_m: float = 60.0

    def __post_init__(self) -> None:
        if self.masks < 2 or self.every_steps < 1:
            raise ValueError("uncertainty needs at least 2 masks and every_steps of at least 1")

    def is_due(self, step: int, steps: int) -> bool:
        """Whether it is measured after `step` of a rollout of `steps`, counted from 0; at the end it always is."""
        return (step + 1) % self.every_steps == 0 or step + 1 == steps


def disagreement(model: WorldModel, memory: Memory, latent: Tensor, masks: Tensor, reach_m: float) -> Tensor:
    """Mean over the vehicles near the ego of the variance of their forecast over dropout masks: `(batch,)`."""
    variance = model.uncertainty(memory, latent, masks)
    scene = memory.scene
    near = scene.valid & _near_ego(scene, reach_m)
    return (variance * near).sum(1) / near.sum(1).clamp_min(1)


def _near_ego(scene: TrafficState, reach_m: float) -> Tensor:
    distance = (scene.position_m - scene.position_m[:, :1]).detach().norm(dim=-1)
    near = distance < reach_m
    near[:, 0] = False
    return near


@dataclass(frozen=True)
class UncertaintyScale:
    """Mean and spread of the disagreement on recorded controls at each measured step of a rollout, `(measure,)`."""

    mean: Tensor
    spread: Tensor

    @classmethod
    def measured(cls, disagreements: Tensor) -> UncertaintyScale:
        """From `disagreements (sample, measure)` under recorded controls."""
        return cls(disagreements.mean(0), disagreements.std(0).clamp_min(1e-6))

    def cost(self, disagreements: Tensor, hinge: float) -> Tensor:
        """relu((U - mean_t) / spread_t - hinge) of `disagreements (batch, measure)`. Henaff et al. 2019, section 3.3.

        Grows logarithmically above ten spreads, so that one vehicle out of the known world doesn't own the gradient.
        """
        count = disagreements.shape[1]
        excess = ((disagreements - self.mean[:count]) / self.spread[:count] - hinge).clamp_min(0.0)
        return torch.where(excess < 10.0, excess, 10.0 + 10.0 * torch.log(excess.clamp_min(10.0) / 10.0))
