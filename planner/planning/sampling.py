"""A plan improved by sampling: the cross-entropy method, and model-predictive path integral control."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor

from drivecast.planner.imagination.world import World
from drivecast.planner.manoeuvres.manoeuvre import Manoeuvre
from drivecast.planner.planning.knots import KnotCosts
from drivecast.planner.planning.search import ManoeuvreSearch
from drivecast.worldmodel.errors import InputError
from drivecast.worldmodel.scene.traffic import Goal


@dataclass(frozen=True)
class SamplingConfig:
    """The sampling.

    Args:
        method: `cem`: the cross-entropy method; `mppi`: model-predictive path integral control.
        iterations: Batches of samples, one after the other.
        samples: Of each plan, in each batch.
        elites: Of CEM: so many of the best give the next mean and spread.
        temperature: Of MPPI: samples weigh exp(-cost / temperature).
        std_mps2: Standard deviation of the first samples, m/s², along and across.
        knots: Moments at which something is added to the acceleration, linear in between.
        horizon_s: How far plans are looked at, s.
        most_mps2: Most that is added to the acceleration, along and across, m/s².
        seed: Of the samples.
    """

    method: Literal["cem", "mppi"] = "cem"
    iterations: int = 3
    samples: int = 24
    elites: int = 5
    temperature: float = 0.1
    std_mps2: float = 0.5
    knots: int = 6
    horizon_s: float = 3.0
    most_mps2: float = 2.0
    seed: int = 0

    def __post_init__(self) -> None:
        if self.iterations < 1 or self.knots < 2 or not 1 < self.elites <= self.samples:
            raise InputError("sampling: expected at least 1 iteration and 2 knots, and 2 to `samples` elites")
        for name in ("temperature", "std_mps2", "horizon_s", "most_mps2"):
            if not 0.0 < getattr(self, name) < math.inf:
                raise InputError(f"sampling.{name}: expected more than 0, got {getattr(self, name)}")


class Sampling:
    """Improves plans without gradients: a normal distribution about each, which the better samples move.

    Each plan has a distribution of its own, so nothing is averaged across lanes. All plans share the noise, so none
    depends on which others stand in the batch; each call draws anew.

    Args:
        config: The sampling.
        search: Whose plans, laws and costs these are.
    """

    def __init__(self, config: SamplingConfig, search: ManoeuvreSearch) -> None:
        self.config, self.costs = config, KnotCosts(search, config.knots, config.horizon_s)
        self._calls = 0

    @torch.no_grad()
    def pass_by_pass(
        self, world: World, goal: Goal, plan: Manoeuvre, lanes: Tensor, begun: int = 0, before: Tensor | None = None
    ) -> Iterator[tuple[Tensor, Tensor] | None]:
        """See `Improvement`."""
        config, costs = self.config, self.costs
        nothing = plan.wish_mps.new_zeros(len(lanes), config.knots, 2)
        mean = nothing if before is None else costs.at_knots(before)
        std = torch.full_like(mean, config.std_mps2)
        generator = torch.Generator(mean.device).manual_seed(config.seed + self._calls)
        self._calls += 1
        best, lowest, at_first = nothing, torch.full_like(plan.wish_mps, torch.inf), torch.zeros_like(plan.wish_mps)
        every = torch.arange(len(lanes), device=lanes.device)
        for iteration in range(config.iterations):
            noise = torch.randn(config.samples, config.knots, 2, generator=generator, device=mean.device).to(mean)
            drawn = mean[:, None] + std[:, None] * noise
            tried = torch.cat([nothing[:, None], mean[:, None], drawn], 1).clamp(-config.most_mps2, config.most_mps2)
            cost = costs(world, goal, plan, lanes, tried, begun)[1]
            at_first = cost[:, 0] if iteration == 0 else at_first
            least, which = cost.min(1)
            best = torch.where((least < lowest)[:, None, None], tried[every, which], best)
            lowest = least.minimum(lowest)
            if config.method == "cem":
                mean, std = cem_update(tried[:, 2:], cost[:, 2:], config.elites)
            else:
                mean = mppi_update(mean, tried[:, 2:] - mean[:, None], std, cost[:, 2:], config.temperature)
            if iteration + 1 < config.iterations:
                yield None
        yield costs.between(best), at_first - lowest


def cem_update(samples: Tensor, cost: Tensor, elites: int) -> tuple[Tensor, Tensor]:
    """Mean and standard deviation of the `elites` samples of least cost, `(plan, ...)` both.

    `samples (plan, sample, ...)`, `cost (plan, sample)`. Rubinstein 1999, "The cross-entropy method for combinatorial
    and continuous optimization".
    """
    best = cost.topk(elites, 1, largest=False).indices
    chosen = samples[torch.arange(len(cost), device=cost.device)[:, None], best]
    return chosen.mean(1), chosen.std(1)


def mppi_update(mean: Tensor, noise: Tensor, std: Tensor, cost: Tensor, temperature: float) -> Tensor:
    """The mean `(plan, ...)` moved by `noise (plan, sample, ...)`, weighed by exp(-S / temperature).

    S = cost `(plan, sample)` + temperature · mean · noise / std². Williams et al. 2017, "Information theoretic MPC for
    model-based reinforcement learning", algorithm 2.
    """
    kept = (mean / std.square())[:, None] * noise
    weight = (-(cost + temperature * kept.flatten(2).sum(2)) / temperature).softmax(1)
    return mean + (weight.view(*weight.shape, *[1] * (mean.dim() - 1)) * noise).sum(1)
