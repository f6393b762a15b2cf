"""A scene along the lane of the ego, straightened."""

from __future__ import annotations

from dataclasses import dataclass, fields

import torch
from torch import Tensor

from drivecast.worldmodel.rules.in_the_way import bound_lane, to_go_m
from drivecast.worldmodel.scene.lane_neighbours import single_lane
from drivecast.worldmodel.scene.road import NO_LANE, Road
from drivecast.worldmodel.scene.traffic import TrafficState


@dataclass(frozen=True)
class LaneFrame:
    """A scene along the ego's lane, straightened: `along_m` on it, `across_m` to its left.

    Attributes: of the others `(batch, agent)`, of the ego `(batch,)`.
        along_m, speed_mps, length_m, width_m, valid: Of the others.
        across_m: Where they are, and `bound_m` where they are going across.
        leader: Long. The other ahead of each on the lane that it is bound for; itself: nobody.
        ego_across_m, ego_heading_rad, ego_speed_mps, ego_length_m, ego_width_m: Of the ego, whose along is 0.
        lanes_m: `(batch, 3)`. Centres of the lanes to keep, to the left and to the right; NaN: may not be driven.
    """

    along_m: Tensor
    across_m: Tensor
    bound_m: Tensor
    speed_mps: Tensor
    length_m: Tensor
    width_m: Tensor
    valid: Tensor
    leader: Tensor
    ego_across_m: Tensor
    ego_heading_rad: Tensor
    ego_speed_mps: Tensor
    ego_length_m: Tensor
    ego_width_m: Tensor
    lanes_m: Tensor

    @staticmethod
    def of(scene: TrafficState, road: Road, own: Tensor, sides: Tensor) -> LaneFrame:
        """Args: `scene (batch, agent)`, the ego first; its lane `own (batch,)`; `sides (batch, 2)`, or NO_LANE."""
        here = single_lane(road, own).project(scene.position_m)
        along = here.along_m - here.along_m[:, :1]
        ego_m = scene.position_m[:, :1]
        centres = [torch.zeros_like(along[:, 0])]
        for side in range(2):
            beside = sides[:, side]
            across = single_lane(road, beside).project(ego_m).across_m[:, 0]
            centre = here.across_m[:, 0] - across
            centres.append(torch.where(beside == NO_LANE, torch.nan, centre))
        lane = bound_lane(scene, road)
        bound = here.across_m + to_go_m(scene, road)
        ahead = along[:, None, :] - along[:, :, None]  # (batch, who, whom)
        same = (lane[:, None, :] == lane[:, :, None]) & scene.valid[:, None, :] & (ahead > 0)
        same[:, :, 0] = False
        distance, leader = torch.where(same, ahead, torch.inf).min(-1)
        myself = torch.arange(along.shape[1], device=along.device).expand_as(leader)
        leader = torch.where(distance.isinf(), myself, leader)
        return LaneFrame(
            along[:, 1:],
            here.across_m[:, 1:],
            bound[:, 1:],
            scene.speed_mps[:, 1:],
            scene.length_m[:, 1:],
            scene.width_m[:, 1:],
            scene.valid[:, 1:],
            leader[:, 1:] - 1,
            here.across_m[:, 0],
            (scene.heading_rad - here.heading_rad)[:, 0],
            scene.speed_mps[:, 0],
            scene.length_m[:, 0],
            scene.width_m[:, 0],
            torch.stack(centres, 1),
        )

    def repeated(self, count: int) -> LaneFrame:
        """Each episode `count` times, side by side."""
        return LaneFrame(**{f.name: getattr(self, f.name).repeat_interleave(count, 0) for f in fields(self)})
