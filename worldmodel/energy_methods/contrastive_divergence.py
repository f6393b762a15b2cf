"""Contrastive divergence: negatives are where Langevin steps lead, from the data or from where they were before."""

from __future__ import annotations

from dataclasses import dataclass, field

import torch
from torch import Tensor, nn

from drivecast.worldmodel.energy_methods.langevin import LangevinConfig, langevin
from drivecast.worldmodel.energy_methods.method import EnergyMethod, Examples


@dataclass(frozen=True)
class DivergenceConfig:
    """Contrastive divergence.

    Args:
        langevin: The k steps of the sampler.
        size_cost: Weight of the squares of energies: their level is free otherwise, and runs away.
        renewed: Share of persistent chains that begin anew after a step, each with another past.
        chains: How many persistent chains there are.
    """

    langevin: LangevinConfig = field(default_factory=LangevinConfig)
    size_cost: float = 0.01
    renewed: float = 0.1
    chains: int = 512

    def __post_init__(self) -> None:
        if self.size_cost < 0.0 or not 0.0 < self.renewed <= 1.0 or self.chains < 1:
            raise ValueError(f"divergence: expected size_cost >= 0, renewed in (0, 1], chains >= 1; got {self}")


def divergence(positive: Tensor, negative: Tensor, size_cost: float) -> Tensor:
    """mean E(data) - mean E(samples) + size_cost (E(data)² + E(samples)²). Du & Mordatch 2019 (arXiv 1903.08689)."""
    size = positive.square().mean() + negative.square().mean()
    return positive.mean() - negative.mean() + size_cost * size


class ContrastiveDivergence(EnergyMethod):
    """CD-k: the sampler starts from the data. Hinton 2002, "Training products of experts", section 3.

    Nothing flows back through the samples.
    """

    def __init__(self, network: nn.Module, config: DivergenceConfig) -> None:
        super().__init__(network)
        self.config = config

    def loss(self, examples: Examples, rows: Tensor, generator: torch.Generator) -> Tensor:
        chosen = examples[rows]
        context = self.look(chosen.past)
        samples = self.sampled(chosen.past, chosen.future[:, None], generator)
        energy = self.energy(context, torch.cat([chosen.future[:, None], samples], 1))
        return divergence(energy[:, 0], energy[:, 1], self.config.size_cost)

    def sampled(self, past: object, start: Tensor, generator: torch.Generator) -> Tensor:
        """Where k steps lead from `start (batch, sample, dim)`."""
        with torch.no_grad():
            context = self.look(past)
        return langevin(lambda future: self.energy(context, future), start, self.config.langevin, generator)


class PersistentDivergence(ContrastiveDivergence):
    """PCD: chains go on where they were, each with its past, until it is renewed from N(0, 1). Tieleman 2008.

    The data of a step are the futures of the chains' own pasts, so both terms have the same pasts.
    """

    def __init__(self, network: nn.Module, config: DivergenceConfig) -> None:
        super().__init__(network, config)
        self._rows: Tensor | None = None  # (chain,)
        self._chains = torch.zeros(0)  # (chain, dim)

    def loss(self, examples: Examples, rows: Tensor, generator: torch.Generator) -> Tensor:
        if self._rows is None:
            self._rows = torch.randint(len(examples), (self.config.chains,), generator=generator)
            self._chains = torch.randn(self.config.chains, examples.future.shape[1], generator=generator)
        picked = torch.randperm(self.config.chains, generator=generator)[: len(rows)]
        chosen = examples[self._rows[picked]]
        samples = self.sampled(chosen.past, self._chains[picked][:, None], generator)
        self._go_on(picked, rows[: len(picked)], samples[:, 0], generator)
        energy = self.energy(self.look(chosen.past), torch.cat([chosen.future[:, None], samples], 1))
        return divergence(energy[:, 0], energy[:, 1], self.config.size_cost)

    def _go_on(self, picked: Tensor, rows: Tensor, reached: Tensor, generator: torch.Generator) -> None:
        assert self._rows is not None
        anew = torch.rand(len(picked), generator=generator) < self.config.renewed
        fresh = torch.randn(reached.shape, generator=generator)
        self._chains[picked] = torch.where(anew[:, None], fresh, reached)
        self._rows[picked] = torch.where(anew, rows, self._rows[picked])
