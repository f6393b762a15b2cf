"""The latent of the forecaster: posterior, prior, latent dropout and the information it may carry."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

Generators = torch.Generator | Sequence[torch.Generator] | None  # a list: one for each row of the batch


@dataclass(frozen=True)
class DiagonalNormal:
    """Independent normal variables; `log_variance` is clamped before anything is sampled from it."""

    mean: Tensor  # (..., latent)
    log_variance: Tensor  # (..., latent)

    @classmethod
    def of_parameters(cls, parameters: Tensor) -> DiagonalNormal:
        """Split `(..., 2 latent)` network outputs; the log-variance is bounded smoothly to (-8, 2)."""
        mean, raw = parameters.chunk(2, -1)
        return cls(mean, -3.0 + 5.0 * torch.tanh(raw / 5.0 + 0.6931471805599453))

    def after(self, prior: DiagonalNormal) -> DiagonalNormal:
        """This one in units of the `prior`'s spread, about the prior's mean."""
        spread = (prior.log_variance / 2).exp()
        return DiagonalNormal(prior.mean + spread * self.mean, prior.log_variance + self.log_variance)

    def at_temperature(self, temperature: float) -> DiagonalNormal:
        """With `temperature` times the standard deviation."""
        return DiagonalNormal(self.mean, self.log_variance + 2 * math.log(temperature))

    def sample(self, generator: Generators = None, period: int | None = None) -> Tensor:
        """A draw of every variable. With `period`, rows of the batch that are `period` apart share their noise.

        With a list of generators, each row of the batch has one of its own.
        """
        rows, *rest = self.mean.shape
        drawn = rows if period is None else period
        about: dict[str, Any] = {"dtype": self.mean.dtype, "device": self.mean.device}
        if isinstance(generator, Sequence):
            noise = torch.stack([torch.randn(*rest, generator=own, **about) for own in generator])
        else:
            noise = torch.randn(drawn, *rest, generator=generator, **about)
        if period is not None:
            noise = noise.repeat(rows // period, *(1 for _ in rest))
        return self.mean + (self.log_variance / 2).exp() * noise


def kl_divergence(posterior: DiagonalNormal, prior: DiagonalNormal) -> Tensor:
    """KL(posterior || prior) per dimension, in nats: `(..., latent)`. Kingma & Welling 2014, appendix B."""
    difference = (posterior.mean - prior.mean).square() / prior.log_variance.exp()
    ratio = posterior.log_variance - prior.log_variance
    return 0.5 * (ratio.exp() + difference - 1.0 - ratio)


def with_free_bits(kl_nats: Tensor, weight: Tensor, free_nats: float) -> Tensor:
    """Sum over dimensions of max(mean KL, free nats), the mean taken over samples of `kl_nats (..., latent)`.

    `weight (...)` is 1 for samples that count. Below the floor a dimension costs nothing, so that it is not
    switched off before the decoder has learned to use it. Kingma et al. 2016 (IAF), section on free bits.
    """
    weights = weight[..., None].to(kl_nats)
    mean = (kl_nats * weights).flatten(0, -2).sum(0) / weights.sum().clamp_min(1.0)
    return mean.clamp_min(free_nats).sum()


def drop_latent(
    latent: Tensor, prior: DiagonalNormal, probability: float, variant: str, generator: torch.Generator | None
) -> Tensor:
    """Latent dropout: with `probability`, one sample's latent does not come from the posterior.

    It is drawn per sample (here: per vehicle and step), never once for the batch, and replaced by zero (`zero`) or by
    a draw from the prior (`prior`). Henaff, Canziani, LeCun 2019 (arXiv 1901.02705), section 3.2.
    """
    if probability <= 0.0:
        return latent
    shape = (*latent.shape[:-1], 1)
    dropped = torch.rand(shape, generator=generator, device=latent.device) < probability
    replacement = torch.zeros_like(latent) if variant == "zero" else prior.sample(generator)
    return torch.where(dropped, replacement, latent)
