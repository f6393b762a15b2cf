"""Energies of lanes, foretold: what a search in imagination would find each of them to cost, in one pass."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from drivecast.planner.manoeuvres.open_lanes import lanes_open
from drivecast.planner.policy.lane_view import VIEW_SIZE, lane_view
from drivecast.worldmodel.scene.road import NO_LANE, Road
from drivecast.worldmodel.scene.traffic import Goal, TrafficState

CHOICES = 3  # to the left of the lane that the ego is on, that one, to the right


def choices(road: Road, here: Tensor) -> Tensor:
    """The lanes that can be chosen from `here (batch,)`, `(batch, CHOICES)`; NO_LANE: there is none."""
    left, right = (road.neighbour(here[:, None], side)[:, 0] for side in ("left", "right"))
    return torch.stack([left, here, right], 1)


def least(lanes: Tensor, energy: Tensor) -> Tensor:
    """Of `lanes (batch, choice)` the one of least `energy (batch, choice)`, `(batch,)`."""
    return lanes.gather(1, energy.argmin(1, keepdim=True))[:, 0]


class LaneEnergy(nn.Module):
    """An energy over lanes, learned from those that a planner's search finds (`planner/distillation`).

    Args:
        hidden: Width of its two layers.
        imposed_mps2: A lane is not offered if the next behind there would have to brake harder, m/s².
    """

    def __init__(self, hidden: int, imposed_mps2: float) -> None:
        super().__init__()
        self.imposed_mps2 = imposed_mps2
        self.net = nn.Sequential(
            nn.Linear(VIEW_SIZE, hidden),
            nn.SiLU(),
            nn.Linear(hidden, hidden),
            nn.SiLU(),
            nn.Linear(hidden, CHOICES),
        )

    def forward(self, view: Tensor) -> Tensor:
        """Energies `(batch, CHOICES)` of what is seen, `view (batch, VIEW_SIZE)`; only their differences count."""
        return self.net(view)

    def offered(
        self, scene: TrafficState, before: TrafficState, road: Road, goal: Goal, bound: Tensor, dt_s: float
    ) -> tuple[Tensor, Tensor]:
        """The lanes to choose from and their energies, `(batch, CHOICES)` each; infinite where one is not open.

        Open are the lane that the ego is on, those beside it that have room, and the one it is `bound (batch,)` for.
        """
        here = road.project(scene.position_m[:, :1]).lane[:, 0]
        lanes = choices(road, here)
        left, right = lanes_open(scene, road, here, self.imposed_mps2)
        is_open = torch.stack([left != NO_LANE, torch.ones_like(here, dtype=torch.bool), right != NO_LANE], 1)
        is_open |= (lanes == bound[:, None]) & (lanes != NO_LANE)
        energy = self(lane_view(scene, before, road, goal, here, bound, dt_s))
        return lanes, torch.where(is_open, energy, torch.inf)

    def choose(
        self, scene: TrafficState, before: TrafficState, road: Road, goal: Goal, bound: Tensor, dt_s: float
    ) -> Tensor:
        """The lane of least energy of those that are `offered`, long `(batch,)`."""
        return least(*self.offered(scene, before, road, goal, bound, dt_s))
