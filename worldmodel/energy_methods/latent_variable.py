"""A latent of limited information: what the decoder reaches with few bits has a low free energy."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any, Protocol

import torch
from torch import Tensor, nn

from drivecast.worldmodel.energy_methods.coordinates import FutureCoordinates
from drivecast.worldmodel.energy_methods.method import Context, Examples, Method
from drivecast.worldmodel.energy_methods.networks import FutureEncoder, Looked, NetworkConfig, PastEncoder
from drivecast.worldmodel.energy_methods.surroundings import Surroundings

LEAST_LOG_SPREAD, MOST_LOG_SPREAD = -4.0, 2.0


@dataclass(frozen=True)
class LatentConfig:
    """The latent-variable model.

    Args:
        dims: Of the latent.
        information_cost: Weight of KL(q(z | x, y) | N(0, 1)) in training.
        search_steps: Of Adam, for the best latent.
        search_rate: Its learning rate.
        samples: Latents of F_beta.
    """

    dims: int = 8
    information_cost: float = 1.0
    search_steps: int = 20
    search_rate: float = 0.1
    samples: int = 16

    def __post_init__(self) -> None:
        if self.dims < 1 or self.information_cost <= 0.0 or self.samples < 1 or self.search_steps < 0:
            raise ValueError(f"latent: expected dims, samples >= 1, information_cost > 0; got {self}")


class LatentNetworks(Protocol):
    """The three parts; several futures or latents of each context, `(batch, sample, ...)`."""

    log_spread: Tensor  # (dim,) of what the decoder misses

    def look(self, past: Any) -> Context: ...
    def posterior(self, context: Context, future: Tensor) -> tuple[Tensor, Tensor]: ...
    def decoded(self, context: Context, latent: Tensor) -> Tensor: ...


class TrafficLatentNetworks(nn.Module):
    """The encoders of the energy network, with a posterior and a decoder in place of its judge."""

    def __init__(self, coordinates: FutureCoordinates, latent_dims: int, config: NetworkConfig | None = None) -> None:
        super().__init__()
        config = config or NetworkConfig()
        hidden = config.hidden
        self.past, self.future = PastEncoder(config), FutureEncoder(coordinates, config)
        self.to_latent = nn.Sequential(nn.Linear(2 * hidden, hidden), nn.SiLU(), nn.Linear(hidden, 2 * latent_dims))
        self.to_future = nn.Sequential(
            nn.Linear(hidden + latent_dims, hidden),
            nn.SiLU(),
            nn.Linear(hidden, hidden),
            nn.SiLU(),
            nn.Linear(hidden, coordinates.dims),
        )
        self.log_spread = nn.Parameter(torch.zeros(coordinates.dims))

    def look(self, past: Surroundings) -> Looked:
        return Looked(past, self.past(past))

    def posterior(self, context: Looked, future: Tensor) -> tuple[Tensor, Tensor]:
        seen = self.future(context.past, future)
        summary = context.summary[:, None].expand(*seen.shape[:2], -1)
        mean, log_spread = self.to_latent(torch.cat([summary, seen], -1)).chunk(2, -1)
        return mean, log_spread.clamp(LEAST_LOG_SPREAD, MOST_LOG_SPREAD)

    def decoded(self, context: Looked, latent: Tensor) -> Tensor:
        summary = context.summary[:, None].expand(*latent.shape[:2], -1)
        return self.to_future(torch.cat([summary, latent], -1))


class LatentVariable(Method):
    """E(x, y, z) = sum over dims of (y - D(x, z))² / 2 s² + log s, + |z|² / 2; a conditional VAE trains D and s.

    Its free energies: F_inf = min over z of E, and F_beta = -1/beta log integral exp(-beta E) dz up to a constant.
    LeCun 2022, "A path towards autonomous machine intelligence", section 4.3; Kingma & Welling 2014.
    """

    def __init__(self, networks: nn.Module, config: LatentConfig) -> None:
        super().__init__()
        self.networks: Any = networks
        self.config = config

    def look(self, past: Any) -> Context:
        return self.networks.look(past)

    def loss(self, examples: Examples, rows: Tensor, generator: torch.Generator) -> Tensor:
        chosen = examples[rows]
        context, future = self.look(chosen.past), chosen.future[:, None]
        mean, log_spread = self.networks.posterior(context, future)
        latent = mean + log_spread.exp() * torch.randn(mean.shape, generator=generator)
        information = (mean.square() + (2 * log_spread).exp() - 1.0).sum(-1) / 2 - log_spread.sum(-1)
        missed = self._missed(context, future, latent)
        return (missed + self.config.information_cost * information).mean()

    def energy_with(self, context: Context, future: Tensor, latent: Tensor) -> Tensor:
        """E, `(batch, sample)`, of `future (batch, sample, dim)` with `latent (batch, sample, latent)`."""
        return self._missed(context, future, latent) + latent.square().sum(-1) / 2

    def energy(self, context: Context, future: Tensor) -> Tensor:
        """F_inf: the search ends where it was lowest. Differentiable in the future, the latents held (Danskin)."""
        latent = self.best_latent(context, future.detach())
        return self.energy_with(context, future, latent)

    def best_latent(self, context: Context, future: Tensor) -> Tensor:
        """The z of least E that Adam finds, from the posterior's mean and from zero, `(batch, sample, latent)`."""
        with torch.no_grad():
            mean, _ = self.networks.posterior(context, future)
        best, lowest = torch.zeros_like(mean), torch.full(mean.shape[:2], torch.inf)
        for start in (mean, torch.zeros_like(mean)):
            latent = start.clone().requires_grad_(True)
            optimizer = torch.optim.Adam([latent], lr=self.config.search_rate)
            for step in range(self.config.search_steps + 1):
                with torch.enable_grad():
                    energy = self.energy_with(context, future, latent)
                    gradient = torch.autograd.grad(energy.sum(), latent)[0]
                lower = energy.detach() < lowest
                lowest = torch.where(lower, energy.detach(), lowest)
                best = torch.where(lower[..., None], latent.detach(), best)
                if step < self.config.search_steps:
                    latent.grad = gradient
                    optimizer.step()
        return best

    def free_energy(
        self, context: Context, future: Tensor, generator: torch.Generator, beta: float = 1.0, samples: int = 0
    ) -> Tensor:
        """F_beta, `(batch, sample)`, by importance sampling from the posterior."""
        count = samples or self.config.samples
        mean, log_spread = self.networks.posterior(context, future)
        found = []
        for _ in range(count):
            noise = torch.randn(mean.shape, generator=generator)
            latent = mean + log_spread.exp() * noise
            log_drawn = -(noise.square() / 2 + log_spread + 0.5 * math.log(2 * math.pi)).sum(-1)
            found.append(-beta * self.energy_with(context, future, latent) - log_drawn)
        return -(torch.logsumexp(torch.stack(found), 0) - math.log(count)) / beta

    def samples(self, context: Context, count: int, batch: int, generator: torch.Generator) -> Tensor:
        """What the decoder makes of latents from N(0, 1): `(batch, count, dim)`; what it misses is left out."""
        latent = torch.randn(batch, count, self.config.dims, generator=generator)
        return self.networks.decoded(context, latent)

    def _missed(self, context: Context, future: Tensor, latent: Tensor) -> Tensor:
        log_spread = self.networks.log_spread.clamp_min(LEAST_LOG_SPREAD)
        off = (future - self.networks.decoded(context, latent)) * (-log_spread).exp()
        return (off.square() / 2 + log_spread).sum(-1)
