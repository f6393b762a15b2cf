"""Who is in the ego's way on a lane, or will be: by the boxes, on lanes of any width."""

from __future__ import annotations

import torch
from torch import Tensor

from drivecast.worldmodel.rules.laws import TAU_LATERAL_S
from drivecast.worldmodel.scene.lane_neighbours import LaneNeighbours, nearest_along, single_lane
from drivecast.worldmodel.scene.road import NO_LANE, Road, RoadPosition
from drivecast.worldmodel.scene.traffic import TrafficState

FORESEEN_S = 1.5  # people take 4 s and more to change lanes
ROOM_M = 0.1  # boxes this near each other sideways are in each other's way


def in_the_way(state: TrafficState, road: Road, lane: Tensor, offset_m: Tensor | None = None) -> LaneNeighbours:
    """As `lane_neighbours`, of those whose boxes overlap sideways what the ego sweeps on its way to the lane.

    They count where they are, and where they are bound for (`bound_lane`).

    highway-env's rule, a distance from the lane's centre that suits lanes of 4 m, takes a lorry that drives abreast on
    the next lane of a motorway, 3.1 to 3.6 m wide, for a leader at no distance.

    Args: `state (batch, agent)`; `lane (batch,)` an index into the road's lanes; `offset_m (batch,)` from its centre,
        left positive, where the ego goes.
    """
    only = single_lane(road, lane)
    there = only.project(state.position_m)
    room = (state.width_m + state.width_m[:, :1]) / 2 + ROOM_M
    ego_m = there.across_m[:, :1]
    aim_m = torch.zeros_like(ego_m) if offset_m is None else offset_m[:, None]
    low, high = torch.minimum(ego_m, aim_m) - room, torch.maximum(ego_m, aim_m) + room
    bound_m = there.across_m + to_go_m(state, road)
    meets = (there.across_m > low) & (there.across_m < high) | (bound_m > low) & (bound_m < high)
    meets &= (only.open_start | (there.along_m >= -room)) & (only.open_end | (there.remaining_m >= -room))
    return nearest_along(there.along_m, meets & state.valid & (lane != NO_LANE)[:, None])


def bound_lane(state: TrafficState, road: Road) -> Tensor:
    """The lane that each is bound for, long `(batch, agent)`.

    Who moves away from its lane's centre is bound for the next lane if it would cross the marking within `FORESEEN_S`;
    who moves towards it, as in `observed_intents`: highway-env's drivers settle in 0.6 s.
    """
    return _bound(state, road, road.project(state.position_m))


def to_go_m(state: TrafficState, road: Road) -> Tensor:
    """How far across each still goes, `(batch, agent)`, left positive.

    Who is bound for another lane goes to its centre. Who stays, people and lorries too, keeps off the centre: it goes
    where its drift leads in 0.6 s, which in highway-env is the centre.
    """
    here = road.project(state.position_m)
    bound = _bound(state, road, here)
    stays_m = _sideways_mps(state, here) * TAU_LATERAL_S
    return torch.where(bound == here.lane, stays_m, -road.project(state.position_m, bound).across_m)


def _bound(state: TrafficState, road: Road, here: RoadPosition) -> Tensor:
    sideways_mps = _sideways_mps(state, here)
    far_m = (sideways_mps * FORESEEN_S).minimum(here.width_m).maximum(-here.width_m)  # one lane over, no further
    drift_m = torch.where(sideways_mps * here.across_m > 0, far_m, sideways_mps * TAU_LATERAL_S)
    left = torch.stack([-here.heading_rad.sin(), here.heading_rad.cos()], -1)
    return road.project(state.position_m + drift_m[..., None] * left).lane


def _sideways_mps(state: TrafficState, here: RoadPosition) -> Tensor:
    return state.speed_mps * (state.heading_rad - here.heading_rad).sin()
