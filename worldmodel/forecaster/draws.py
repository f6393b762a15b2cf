"""Latents of a rollout, stretch by stretch, from the prior."""

from __future__ import annotations

import torch
from torch import Tensor

from drivecast.worldmodel.forecaster.model import Memory, WorldModel


class LatentDraws:
    """The latents of one rollout: drawn from the prior, or the likeliest ones.

    Args:
        model: The world model.
        sample: Draw; otherwise hold the prior's mean.
        generator: Source of randomness.
        period: Rows of the batch that are so far apart share their noise.
    """

    def __init__(
        self, model: WorldModel, sample: bool, generator: torch.Generator | None = None, period: int | None = None
    ) -> None:
        self.model, self.is_sampled, self.generator, self.period = model, sample, generator, period
        self._latent: Tensor | None = None

    def at(self, step: int, memory: Memory) -> Tensor:
        """The latent `(batch, agent, latent)` of step `step`; steps are asked for one by one, from 0."""
        if self._latent is None or (self.model.config.latent_dims and step % self.model.config.latent_hold_steps == 0):
            prior = self.model.prior(memory, self._latent)
            self._latent = prior.sample(self.generator, self.period) if self.is_sampled else prior.mean
        return self._latent
