"""The plans that a search weighed, as something to look at."""

from __future__ import annotations

import torch
from torch import Tensor

from drivecast.planner.planning.search import Found
from drivecast.worldmodel.scene.driver import Weighed
from drivecast.worldmodel.scene.road import NO_LANE

POINT_EVERY_S = 0.5
MOST_PLANS = 10


def weighed(found: Found, episodes: int, dt_s: float, ago: int) -> Weighed:
    """The best plans of each episode, the chosen one first; paths in the first of their futures.

    The parts of the energy are means over the futures: they sum to it unless plans are judged by the worst of several.

    Args:
        found: What was found.
        episodes: How many.
        dt_s: Time step, s.
        ago: Steps since the decision.
    """
    order = found.energy.argsort(stable=True)
    order = order[found.episode[order].argsort(stable=True)]
    episode = found.episode[order]
    place = torch.arange(len(order), device=order.device) - torch.searchsorted(episode, episode)
    best = place < MOST_PLANS
    plan, where = order[best], (episode[best], place[best])
    shape = episodes, int(place[best].max()) + 1
    way = found.way(plan)

    def laid_out(values: Tensor, nothing: float | int | bool = torch.nan) -> Tensor:
        laid = values.new_full((*shape, *values.shape[1:]), nothing)
        laid[where] = values
        return laid

    futures = next(iter(found.stretches[0].cost.values())).shape[1]
    path = torch.cat(
        [part.states.position_m[rows * futures, :, 0] for part, rows in zip(found.stretches, way, strict=True)], 1
    )
    every = max(1, round(POINT_EVERY_S / dt_s))
    cost = {name: values[plan] for name, values in found.ends.items()}
    for stretch, rows in zip(found.stretches, way, strict=True):
        for name, values in stretch.cost.items():
            added = values[rows].mean(1).sum(1) * dt_s
            cost[name] = cost[name] + added if name in cost else added
    lanes = torch.stack([part.lane[rows] for part, rows in zip(found.stretches, way, strict=True)], 1)
    return Weighed(
        path_m=laid_out(path[:, every - 1 :: every]),
        energy=laid_out(found.energy[plan]),
        cost={name: laid_out(values) for name, values in cost.items() if bool((values != 0).any())},
        lanes=laid_out(lanes, NO_LANE),
        brakes=laid_out(found.manoeuvre.brakes[plan], False),
        every=every,
        ago=ago,
    )
