"""A drive on which a planner's search says, moment by moment, what each lane would cost."""

from __future__ import annotations

from dataclasses import replace

import torch
from torch import Tensor

from drivecast.planner.planning.driver import GradientPlanner
from drivecast.planner.planning.search import Found
from drivecast.planner.policy.lane_energy import CHOICES, choices, least
from drivecast.planner.policy.lane_view import VIEW_SIZE, lane_view
from drivecast.planner.policy.network import Policy
from drivecast.worldmodel.scene.road import NO_LANE, Road
from drivecast.worldmodel.scene.traffic import Controls, Goal, TrafficState


class TaughtDriver:
    """Drives by a policy's controls, and asks a planner's search at each choice of a lane what it would cost.

    The lane is the policy's own choice; in a share of the episodes, and while it has learned none, the search's. So
    what is taught is taught where the policy gets to (DAgger: Ross, Gordon, Bagnell 2011, arXiv 1011.0686).

    Args:
        policy: Whose controls, and whose choices if it has learned any.
        planner: Who is asked.
        searched_share: Share of the episodes in which the search's choices are driven.
        seed: Of which those are.
        name: The driver's.
    """

    def __init__(
        self, policy: Policy, planner: GradientPlanner, searched_share: float, seed: int, name: str = "taught"
    ) -> None:
        self.policy, self.planner, self.name = policy, planner, name
        self.history_steps = planner.history_steps
        self.searched_share = 1.0 if policy.lanes is None else searched_share
        self._draw = torch.Generator().manual_seed(seed)
        self._every = max(1, round(policy.config.lane_every_s / policy.config.dt_s))
        self._views: list[Tensor] = []
        self._energies: list[Tensor] = []

    def reset(self, scene: TrafficState, road: Road, goal: Goal) -> None:
        device = self.planner.device
        self._bound = road.to(device).project(scene.to(device).position_m[:, :1]).lane[:, 0]
        drawn = torch.rand(len(scene.valid), generator=self._draw)
        self._searched = (drawn < self.searched_share).to(device)
        self._steps = 0
        self._was: Tensor | None = None

    @property
    def chosen_lane(self) -> Tensor:
        """The lane that each ego steers for, `(batch,)`."""
        return self._bound

    @property
    def lessons(self) -> tuple[Tensor, Tensor]:
        """What was seen, `(moment, VIEW_SIZE)`, and what each choice costs, `(moment, CHOICES)`; infinite: no way."""
        if not self._views:
            return torch.zeros(0, VIEW_SIZE), torch.zeros(0, CHOICES)
        return torch.cat(self._views), torch.cat(self._energies)

    @torch.no_grad()
    def act(self, history: TrafficState, road: Road, goal: Goal) -> Controls:
        given = history.valid.device
        history, road, goal = (part.to(self.planner.device) for part in (history, road, goal))
        scene, before = history[:, -1], history[:, -min(2, history.valid.shape[1])]
        if self._steps % self._every == 0:
            self._ask(history, scene, before, road, goal)
        self._steps += 1
        return self.policy(scene, before, road, replace(goal, lane=self._bound)).to(given)

    def _ask(self, history: TrafficState, scene: TrafficState, before: TrafficState, road: Road, goal: Goal) -> None:
        here = road.project(scene.position_m[:, :1]).lane[:, 0]
        lanes, bound = choices(road, here), self._bound
        energies = of_choices(self.planner.searched(history, road, goal, bound), lanes)
        runs = torch.ones_like(self._searched) if self._was is None else (scene.position_m[:, 0] != self._was).any(1)
        tells = runs & energies.isfinite().any(1)  # an episode that is over stands still
        self._was = scene.position_m[:, 0]
        dt_s = self.policy.config.dt_s
        self._views.append(lane_view(scene, before, road, goal, here, bound, dt_s)[tells].cpu())
        self._energies.append(energies[tells].cpu())
        best = torch.where(energies.isfinite().any(1), least(lanes, energies), here)
        own = best
        if self.policy.lanes is not None:
            own = self.policy.lanes.choose(scene, before, road, goal, bound, dt_s)
        self._bound = torch.where(self._searched, best, own)


def of_choices(found: Found, lanes: Tensor) -> Tensor:
    """What the best plan costs that sets out for each of `lanes (episode, choice)`; infinite where none was kept."""
    energy = torch.full(lanes.shape, torch.inf, dtype=found.energy.dtype, device=lanes.device)
    drives = ~found.manoeuvre.brakes
    for choice in range(lanes.shape[1]):
        lane = lanes[found.episode, choice]
        cost = torch.where(drives & (found.lane == lane) & (lane != NO_LANE), found.energy, torch.inf)
        energy[:, choice] = energy[:, choice].scatter_reduce(0, found.episode, cost, "amin")
    return energy
