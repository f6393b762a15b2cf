"""Latents of a rollout, stretch by stretch, from the prior at the model's temperature."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from drivecast.worldmodel.forecaster.latent import DiagonalNormal, Generators
from drivecast.worldmodel.forecaster.model import Memory, WorldModel


class LatentDraws:
    """The latents of one rollout: drawn from the prior, or the likeliest ones.

    Args:
        model: The world model.
        sample: Draw; otherwise hold the prior's mean.
        generator: Source of randomness; or one for each row of the batch, whose draws then do not depend on the others.
        period: Rows of the batch that are so far apart share their noise.
    """

    def __init__(
        self, model: WorldModel, sample: bool, generator: Generators = None, period: int | None = None
    ) -> None:
        self.model, self.is_sampled, self.generator, self.period = model, sample, generator, period
        self._latent: Tensor | None = None

    def at(self, step: int, memory: Memory) -> Tensor:
        """The latent `(batch, agent, latent)` of step `step`; steps are asked for one by one, from 0."""
        if self._latent is None or (self.model.config.latent_dims and step % self.model.config.latent_hold_steps == 0):
            prior = self._prior(memory, self._latent)
            self._latent = prior.sample(self.generator, self.period) if self.is_sampled else prior.mean
        return self._latent

    def _prior(self, memory: Memory, last: Tensor | None) -> DiagonalNormal:
        return self.model.prior(memory, last).at_temperature(self.model.config.temperature)

    def begin(self, rows: Tensor, agents: Tensor, memory: Memory) -> Tensor:
        """The latent with one of their own for vehicles that are new: `agents[i]` of the batch's row `rows[i]`.

        Where each row has its own generator, rows that are not named draw nothing. Called after `at`, in any step.
        """
        if self._latent is None:
            raise RuntimeError("begin: expected to be called after `at`")
        own = self.generator
        if isinstance(own, Sequence):
            own = [own[row] for row in rows.tolist()]
        prior = self._prior(memory[rows], None)
        first = prior.sample(own) if self.is_sampled else prior.mean
        self._latent = self._latent.clone()
        self._latent[rows, agents] = first[torch.arange(len(rows), device=rows.device), agents]
        return self._latent

    def picked(self, rows: Tensor) -> LatentDraws:
        """Draws that go on for `rows` of these, from the same source of randomness."""
        draws = LatentDraws(self.model, self.is_sampled, self.generator, self.period)
        draws._latent = None if self._latent is None else self._latent[rows]
        return draws
