"""Trains any of the methods. It takes seconds, so it is not resumable: who stops it starts it again."""

from __future__ import annotations

import math
import time
from dataclasses import dataclass

import torch

from drivecast.worldmodel.energy_methods.method import Examples, Method
from drivecast.worldmodel.training.optimisation import learning_rate_share

WARMUP = 50  # steps


@dataclass(frozen=True)
class MethodTrainingConfig:
    """The optimisation, the same for all methods but for the number of steps.

    Args:
        steps: Of the optimiser.
        batch: Examples of each.
        learning_rate: Peak of the Adam learning rate.
        gradient_clip: Largest norm of the gradient.
    """

    steps: int = 1000
    batch: int = 64
    learning_rate: float = 2e-3
    gradient_clip: float = 5.0

    def __post_init__(self) -> None:
        if self.steps < 1 or self.batch < 2 or self.learning_rate <= 0.0 or self.gradient_clip <= 0.0:
            raise ValueError(f"training: expected steps >= 1, batch >= 2 and positive rates; got {self}")


@dataclass(frozen=True)
class Trained:
    """How a training went.

    Attributes:
        losses: Of each step.
        seconds: Of one core.
        diverged: It was stopped at a loss that is not finite.
    """

    losses: tuple[float, ...]
    seconds: float
    diverged: bool


def train(method: Method, examples: Examples, config: MethodTrainingConfig, seed: int = 0) -> Trained:
    """Adam on `method`, in place; batches and noise from `seed`, the weights are what they were."""
    generator = torch.Generator().manual_seed(seed)
    optimizer = torch.optim.Adam(method.parameters(), lr=config.learning_rate)
    began, losses = time.process_time(), []
    for step in range(config.steps):
        for group in optimizer.param_groups:
            group["lr"] = config.learning_rate * learning_rate_share(step, config.steps, WARMUP, WARMUP)
        rows = torch.randint(len(examples), (config.batch,), generator=generator)
        loss = method.loss(examples, rows, generator)
        losses.append(float(loss.detach()))
        if not math.isfinite(losses[-1]):
            return Trained(tuple(losses), time.process_time() - began, True)
        optimizer.zero_grad(set_to_none=True)
        loss.backward()
        torch.nn.utils.clip_grad_norm_(method.parameters(), config.gradient_clip)
        optimizer.step()
    method.requires_grad_(False)
    return Trained(tuple(losses), time.process_time() - began, False)
