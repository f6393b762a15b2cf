"""A plan refined by gradient: what its ego adds to its manoeuvres' laws, lowered through model, others and time."""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor

from drivecast.planner.imagination.world import World
from drivecast.planner.planning.manoeuvre import Manoeuvre
from drivecast.planner.planning.search import ManoeuvreSearch
from drivecast.worldmodel.errors import InputError
from drivecast.worldmodel.scene.kinematics import MAX_ACCELERATION_MPS2, MAX_BRAKING_MPS2, steering_for
from drivecast.worldmodel.scene.traffic import Controls, Goal, TrafficState


@dataclass(frozen=True)
class RefinementConfig:
    """The refinement.

    Args:
        iterations: Steps of Adam; 0: none.
        knots: Moments at which something is added to the acceleration, linear in between.
        horizon_s: How far the plan is looked at, s; at its end the speed counts as at a plan's end.
        learning_rate: Of Adam, m/s² per step.
        most_mps2: Most that is added to the acceleration, along and across, m/s².
    """

    iterations: int = 3
    knots: int = 6
    horizon_s: float = 3.0
    learning_rate: float = 0.3
    most_mps2: float = 2.0

    def __post_init__(self) -> None:
        if self.iterations < 0 or self.knots < 2:
            raise InputError("refinement: expected at least 0 iterations and 2 knots")
        for name in ("horizon_s", "learning_rate", "most_mps2"):
            if not 0.0 < getattr(self, name) < math.inf:
                raise InputError(f"refinement.{name}: expected more than 0, got {getattr(self, name)}")


class Refinement:
    """Differentiable model-predictive control: Adam on a few knots, through rollouts of the world model.

    What is added along and across, `(episode, knot, 2)` in m/s², is shared by all futures; the laws' feedback is not.
    Kept where it lowers the plan's cost by exact boxes, otherwise the plan stays as it was found.

    Args:
        config: The refinement.
        search: Whose plans, laws and costs these are.
    """

    def __init__(self, config: RefinementConfig, search: ManoeuvreSearch) -> None:
        self.config, self.search = config, search
        self.steps = max(1, round(config.horizon_s / search.dt_s))

    def refine(self, world: World, goal: Goal, plan: Manoeuvre, lanes: Tensor) -> tuple[Tensor, Tensor]:
        """What is added to the plans, `(episode, step, 2)` in m/s², and by how much it lowers their cost `(episode,)`.

        Args:
            world: The present, a row per episode and future, futures innermost.
            goal: Of each episode.
            plan: Of each episode.
            lanes: Long `(episode, stretch)`. The lane that each plan steers for in each stretch.
        """
        config = self.config
        knots = plan.wish_mps.new_zeros(len(lanes), config.knots, 2).requires_grad_()
        optimiser = torch.optim.Adam([knots], lr=config.learning_rate)
        best, lowest = torch.zeros_like(knots), torch.full_like(plan.wish_mps, torch.inf)
        everyone = torch.arange(len(world.scene.valid), device=lanes.device)
        begun = lowest
        for iteration in range(config.iterations + 1):
            last = iteration == config.iterations
            with torch.set_grad_enabled(not last):
                smooth, exact = self._cost(world.picked(everyone), goal, plan, lanes, knots)
                summed = smooth.sum()
            begun = exact if iteration == 0 else begun
            better = exact < lowest
            best = torch.where(better[:, None, None], knots.detach(), best)
            lowest = torch.where(better, exact, lowest)
            if not last:
                (knots.grad,) = torch.autograd.grad(summed, [knots])
                optimiser.step()
                knots.data.clamp_(-config.most_mps2, config.most_mps2)
        return self._between(best), begun - lowest

    def _between(self, knots: Tensor) -> Tensor:
        """`(episode, knot, 2)` at each step, `(episode, step, 2)`."""
        place = torch.linspace(0.0, self.config.knots - 1.0, self.steps).to(knots)
        low = place.floor().long().clamp_max(self.config.knots - 2)
        return torch.lerp(knots[:, low], knots[:, low + 1], (place - low)[:, None])

    def _cost(self, world: World, goal: Goal, plan: Manoeuvre, lanes: Tensor, knots: Tensor) -> tuple[Tensor, Tensor]:
        """Of each episode, `(episode,)`: what can be differentiated, and with contacts by exact boxes."""
        search, futures = self.search, self.search.config.futures
        added = self._between(knots).repeat_interleave(futures, 0)
        laws = search.laws(plan.repeated(futures), lanes.repeat_interleave(futures, 0), world.road)

        def control(step: int) -> Controls:
            return with_added(laws(step).controls(world.scene), added[:, step], world.scene)

        episode = torch.arange(len(lanes), device=lanes.device)
        terms, _ = search.unroll(world, goal, episode, self.steps, control, 0)
        contact = terms.pop("contact")
        smooth = sum(terms.values(), torch.zeros_like(contact)).sum(2) * search.dt_s
        end = search.terminal(world, goal, episode)
        exact = search.judged(smooth.detach() + contact.sum(2) * search.dt_s + end.detach())
        return search.judged(smooth + end), exact


def with_added(controls: Controls, added: Tensor, scene: TrafficState) -> Controls:
    """Controls with `added (row, 2)` m/s² along and across."""
    acceleration = (controls.acceleration_mps2 + added[:, 0]).clamp(-MAX_BRAKING_MPS2, MAX_ACCELERATION_MPS2)
    steering = controls.steering_rad + steering_for(added[:, 1], scene.speed_mps[:, 0], scene.length_m[:, 0])
    return Controls(acceleration, steering)
