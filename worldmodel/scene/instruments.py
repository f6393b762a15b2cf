"""What the ego's instruments read: leader, gap, time headway, time to collision. Results and replays show the same."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from drivecast.worldmodel.scene.contact import ego_time_to_collision_s
from drivecast.worldmodel.scene.lane_neighbours import agent_at, lane_neighbours, nearest_agents, nearest_indices
from drivecast.worldmodel.scene.road import Road
from drivecast.worldmodel.scene.traffic import TrafficState

CONSIDERED = 24  # nearest vehicles that are looked at
LEAST_SPEED_MPS = 1.0  # below it a time headway says nothing
FURTHEST_LEADER_M = 100.0  # front to front; who is further ahead is not followed


@dataclass(frozen=True)
class Instruments:
    """One reading per scene, `(batch,)` each.

    Attributes:
        lane: The ego's.
        leader: Agent, the nearest ahead whose centre is on the ego's lane; -1: none.
        gap_m: Along the lane from the ego's front bumper to the leader's rear bumper; NaN: no leader.
        time_headway_s: From the leader's front bumper to the ego's, over the ego's speed (as NGSIM gives it); NaN: no
            leader, or too slow.
        time_to_collision_s: Least of `drivecast.worldmodel.scene.contact.ego_time_to_collision_s` over the vehicles;
            inf: none is on course.
    """

    lane: Tensor
    leader: Tensor
    gap_m: Tensor
    time_headway_s: Tensor
    time_to_collision_s: Tensor


def read_instruments(state: TrafficState, road: Road) -> Instruments:
    """Read them in `state (batch, agent)`, agent 0 being the ego."""
    near = nearest_agents(state, CONSIDERED)
    ego = near[:, 0]
    lane = road.project(ego.position_m[:, None]).lane[:, 0]
    ahead = lane_neighbours(near, road, lane, reach=0.5)
    leader = agent_at(near, ahead.leader)
    fronts_m = ahead.leader_distance_m + (leader.length_m - ego.length_m) / 2
    follows = leader.valid & (fronts_m < FURTHEST_LEADER_M)
    agents = nearest_indices(state, CONSIDERED).gather(1, ahead.leader.clamp_min(0)[:, None])[:, 0]
    return Instruments(
        lane=lane,
        leader=torch.where(follows, agents, -1),
        gap_m=torch.where(follows, (fronts_m - leader.length_m).clamp_min(0.0), torch.nan),
        time_headway_s=torch.where(follows & (ego.speed_mps > LEAST_SPEED_MPS), fronts_m / ego.speed_mps, torch.nan),
        time_to_collision_s=ego_time_to_collision_s(near, road).amin(-1),
    )
