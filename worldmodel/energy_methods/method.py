"""What every method has in common: examples in, an energy out."""

from __future__ import annotations

from abc import abstractmethod
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

# a `Looked` of the traffic networks; in tests anything that can be indexed by rows
Context = Any


@dataclass(frozen=True)
class Examples:
    """Pasts with the future that followed each.

    Attributes:
        past: `Surroundings (example,)`, or anything that can be indexed by rows.
        future: `(example, dim)`.
    """

    past: Any
    future: Tensor

    def __len__(self) -> int:
        return len(self.future)

    def __getitem__(self, rows: Tensor) -> Examples:
        return Examples(self.past[rows], self.future[rows])


class Method(nn.Module):
    """One way to train an energy of futures given pasts."""

    @abstractmethod
    def look(self, past: Any) -> Context:
        """What energies are computed from: once for all futures of each past."""

    @abstractmethod
    def energy(self, context: Context, future: Tensor) -> Tensor:
        """`(batch, sample)` of `future (batch, sample, dim)`, low where it goes with the past."""

    @abstractmethod
    def loss(self, examples: Examples, rows: Tensor, generator: torch.Generator) -> Tensor:
        """The loss of a step; `rows` were drawn for it. One that keeps a pool of its own fills it up with these."""


class EnergyMethod(Method):
    """One whose network is the energy itself."""

    def __init__(self, network: nn.Module) -> None:
        super().__init__()
        self.network = network

    def look(self, past: Any) -> Context:
        return self.network.look(past)  # type: ignore[operator]

    def energy(self, context: Context, future: Tensor) -> Tensor:
        return self.network(context, future)
