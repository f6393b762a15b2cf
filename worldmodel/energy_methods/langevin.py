"""Samples of exp(-E / T) by Langevin dynamics."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor


@dataclass(frozen=True)
class LangevinConfig:
    """Of u, whose covariance is about 1 over the data.

    Args:
        steps: How many.
        step_size: Of the first step; s below.
        last_step_size: Of the last one; they fall geometrically.
        clip: Largest norm of s grad E / T of one step.
    """

    steps: int = 10
    step_size: float = 0.05
    last_step_size: float | None = None
    clip: float = 1.0

    def __post_init__(self) -> None:
        if self.steps < 0 or self.step_size <= 0.0 or self.clip <= 0.0:
            raise ValueError(f"langevin: expected steps >= 0, step_size and clip > 0; got {self}")

    def size_of(self, step: int) -> float:
        """s of a step."""
        last = self.step_size if self.last_step_size is None else self.last_step_size
        return self.step_size * (last / self.step_size) ** (step / max(self.steps - 1, 1))


def langevin(
    energy: Callable[[Tensor], Tensor],
    start: Tensor,
    config: LangevinConfig,
    generator: torch.Generator,
    temperature: float = 1.0,
) -> Tensor:
    """u' = u - s grad E(u) / T + sqrt(2 s) noise, from `start (batch, sample, dim)`; nothing flows back through it.

    Welling & Teh 2011, "Bayesian learning via stochastic gradient Langevin dynamics", without its minibatches.
    """
    found = start.detach()
    for step in range(config.steps):
        size = config.size_of(step)
        with torch.enable_grad():
            leaf = found.requires_grad_(True)
            gradient = torch.autograd.grad(energy(leaf).sum(), leaf)[0]
        move = gradient * (size / temperature)
        length = move.norm(dim=-1, keepdim=True)
        move = move * (config.clip / length.clamp_min(config.clip))
        noise = torch.randn(found.shape, generator=generator, dtype=found.dtype)
        found = (leaf - move).detach() + (2 * size) ** 0.5 * noise
    return found
