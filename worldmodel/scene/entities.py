"""What a concept is said of: the ego and those around it, in the coordinates of the ego's lane."""

from __future__ import annotations

from dataclasses import dataclass, replace

import torch
from torch import Tensor

from drivecast.worldmodel.scene.kinematics import wrapped
from drivecast.worldmodel.scene.lane_neighbours import single_lane
from drivecast.worldmodel.scene.road import Road
from drivecast.worldmodel.scene.traffic import TrafficState, _TensorRecord

FRAME_S = 0.2  # between two frames
MOST_ENTITIES = 8  # the ego and the nearest to it
NARROWEST_LANE_M = 2.0


@dataclass(frozen=True)
class Entities(_TensorRecord):
    """The ego, entity 0, and others over a few frames; `(batch, time, entity)` but for the last two, `(batch,)`.

    Positions are on the lane that the ego was on in the first frame: along it, from where the ego was then, and to the
    left of its centre. So what is said does not depend on where on the road it happens.
    """

    along_m: Tensor
    across_m: Tensor
    speed_mps: Tensor
    acceleration_mps2: Tensor  # along its heading
    yaw_rad: Tensor  # heading, from the lane's
    length_m: Tensor
    width_m: Tensor
    valid: Tensor
    lane_width_m: Tensor
    track: Tensor | None = None  # long (batch,): number of the ego's, where it is known

    @property
    def off_centre_m(self) -> Tensor:
        """To the left of the centre of the lane that each is on, m, lanes being as wide as the ego's."""
        width = self.lane_width_m[:, None, None]
        return self.across_m - width * (self.across_m / width).detach().round()

    def frames(self, first: int, count: int) -> Entities:
        """`count` frames from `first` on."""
        return self._over_time(lambda values: values[:, first : first + count])

    def entities(self, index: Tensor) -> Entities:
        """The ego and the entities `index (batch, n)`, `-1`: nobody, in their place."""
        index = torch.cat([torch.zeros_like(index[:, :1]), index], 1)
        there = index >= 0
        at = index.clamp_min(0)

        def pick(values: Tensor) -> Tensor:
            return values.gather(2, at[:, None].expand(-1, values.shape[1], -1))

        picked = self._over_time(pick)
        return replace(picked, valid=picked.valid & there[:, None])

    def scaled(self, factor: Tensor) -> Entities:
        """The same stretches in a world whose lengths along the road, and speeds, are `factor (batch,)` times as large.

        Vehicles and lanes stay as they are, and so does how long everything takes.
        """
        by = factor[:, None, None]
        return replace(
            self,
            along_m=self.along_m * by,
            speed_mps=self.speed_mps * by,
            acceleration_mps2=self.acceleration_mps2 * by,
            yaw_rad=self.yaw_rad / by,
        )

    def _over_time(self, change) -> Entities:
        return self.map(lambda values: change(values) if values.dim() == 3 else values)


def entities_of(states: TrafficState, road: Road, dt_s: float) -> Entities:
    """Entities at the moments of `states (batch, time, agent)`, which are `dt_s` apart. Differentiable in the states.

    All agents become entities, in their order.
    """
    batch, time, agents = states.valid.shape
    lane = road.project(states.position_m[:, 0, :1].detach()).lane[:, 0]
    there = single_lane(road, lane).project(states.position_m.flatten(1, 2))
    along, across, heading, width = (
        values.view(batch, time, agents) for values in (there.along_m, there.across_m, there.heading_rad, there.width_m)
    )
    speed = states.speed_mps
    if time > 1:
        gained = (speed[:, 1:] - speed[:, :-1]) / dt_s * (states.valid[:, 1:] & states.valid[:, :-1])
        acceleration = torch.cat([gained[:, :1], gained], 1)
    else:
        acceleration = torch.zeros_like(speed)
    return Entities(
        along_m=along - along[:, :1, :1].detach(),
        across_m=across,
        speed_mps=speed,
        acceleration_mps2=acceleration,
        yaw_rad=wrapped(states.heading_rad - heading),
        length_m=states.length_m,
        width_m=states.width_m,
        valid=states.valid,
        lane_width_m=width[:, 0, 0].detach().clamp_min(NARROWEST_LANE_M),
    )


def frame_stride(dt_s: float) -> int:
    """Steps of `dt_s` from one frame to the next."""
    return max(1, round(FRAME_S / dt_s))
