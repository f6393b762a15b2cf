"""What a world model says of the ego's motion, as a term of the energy."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from drivecast.planner.costs.trajectory import Trajectory
from drivecast.worldmodel.energy.model_energy import ModelEnergy


@dataclass(frozen=True)
class Unlikely:
    """The world model's energy of what the ego does, the others moving as they do: low where people drive so.

    Of the energies under different latents it is that under the posterior's mean, an upper bound of the free energy
    that takes one rollout instead of a search.

    Args:
        energy: The world model's, frozen.
    """

    energy: ModelEnergy

    def __call__(self, trajectory: Trajectory) -> Tensor | None:
        """`(batch, time)`; None where the trajectory has no past."""
        if trajectory.past is None:
            return None
        others = torch.ones_like(trajectory.past.valid[:, -1])
        others[:, 0] = False
        return self.energy.over_time(trajectory.past, trajectory.road, trajectory.states, others)[..., 0]
