"""Which lanes beside its own an ego may go for now, whatever comes of it."""

from __future__ import annotations

import torch
from torch import Tensor

from drivecast.planner.costs.terms import STANDSTILL_M, asked_braking
from drivecast.worldmodel.rules.lanes_beside import runs_beside, touches
from drivecast.worldmodel.rules.laws import TAU_LATERAL_S
from drivecast.worldmodel.scene.lane_neighbours import single_lane
from drivecast.worldmodel.scene.road import NO_LANE, Road
from drivecast.worldmodel.scene.traffic import TrafficState

SIDES = ("left", "right")
SHARED_M = 0.3  # so far over the marking is still beside a lane


def lanes_open(scene: TrafficState, road: Road, lane: Tensor, most_imposed_mps2: float) -> tuple[Tensor, Tensor]:
    """The lanes to the left and to the right of `lane (row,)` that may be driven where the ego is, `(row,)` each.

    NO_LANE: there is none, or no room for it: the next behind there would have to brake harder than
    `most_imposed_mps2`.
    """
    beside = torch.cat([road.neighbour(lane[:, None], name)[:, 0] for name in SIDES])
    twice = torch.arange(lane.shape[0], device=lane.device).repeat(2)  # len would be exported as a constant
    scene, road, own = scene[twice], road[twice], lane[twice]
    there = (beside != NO_LANE) & runs_beside(scene, road, beside) & touches(scene, road, beside, own)
    free = imposed_mps2(scene, road, beside) < most_imposed_mps2
    found = torch.where(there & free, beside, NO_LANE).view(2, -1)
    return found[0], found[1]


def imposed_mps2(scene: TrafficState, road: Road, lane: Tensor) -> Tensor:
    """Braking that the ego on `lane (row,)` would ask of the next behind it there, m/s²; infinite without room."""
    there = single_lane(road, lane).project(scene.position_m)
    turn = scene.heading_rad - there.heading_rad
    along_mps, drift_m = scene.speed_mps * turn.cos(), scene.speed_mps * turn.sin() * TAU_LATERAL_S
    reach = (there.width_m + scene.width_m) / 2 - SHARED_M
    on_lane = (there.across_m.abs() < reach) | ((there.across_m + drift_m).abs() < reach)
    offset = there.along_m[:, :1] - there.along_m
    gap = offset - (scene.length_m + scene.length_m[:, :1]) / 2
    closing = along_mps - along_mps[:, :1]
    braking = torch.where(gap > STANDSTILL_M, asked_braking(gap, closing), torch.inf)
    behind = on_lane & scene.valid & (offset > -(scene.length_m + scene.length_m[:, :1]) / 2)
    return torch.where(behind, braking, 0.0)[:, 1:].amax(1) if behind.shape[1] > 1 else braking[:, 0] * 0.0
