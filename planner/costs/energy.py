"""The cost energy: one weighted sum of named terms, weighted in this one place."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field

import torch
from torch import Tensor

from drivecast.planner.costs import terms as costs
from drivecast.planner.costs.trajectory import Trajectory


@dataclass(frozen=True)
class EnergyWeights:
    """Weight of each cost term in the energy.

    Args:
        proximity: Room to the vehicles around.
        lane: Distance from the lane's centre.
        off_road: Leaving the road.
        speed: Distance from the desired speed.
        comfort: Acceleration, jerk and lateral acceleration.
        uncertainty: Leaving what the world model knows.
    """

    proximity: float = 4.0
    lane: float = 0.2
    off_road: float = 2.0
    speed: float = 0.4
    comfort: float = 0.05
    uncertainty: float = 0.1

    def __post_init__(self) -> None:
        for name, weight in asdict(self).items():
            if weight < 0.0:
                raise ValueError(f"weight {name} must not be negative, but is {weight}")


@dataclass(frozen=True)
class EnergyConfig:
    """The energy.

    Args:
        weights: Weights of its terms.
        proximity: Shape of the proximity term.
        discount: Factor by which each further step counts less.
    """

    weights: EnergyWeights = field(default_factory=EnergyWeights)
    proximity: costs.ProximityConfig = field(default_factory=costs.ProximityConfig)
    discount: float = 0.99

    def __post_init__(self) -> None:
        if not 0.0 < self.discount <= 1.0:
            raise ValueError(f"discount must lie in (0, 1], not {self.discount}")


class Energy:
    """E(trajectory) = sum over time of discount^t times the weighted sum of the cost terms."""

    def __init__(self, config: EnergyConfig) -> None:
        self.config = config

    def terms(self, trajectory: Trajectory) -> dict[str, Tensor]:
        """Weighted cost of each term with a positive weight, unreduced: `(batch, time)`."""
        weights = self.config.weights
        uncertainty = trajectory.uncertainty
        terms = {
            "proximity": lambda: costs.proximity(trajectory, self.config.proximity),
            "lane": lambda: costs.lane(trajectory),
            "off_road": lambda: costs.off_road(trajectory),
            "speed": lambda: costs.speed(trajectory),
            "comfort": lambda: costs.comfort(trajectory),
        }
        if uncertainty is not None:
            terms["uncertainty"] = lambda: uncertainty
        return {name: getattr(weights, name) * term() for name, term in terms.items() if getattr(weights, name) > 0.0}

    def total(self, terms: Mapping[str, Tensor]) -> Tensor:
        """Discounted mean over time of the sum of the terms: `(batch,)`."""
        summed = torch.stack(list(terms.values())).sum(0)  # (batch, time)
        steps = torch.arange(summed.shape[1], device=summed.device, dtype=summed.dtype)
        discounts = self.config.discount**steps
        return (summed * discounts).sum(1) / discounts.sum()
