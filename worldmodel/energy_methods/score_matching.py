"""Denoising score matching: the energy's gradient points back from noise to the data."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from drivecast.worldmodel.energy_methods.method import EnergyMethod, Examples


class DenoisingScoreMatching(EnergyMethod):
    """mean |noise - spread grad E(y + spread noise)|² / 2: y' - spread² grad E(y') is a denoising autoencoder.

    At the optimum exp(-E) is the data's density blurred by the noise. Vincent 2011, "A connection between score
    matching and denoising autoencoders", eq. 11.
    """

    def __init__(self, network: nn.Module, spread: float) -> None:
        super().__init__(network)
        if spread <= 0.0:
            raise ValueError(f"spread: expected more than 0, got {spread}")
        self.spread = spread

    def loss(self, examples: Examples, rows: Tensor, generator: torch.Generator) -> Tensor:
        chosen = examples[rows]
        noise = torch.randn(chosen.future.shape, generator=generator, dtype=chosen.future.dtype)
        noised = (chosen.future + self.spread * noise)[:, None].requires_grad_(True)
        energy = self.energy(self.look(chosen.past), noised)
        gradient = torch.autograd.grad(energy.sum(), noised, create_graph=True)[0][:, 0]
        return (noise - self.spread * gradient).square().sum(1).mean() / 2
