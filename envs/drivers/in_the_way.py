"""Who is in the ego's way on a lane: by the boxes, on lanes of any width."""

from __future__ import annotations

from torch import Tensor

from drivecast.worldmodel.scene.lane_neighbours import LaneNeighbours, nearest_along, single_lane
from drivecast.worldmodel.scene.road import NO_LANE, Road
from drivecast.worldmodel.scene.traffic import TrafficState

ROOM_M = 0.1  # boxes this near each other sideways are in each other's way


def in_the_way(state: TrafficState, road: Road, lane: Tensor) -> LaneNeighbours:
    """As `lane_neighbours`, of those whose boxes overlap sideways what the ego sweeps on its way to the lane's centre.

    highway-env's rule, a distance from the lane's centre that suits lanes of 4 m, takes a lorry that drives abreast on
    the next lane of a motorway, 3.1 to 3.6 m wide, for a leader at no distance.

    Args: `state (batch, agent)`; `lane (batch,)` an index into the road's lanes.
    """
    only = single_lane(road, lane)
    there = only.project(state.position_m)
    room = (state.width_m + state.width_m[:, :1]) / 2 + ROOM_M
    ego_m = there.across_m[:, :1]
    meets = (there.across_m > ego_m.clamp_max(0.0) - room) & (there.across_m < ego_m.clamp_min(0.0) + room)
    meets &= (only.open_start | (there.along_m >= -room)) & (only.open_end | (there.remaining_m >= -room))
    return nearest_along(there.along_m, meets & state.valid & (lane != NO_LANE)[:, None])
