"""Which lane of the simulator each lane of our road is, stretch by stretch."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from drivecast.envs.batched.lanes import Lanes
from drivecast.envs.highway.road import ThroughLane
from drivecast.worldmodel.scene.road import NO_LANE


@dataclass(frozen=True)
class RoadLanes:
    """Attributes:
    edge: Long `(simulator's lane,)`. The stretch of road that each lies on.
    segment: Long `(lane, stretch)`. The simulator's lane of each of the road's lanes there, or `NO_LANE`.
    """

    edge: Tensor
    segment: Tensor

    @staticmethod
    def of(lanes: Lanes, through: Sequence[ThroughLane]) -> RoadLanes:
        """The simulator's `lanes` chained as `through`."""
        place = {name: number for number, name in enumerate(lanes.names)}
        table = torch.full((len(through), int(lanes.edge.max()) + 1), NO_LANE, device=lanes.edge.device)
        for number, lane in enumerate(through):
            for name in lane.segments:
                table[number, lanes.edge[place[name]]] = place[name]
        return RoadLanes(lanes.edge, table)

    def number(self) -> Tensor:
        """Long `(simulator's lane,)`: the road's lane that each is a part of."""
        through = torch.empty_like(self.edge)
        for number, segments in enumerate(self.segment):
            through[segments[segments != NO_LANE]] = number
        return through

    def announced(self, wanted: Tensor | None, own: Tensor) -> Tensor:
        """The simulator's lane of the road's lane `wanted (row,)`; `own (row,)` where that does not run beside it.

        None: nothing is announced.
        """
        if wanted is None:
            return own
        wanted = wanted.to(own.device)
        there = self.segment[wanted.clamp_min(0), self.edge[own]]
        return torch.where((wanted == NO_LANE) | (there == NO_LANE), own, there)
