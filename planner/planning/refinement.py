"""A plan refined by gradient: what its ego adds to its manoeuvres' laws, lowered through time."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass

import torch
from torch import Tensor

from drivecast.planner.imagination.world import World
from drivecast.planner.manoeuvres.manoeuvre import Manoeuvre
from drivecast.planner.planning.knots import KnotCosts
from drivecast.planner.planning.search import ManoeuvreSearch
from drivecast.worldmodel.errors import InputError
from drivecast.worldmodel.scene.traffic import Goal


@dataclass(frozen=True)
class RefinementConfig:
    """The refinement.

    Args:
        iterations: Gradients taken one after the other; 0: the plan is driven as found.
        knots: Moments at which something is added to the acceleration, linear in between.
        horizon_s: How far the plan is looked at, s; at its end the speed counts as at a plan's end.
        steps_mps2: So far down the gradient plans are tried, m/s² at the knot where it is steepest.
        most_mps2: Most that is added to the acceleration, along and across, m/s².
    """

    iterations: int = 1
    knots: int = 6
    horizon_s: float = 3.0
    steps_mps2: tuple[float, ...] = (0.25, 0.5, 1.0)
    most_mps2: float = 2.0

    def __post_init__(self) -> None:
        if self.iterations < 0 or self.knots < 2 or not self.steps_mps2:
            raise InputError("refinement: expected at least 0 iterations, 2 knots and one of steps_mps2")
        for name in ("horizon_s", "most_mps2"):
            if not 0.0 < getattr(self, name) < math.inf:
                raise InputError(f"refinement.{name}: expected more than 0, got {getattr(self, name)}")


class Refinement:
    """Differentiable model-predictive control: gradient descent on a few knots, through imagined rollouts.

    What is added along and across, `(plan, knot, 2)` in m/s², is shared by all futures; the laws' feedback is not.
    It begins with what was added before, where that is better than nothing. Of several steps down the gradient, tried
    at once, the best by exact boxes is kept if it lowers the cost; otherwise the plan stays as it was found.

    Args:
        config: The refinement.
        search: Whose plans, laws and costs these are.
    """

    def __init__(self, config: RefinementConfig, search: ManoeuvreSearch) -> None:
        self.config, self.costs = config, KnotCosts(search, config.knots, config.horizon_s)

    def pass_by_pass(
        self, world: World, goal: Goal, plan: Manoeuvre, lanes: Tensor, begun: int = 0, before: Tensor | None = None
    ) -> Iterator[tuple[Tensor, Tensor] | None]:
        """See `Improvement`."""
        config, costs = self.config, self.costs
        best = plan.wish_mps.new_zeros(len(lanes), config.knots, 2)
        lowest = at_first = torch.full_like(plan.wish_mps, torch.inf)
        tried = best[:, None] if before is None else torch.stack([best, costs.at_knots(before)], 1)
        steps = best.new_tensor(config.steps_mps2)[:, None, None]
        every = torch.arange(len(lanes), device=lanes.device)
        for iteration in range(config.iterations + 1):
            last = iteration == config.iterations
            tried = tried.detach().requires_grad_(not last)
            with torch.set_grad_enabled(not last):
                smooth, exact = costs(world, goal, plan, lanes, tried, begun)
                summed = smooth.sum()
            at_first = exact[:, 0] if iteration == 0 else at_first
            least, which = exact.min(1)
            found, better = tried[every, which].detach(), least < lowest
            best = torch.where(better[:, None, None], found, best)
            lowest = least.minimum(lowest)
            if not last:
                gradient = torch.autograd.grad(summed, [tried])[0][every, which]
                downhill = -gradient / gradient.abs().amax(1, keepdim=True).clamp_min(1e-9)
                tried = (found[:, None] + steps * downhill[:, None]).clamp(-config.most_mps2, config.most_mps2)
                yield None
        yield costs.between(best), at_first - lowest
