"""Contrasts with futures that did not follow: InfoNCE over all of them, a margin to the most offending one."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor, nn

from drivecast.worldmodel.energy_methods.method import EnergyMethod, Examples


@dataclass(frozen=True)
class NegativesConfig:
    """What a future is told from, for both methods: the futures of other pasts, and its own with noise.

    Args:
        others: Futures of other pasts of the batch.
        noised: Copies of its own with Gaussian noise.
        spread: Of that noise, in units of the data's own.
    """

    others: int = 6
    noised: int = 6
    spread: float = 0.5

    def __post_init__(self) -> None:
        if self.others < 0 or self.noised < 0 or self.others + self.noised < 1 or self.spread <= 0.0:
            raise ValueError(f"negatives: expected some, and a spread above zero; got {self}")

    def drawn(self, future: Tensor, generator: torch.Generator) -> Tensor:
        """`(batch, others + noised, dim)` for `future (batch, dim)`; no example is its own other."""
        batch = len(future)
        if batch < 2 and self.others:
            raise ValueError("negatives: expected at least 2 examples of which one is the other's negative, got 1")
        shift = torch.randint(1, max(batch, 2), (batch, self.others), generator=generator)
        others = future[(torch.arange(batch)[:, None] + shift) % batch]
        noise = torch.randn(batch, self.noised, future.shape[1], generator=generator)
        return torch.cat([others, future[:, None] + self.spread * noise], 1)


class InfoNCE(EnergyMethod):
    """-log exp(-E(x, y)) / sum over y' of exp(-E(x, y')), y' the future itself and its negatives.

    At the optimum E = -log p(y | x) / q(y) up to a constant of x, q being what negatives are drawn from: nothing is
    learned of where neither data nor negatives are. van den Oord et al. 2018 (arXiv 1807.03748), eq. 4.
    """

    def __init__(self, network: nn.Module, negatives: NegativesConfig) -> None:
        super().__init__(network)
        self.negatives = negatives

    def loss(self, examples: Examples, rows: Tensor, generator: torch.Generator) -> Tensor:
        chosen = examples[rows]
        compared = torch.cat([chosen.future[:, None], self.negatives.drawn(chosen.future, generator)], 1)
        energy = self.energy(self.look(chosen.past), compared)
        return torch.nn.functional.cross_entropy(-energy, torch.zeros(len(rows), dtype=torch.long))


class Margin(EnergyMethod):
    """[m + E(x, y) - min over y' of E(x, y')]_+: the most offending of the same negatives is to lie higher by m.

    LeCun et al. 2006, "A tutorial on energy-based learning", eq. 11 (hinge loss).
    """

    def __init__(self, network: nn.Module, negatives: NegativesConfig, margin: float) -> None:
        super().__init__(network)
        if margin <= 0.0:
            raise ValueError(f"margin: expected more than 0, got {margin}")
        self.negatives, self.margin = negatives, margin

    def loss(self, examples: Examples, rows: Tensor, generator: torch.Generator) -> Tensor:
        chosen = examples[rows]
        compared = torch.cat([chosen.future[:, None], self.negatives.drawn(chosen.future, generator)], 1)
        energy = self.energy(self.look(chosen.past), compared)
        return (self.margin + energy[:, 0] - energy[:, 1:].amin(1)).clamp_min(0.0).mean()
