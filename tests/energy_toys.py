"""Small problems with known answers, and small networks for them."""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn

from drivecast.worldmodel.energy_methods.method import Examples


class SmallEnergy(nn.Module):
    """E(x, y) of a past x `(batch, 1)` and futures y, both plain tensors."""

    def __init__(self, dims: int = 2, hidden: int = 32, seed: int = 0) -> None:
        super().__init__()
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            self.layers = nn.Sequential(
                nn.Linear(1 + dims, hidden), nn.SiLU(), nn.Linear(hidden, hidden), nn.SiLU(), nn.Linear(hidden, 1)
            )

    def look(self, past: Tensor) -> Tensor:
        return past

    def forward(self, context: Tensor, future: Tensor) -> Tensor:
        context = context[:, None].expand(*future.shape[:2], 1)
        return self.layers(torch.cat([context, future], -1))[..., 0]


class SmallLatent(nn.Module):
    """A latent of one number, which the decoder turns into a curve in the plane."""

    def __init__(self, dims: int = 2, latent: int = 1, seed: int = 0) -> None:
        super().__init__()
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            self.to_latent = nn.Sequential(nn.Linear(1 + dims, 64), nn.SiLU(), nn.Linear(64, 2 * latent))
            self.to_future = nn.Sequential(nn.Linear(1 + latent, 64), nn.SiLU(), nn.Linear(64, dims))
        self.log_spread = nn.Parameter(torch.zeros(dims))

    def look(self, past: Tensor) -> Tensor:
        return past

    def posterior(self, context: Tensor, future: Tensor) -> tuple[Tensor, Tensor]:
        context = context[:, None].expand(*future.shape[:2], 1)
        mean, log_spread = self.to_latent(torch.cat([context, future], -1)).chunk(2, -1)
        return mean, log_spread.clamp(-4.0, 2.0)

    def decoded(self, context: Tensor, latent: Tensor) -> Tensor:
        return self.to_future(torch.cat([context[:, None].expand(*latent.shape[:2], 1), latent], -1))


class SmallEmbeddings(nn.Module):
    """Embeddings of a past of one number and a future."""

    def __init__(self, dims: int = 2, embedding: int = 4, seed: int = 0) -> None:
        super().__init__()
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            self.past = nn.Sequential(nn.Linear(1, 64), nn.SiLU(), nn.Linear(64, embedding))
            self.future = nn.Sequential(nn.Linear(dims, 64), nn.SiLU(), nn.Linear(64, embedding))

    def look(self, past: Tensor) -> Tensor:
        return past

    def predicted(self, context: Tensor) -> Tensor:
        return self.past(context)

    def embedded(self, future: Tensor) -> Tensor:
        return self.future(future)


def ring(count: int = 4000, seed: int = 0, width: float = 0.1) -> Examples:
    """Futures on a circle of radius 1, whatever the past."""
    generator = torch.Generator().manual_seed(seed)
    angle = 2 * math.pi * torch.rand(count, generator=generator)
    radius = 1.0 + width * torch.randn(count, generator=generator)
    return Examples(torch.zeros(count, 1), torch.stack([radius * angle.cos(), radius * angle.sin()], -1))


def off_ring(count: int = 500, seed: int = 1) -> Tensor:
    """`(1, point, 2)`: inside it and outside, by 0.5 and more, to 1.8."""
    generator = torch.Generator().manual_seed(seed)
    angle = 2 * math.pi * torch.rand(count, generator=generator)
    radius = torch.where(
        torch.rand(count, generator=generator) < 0.5,
        0.5 * torch.rand(count, generator=generator),
        1.5 + 0.3 * torch.rand(count, generator=generator),
    )
    return torch.stack([radius * angle.cos(), radius * angle.sin()], -1)[None]


LINE_COVARIANCE = torch.tensor([[1.0, 1.0], [1.0, 1.0]]) + 0.04 * torch.eye(2)


def line(count: int = 4000, seed: int = 0) -> Examples:
    """A Gaussian with `LINE_COVARIANCE`: spread along the diagonal, 0.2 across it."""
    generator = torch.Generator().manual_seed(seed)
    along = torch.randn(count, 1, generator=generator)
    return Examples(torch.zeros(count, 1), along + 0.2 * torch.randn(count, 2, generator=generator))


def moved_by_past(count: int = 4000, seed: int = 0) -> Examples:
    """A future of 2 x ± 0.2, and noise: it says which past x it belongs to."""
    generator = torch.Generator().manual_seed(seed)
    past = torch.randn(count, 1, generator=generator)
    noise = torch.randn(count, 2, generator=generator)
    return Examples(past, torch.stack([2 * past[:, 0] + 0.2 * noise[:, 0], noise[:, 1]], -1))
