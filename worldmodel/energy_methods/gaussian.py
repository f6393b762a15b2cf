"""What needs no training: futures as likely as a Gaussian has them, whatever the past."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from drivecast.worldmodel.energy_methods.method import Context, Examples, Method


class GaussianEnergy(Method):
    """E = |u|² / 2: the distance from constant velocity, in units of how far others are from theirs. A yardstick."""

    def look(self, past: Any) -> Context:
        return past

    def energy(self, context: Context, future: Tensor) -> Tensor:
        return future.square().sum(-1) / 2

    def loss(self, examples: Examples, rows: Tensor, generator: torch.Generator) -> Tensor:
        """Of nothing that could be learned."""
        return self.energy(None, examples.future[rows]).mean()
