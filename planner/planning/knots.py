"""What is added to a plan's laws: accelerations at a few knots, and what the plan then costs."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Protocol

import torch
from torch import Tensor

from drivecast.planner.imagination.world import World
from drivecast.planner.manoeuvres.manoeuvre import Manoeuvre, with_added
from drivecast.planner.planning.search import ManoeuvreSearch
from drivecast.worldmodel.scene.traffic import Controls, Goal


class Improvement(Protocol):
    """Lowers the cost of plans, in a few rollouts."""

    def pass_by_pass(
        self,
        world: World,
        goal: Goal,
        plan: Manoeuvre,
        lanes: Tensor,
        begun: int = 0,
        before: Tensor | None = None,
    ) -> Iterator[tuple[Tensor, Tensor] | None]:
        """What is added to plans, `(plan, step, 2)` in m/s², and by how much it lowers their cost `(plan,)`.

        In pieces: None after each rollout, and after the last one what was reached.

        Args:
            world: The present, a row per plan and future, futures innermost.
            goal: Of each plan.
            plan: How each is driven.
            lanes: Long `(plan, stretch)`. The lane that each steers for in each stretch.
            begun: Steps of the plans that are driven already.
            before: What was added before, from here on, `(plan, any number of steps, 2)`.
        """
        ...


class KnotCosts:
    """Costs of plans to whose laws something is added along and across: at a few knots, linear in between.

    Args:
        search: Whose plans, laws and costs these are.
        knots: How many.
        horizon_s: How far plans are looked at, s; at its end the speed counts as at a plan's end.
    """

    def __init__(self, search: ManoeuvreSearch, knots: int, horizon_s: float) -> None:
        self.search, self.knots = search, knots
        self.steps = max(1, round(horizon_s / search.dt_s))

    def at_knots(self, added: Tensor) -> Tensor:
        """`(plan, step, 2)` at the knots, `(plan, knot, 2)`; nothing after its end."""
        place = torch.linspace(0.0, self.steps - 1.0, self.knots).round().long().to(added.device)
        added = torch.cat([added, added.new_zeros(len(added), 1, 2)], 1)
        return added[:, place.clamp_max(added.shape[1] - 1)]

    def between(self, knots: Tensor) -> Tensor:
        """`(..., knot, 2)` at each step, `(..., step, 2)`."""
        place = torch.linspace(0.0, self.knots - 1.0, self.steps).to(knots)
        low = place.floor().long().clamp_max(self.knots - 2)
        return torch.lerp(knots[..., low, :], knots[..., low + 1, :], (place - low)[:, None])

    def __call__(
        self, world: World, goal: Goal, plan: Manoeuvre, lanes: Tensor, knots: Tensor, begun: int
    ) -> tuple[Tensor, Tensor]:
        """Of `knots (plan, trial, knot, 2)`: what can be differentiated, and with contacts by exact boxes.

        Both `(plan, trial)`; the other arguments are those of `Improvement`.
        """
        search, futures, (plans, trials) = self.search, self.search.config.futures, knots.shape[:2]
        of_trial = torch.arange(plans, device=lanes.device).repeat_interleave(trials)
        row = (of_trial[:, None] * futures + torch.arange(futures, device=lanes.device)).flatten()
        of_row = of_trial.repeat_interleave(futures)
        world = world.picked(row)
        added = self.between(knots).flatten(0, 1).repeat_interleave(futures, 0)
        plan = plan[of_row]
        laws = search.laws(plan, lanes[of_row], world.road, begun)

        def control(step: int) -> Controls:
            return with_added(laws(step, world.scene), added[:, step], world.scene, plan, search.law)

        terms, _ = search.unroll(world, goal, of_trial, self.steps, control, 0)
        contact = terms.pop("contact")
        smooth = sum(terms.values(), torch.zeros_like(contact)).sum(2) * search.dt_s
        end = search.terminal(world, goal, of_trial)
        exact = search.judged(smooth.detach() + contact.sum(2) * search.dt_s + end.detach())
        return search.judged(smooth + end).view(plans, trials), exact.view(plans, trials)
