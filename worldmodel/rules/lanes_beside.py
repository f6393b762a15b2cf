"""Which lanes run beside the ego, where it is."""

from __future__ import annotations

import torch
from torch import Tensor

from drivecast.worldmodel.scene.lane_neighbours import single_lane
from drivecast.worldmodel.scene.road import NO_LANE, Road
from drivecast.worldmodel.scene.traffic import TrafficState

GORE_M = 1.0  # lanes that are further apart than this, edge to edge, do not touch


def runs_beside(scene: TrafficState, road: Road, lane: Tensor) -> Tensor:
    """Bool `(batch,)`: `lane (batch,)` exists where the ego is; it may start later or have ended."""
    only = single_lane(road, lane)
    there = only.project(scene.position_m[:, :1])
    return ((only.open_start | (there.along_m >= 0)) & (only.open_end | (there.remaining_m > 0)))[:, 0]


def touches(scene: TrafficState, road: Road, lane: Tensor, other: Tensor) -> Tensor:
    """Bool `(batch,)`: the lanes touch where the ego is; between a ramp and the road there may be a gore first.

    highway-env's `is_reachable_from` takes two lane widths from the ego for near enough; its lanes always touch.
    """
    here, there = (single_lane(road, one).project(scene.position_m[:, :1]) for one in (other, lane))
    apart_m = (there.across_m - here.across_m).abs()
    return (apart_m <= (here.width_m + there.width_m) / 2 + GORE_M)[:, 0]


def leftmost(road: Road, lane: Tensor) -> Tensor:
    """The last lane to the left of `lane (batch,)`, which may be that lane itself."""
    for _ in range(road.width_m.shape[1]):
        beside = road.neighbour(lane[:, None], "left")[:, 0]
        lane = torch.where(beside == NO_LANE, lane, beside)
    return lane


def lanes_abreast(scene: TrafficState, road: Road, lane: Tensor) -> Tensor:
    """Long `(batch,)`: how many lanes lie side by side where the ego is, `lane (batch,)` among them."""
    count = torch.ones_like(lane)
    for side in ("left", "right"):
        last, goes_on = lane, torch.ones_like(lane, dtype=torch.bool)
        for _ in range(road.width_m.shape[1]):
            beside = road.neighbour(last[:, None], side)[:, 0]
            goes_on = goes_on & (beside != NO_LANE)
            beside = torch.where(goes_on, beside, last)
            goes_on = goes_on & runs_beside(scene, road, beside) & touches(scene, road, beside, last)
            count = count + goes_on
            last = beside
    return count
