"""A joint embedding: the energy is how badly the past predicts what the future is embedded as."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from drivecast.worldmodel.energy_methods.coordinates import FutureCoordinates
from drivecast.worldmodel.energy_methods.method import Context, Examples, Method
from drivecast.worldmodel.energy_methods.networks import Looked, NetworkConfig, PastEncoder
from drivecast.worldmodel.energy_methods.surroundings import Surroundings
from drivecast.worldmodel.joint_embedding.objective import covariance_of_others, variance_shortfall


@dataclass(frozen=True)
class VICRegConfig:
    """Variance, invariance, covariance.

    Args:
        dims: Of the embedding.
        invariance: Weight of the prediction's error, that of the variance being 1.
        covariance: Weight of the covariances.
    """

    dims: int = 32
    invariance: float = 1.0
    covariance: float = 0.04

    def __post_init__(self) -> None:
        if self.dims < 2 or self.invariance <= 0.0 or self.covariance < 0.0:
            raise ValueError(f"vicreg: expected dims >= 2, invariance > 0, covariance >= 0; got {self}")


class TrafficEmbeddings(nn.Module):
    """The past with the others' motion predicts the embedding of the vehicle's own future.

    The future's side sees nothing but the future: given the others, it could embed those, which the past knows, too,
    and the energy would be low whatever the vehicle does.
    """

    def __init__(self, coordinates: FutureCoordinates, dims: int, config: NetworkConfig | None = None) -> None:
        super().__init__()
        config = config or NetworkConfig()
        hidden = config.hidden
        self.past = PastEncoder(config)
        self.to_prediction = nn.Sequential(nn.Linear(hidden, hidden), nn.SiLU(), nn.Linear(hidden, dims))
        self.to_embedding = nn.Sequential(
            nn.Linear(coordinates.dims, hidden),
            nn.SiLU(),
            nn.Linear(hidden, hidden),
            nn.SiLU(),
            nn.Linear(hidden, dims),
        )

    def look(self, past: Surroundings) -> Looked:
        return Looked(past, self.to_prediction(self.past(past)))

    def predicted(self, context: Looked) -> Tensor:
        """`(batch, dim)`."""
        return context.summary

    def embedded(self, future: Tensor) -> Tensor:
        """`(batch, sample, dim)` of `future (batch, sample, dim)`."""
        return self.to_embedding(future)


def regularised(embedding: Tensor, covariance_cost: float) -> Tensor:
    """Variance and covariance terms of `embedding (batch, dim)`. Bardes, Ponce, LeCun 2022 (VICReg), eqs. 1 to 4."""
    return variance_shortfall(embedding) + covariance_cost * covariance_of_others(embedding)


class JointEmbedding(Method):
    """E(x, y) = |P(x) - S(y)|² / dim, kept from collapsing by VICReg on both sides."""

    def __init__(self, networks: nn.Module, config: VICRegConfig) -> None:
        super().__init__()
        self.networks: Any = networks
        self.config = config

    def look(self, past: Any) -> Context:
        return self.networks.look(past)

    def energy(self, context: Context, future: Tensor) -> Tensor:
        off = self.networks.predicted(context)[:, None] - self.networks.embedded(future)
        return off.square().mean(-1)

    def loss(self, examples: Examples, rows: Tensor, generator: torch.Generator) -> Tensor:
        chosen = examples[rows]
        predicted = self.networks.predicted(self.look(chosen.past))
        embedded = self.networks.embedded(chosen.future[:, None])[:, 0]
        config = self.config
        kept = regularised(predicted, config.covariance) + regularised(embedded, config.covariance)
        return config.invariance * (predicted - embedded).square().mean() + kept
