"""A plan refined by gradient: what its ego adds to its manoeuvres' laws, lowered through model, others and time."""

from __future__ import annotations

import math
from collections.abc import Iterator
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

    What is added along and across, `(episode, knot, 2)` in m/s², is shared by all futures; the laws' feedback is not.
    It begins with what was added before, where that is better than nothing. Of several steps down the gradient, tried
    at once, the best by exact boxes is kept if it lowers the cost; otherwise the plan stays as it was found.

    Args:
        config: The refinement.
        search: Whose plans, laws and costs these are.
    """

    def __init__(self, config: RefinementConfig, search: ManoeuvreSearch) -> None:
        self.config, self.search = config, search
        self.steps = max(1, round(config.horizon_s / search.dt_s))

    def refine(
        self,
        world: World,
        goal: Goal,
        plan: Manoeuvre,
        lanes: Tensor,
        begun: int = 0,
        before: Tensor | None = None,
    ) -> tuple[Tensor, Tensor]:
        """What is added to the plans, `(episode, step, 2)` in m/s², and by how much it lowers their cost `(episode,)`.

        See `pass_by_pass`.
        """
        *_, last = self.pass_by_pass(world, goal, plan, lanes, begun, before)
        assert last is not None
        return last

    def pass_by_pass(
        self,
        world: World,
        goal: Goal,
        plan: Manoeuvre,
        lanes: Tensor,
        begun: int = 0,
        before: Tensor | None = None,
    ) -> Iterator[tuple[Tensor, Tensor] | None]:
        """The same in pieces: None after each rollout, and after the last one what was reached.

        Args:
            world: The present, a row per episode and future, futures innermost.
            goal: Of each episode.
            plan: Of each episode.
            lanes: Long `(episode, stretch)`. The lane that each plan steers for in each stretch.
            begun: Steps of the plans that are driven already.
            before: What the plans before would add from here on, `(episode, any number of steps, 2)`.
        """
        config = self.config
        best = plan.wish_mps.new_zeros(len(lanes), config.knots, 2)
        lowest = at_first = torch.full_like(plan.wish_mps, torch.inf)
        tried = best[:, None] if before is None else torch.stack([best, self._at_knots(before)], 1)
        steps = best.new_tensor(config.steps_mps2)[:, None, None]
        every = torch.arange(len(lanes), device=lanes.device)
        for iteration in range(config.iterations + 1):
            last = iteration == config.iterations
            tried = tried.detach().requires_grad_(not last)
            with torch.set_grad_enabled(not last):
                smooth, exact = self._cost(world, goal, plan, lanes, tried, begun)
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
        yield self._between(best), at_first - lowest

    def _at_knots(self, added: Tensor) -> Tensor:
        """`(episode, step, 2)` at the knots, `(episode, knot, 2)`; nothing after its end."""
        place = torch.linspace(0.0, self.steps - 1.0, self.config.knots).round().long().to(added.device)
        added = torch.cat([added, added.new_zeros(len(added), 1, 2)], 1)
        return added[:, place.clamp_max(added.shape[1] - 1)]

    def _between(self, knots: Tensor) -> Tensor:
        """`(..., knot, 2)` at each step, `(..., step, 2)`."""
        place = torch.linspace(0.0, self.config.knots - 1.0, self.steps).to(knots)
        low = place.floor().long().clamp_max(self.config.knots - 2)
        return torch.lerp(knots[..., low, :], knots[..., low + 1, :], (place - low)[:, None])

    def _cost(
        self, world: World, goal: Goal, plan: Manoeuvre, lanes: Tensor, knots: Tensor, begun: int
    ) -> tuple[Tensor, Tensor]:
        """Of `knots (episode, trial, knot, 2)`: what can be differentiated, and with contacts by exact boxes.

        Both `(episode, trial)`.
        """
        search, futures, (episodes, trials) = self.search, self.search.config.futures, knots.shape[:2]
        episode = torch.arange(episodes, device=lanes.device).repeat_interleave(trials)
        row = (episode[:, None] * futures + torch.arange(futures, device=lanes.device)).flatten()
        of_row = episode.repeat_interleave(futures)
        world = world.picked(row)
        added = self._between(knots).flatten(0, 1).repeat_interleave(futures, 0)
        laws = search.laws(plan[of_row], lanes[of_row], world.road, begun)

        def control(step: int) -> Controls:
            return with_added(laws(step, world.scene), added[:, step], world.scene)

        terms, _ = search.unroll(world, goal, episode, self.steps, control, 0)
        contact = terms.pop("contact")
        smooth = sum(terms.values(), torch.zeros_like(contact)).sum(2) * search.dt_s
        end = search.terminal(world, goal, episode)
        exact = search.judged(smooth.detach() + contact.sum(2) * search.dt_s + end.detach())
        return search.judged(smooth + end).view(episodes, trials), exact.view(episodes, trials)


def with_added(controls: Controls, added: Tensor, scene: TrafficState) -> Controls:
    """Controls with `added (row, 2)` m/s² along and across."""
    acceleration = (controls.acceleration_mps2 + added[:, 0]).clamp(-MAX_BRAKING_MPS2, MAX_ACCELERATION_MPS2)
    steering = controls.steering_rad + steering_for(added[:, 1], scene.speed_mps[:, 0], scene.length_m[:, 0])
    return Controls(acceleration, steering)
