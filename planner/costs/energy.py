"""The cost energy: one weighted sum of named terms, weighted in this one place."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from functools import partial
from typing import Protocol

import torch
from torch import Tensor

from drivecast.planner.costs import terms as costs
from drivecast.planner.costs.trajectory import Trajectory


class Score(Protocol):
    """Anything that scores a trajectory: a driving cost, a world model's energy, its uncertainty, a learned concept."""

    def __call__(self, trajectory: Trajectory) -> Tensor | None:
        """Unreduced, `(batch, time)`, differentiable in the trajectory, low on what is good.

        None: this trajectory lacks what it takes to say anything, such as a past.
        """
        ...


@dataclass(frozen=True)
class Term:
    """A score with its name and its weight in the sum.

    Raises `ValueError` where the weight is negative.
    """

    name: str
    score: Score
    weight: float

    def __post_init__(self) -> None:
        if self.weight < 0.0:
            raise ValueError(f"weight {self.name} must not be negative, but is {self.weight}")


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
        imposed: Braking asked of those who come from behind.
        unlikely: Driving as the world model holds nobody would: its energy of the ego's motion. Imagined rollouts only.
    """

    proximity: float = 4.0
    lane: float = 0.2
    off_road: float = 2.0
    speed: float = 0.4
    comfort: float = 0.05
    uncertainty: float = 0.1
    imposed: float = 0.0
    unlikely: float = 0.0

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


# of who keeps the room that is needed, not the room that is comfortable, and asks nothing of those behind
PLANNING_ENERGY = EnergyConfig(
    weights=EnergyWeights(proximity=1.0, lane=0.05, comfort=0.15, imposed=0.5, uncertainty=0.0),
    proximity=costs.ProximityConfig(standstill_m=2.0, headway_s=0.2, braking_mps2=5.0),
    discount=1.0,
)


class Energy:
    """E(trajectory) = sum over time of discount^t times the weighted sum of all terms.

    Args:
        config: Weights and shapes of the driving costs.
        more: Terms beside them; a name that stands already replaces that term.
    """

    def __init__(self, config: EnergyConfig, more: Sequence[Term] = ()) -> None:
        self.config = config
        weights = config.weights
        driving = [
            Term("proximity", partial(costs.proximity, config=config.proximity), weights.proximity),
            Term("lane", costs.lane, weights.lane),
            Term("off_road", costs.off_road, weights.off_road),
            Term("speed", costs.speed, weights.speed),
            Term("comfort", costs.comfort, weights.comfort),
            Term("imposed", costs.imposed, weights.imposed),
            Term("uncertainty", lambda trajectory: trajectory.uncertainty, weights.uncertainty),
        ]
        self.summed = {term.name: term for term in (*driving, *more)}

    def terms(self, trajectory: Trajectory) -> dict[str, Tensor]:
        """Weighted cost of each term with a positive weight, unreduced: `(batch, time)`.

        Raises `ValueError` where a score has another shape.
        """
        found = {}
        for term in self.summed.values():
            if term.weight == 0.0:
                continue
            score = term.score(trajectory)
            if score is None:
                continue
            if score.shape != trajectory.controls.acceleration_mps2.shape:
                expected = tuple(trajectory.controls.acceleration_mps2.shape)
                raise ValueError(f"{term.name}: expected a cost (batch, time) of {expected}, got {tuple(score.shape)}")
            found[term.name] = term.weight * score
        return found

    def total(self, terms: Mapping[str, Tensor]) -> Tensor:
        """Discounted mean over time of the sum of the terms: `(batch,)`."""
        summed = torch.stack(list(terms.values())).sum(0)  # (batch, time)
        steps = torch.arange(summed.shape[1], device=summed.device, dtype=summed.dtype)
        discounts = self.config.discount**steps
        return (summed * discounts).sum(1) / discounts.sum()
