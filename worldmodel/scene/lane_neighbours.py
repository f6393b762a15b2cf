"""Who drives near the ego, and ahead of and behind it on a lane."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from drivecast.worldmodel.scene.road import NO_LANE, Road
from drivecast.worldmodel.scene.traffic import TrafficState

LANE_REACH = 0.75  # of the lane's width: how far from its centre a vehicle is still met on it (highway-env: 1 m over)


@dataclass(frozen=True)
class LaneNeighbours:
    """The vehicles next to the ego on one lane, each `(batch,)`; distances are centre to centre along the lane.

    Where there is none, the index is -1 and the distance infinite.
    """

    leader: Tensor  # long
    leader_distance_m: Tensor
    follower: Tensor  # long
    follower_distance_m: Tensor


NeighbourSource = Callable[[TrafficState, Road, Tensor], LaneNeighbours]  # as `lane_neighbours`


def nearest_indices(state: TrafficState, count: int, kept: Tensor | None = None) -> Tensor:
    """Which agents of `state (batch, agent)` are those of `nearest_agents`, long `(batch, min(count + 1, agent))`.

    Those that are `kept`, bool `(batch, agent)`, count as the nearest.
    """
    batch, agents = state.heading_rad.shape
    if agents <= count + 1:
        return torch.arange(agents, device=state.valid.device).expand(batch, agents)
    distance = (state.position_m - state.position_m[:, :1]).norm(dim=-1).masked_fill(~state.valid, torch.inf)
    if kept is not None:
        distance = distance.masked_fill(kept, -0.5)
    distance[:, 0] = -1.0
    return distance.topk(count + 1, largest=False).indices


def pick_agents(state: TrafficState, agents: Tensor) -> TrafficState:
    """The agents `agents (batch, n)` of each scene, as `(batch, n)`; of a history, as `(batch, time, n)`."""
    dims = state.valid.dim()
    index = agents if dims == 2 else agents[:, None].expand(-1, state.valid.shape[1], -1)

    def pick(values: Tensor) -> Tensor:
        at = index if values.dim() == dims else index[..., None].expand(*index.shape, values.shape[-1])
        return values.gather(dims - 1, at)

    return state.map(pick)


def pick_attended(attended: Tensor, agents: Tensor) -> Tensor:
    """Whether each of the agents `agents (batch, n)` is attended to, of `attended (batch, concept, agent)`."""
    return attended.gather(2, agents[:, None].expand(-1, attended.shape[1], -1))


def nearest_agents(state: TrafficState, count: int) -> TrafficState:
    """The ego and the `count` agents nearest to it, as `(batch, min(count + 1, agent))`, nearest first."""
    if state.heading_rad.shape[1] <= count + 1:
        return state
    return pick_agents(state, nearest_indices(state, count))


def agent_at(state: TrafficState, index: Tensor) -> TrafficState:
    """Agent `index (batch,)` of each scene, as `(batch,)`; index -1 gives the ego, marked not valid."""
    picked = pick_agents(state, index.clamp_min(0)[:, None])[:, 0]
    return replace(picked, valid=picked.valid & (index >= 0))


def lane_neighbours(state: TrafficState, road: Road, lane: Tensor, reach: float = LANE_REACH) -> LaneNeighbours:
    """Nearest vehicles ahead of and behind the ego on `lane (batch,)`, whatever lane the ego itself is on.

    A vehicle is on the lane when its centre is within `reach` of the lane's width from its centre line, and no further
    beyond a closed end. The ego's place is its projection on that lane. Lane -1 has no vehicles.
    Source: highway-env `Road.neighbour_vehicles`, whose margin of 1 m over half a 4 m lane is `reach` 0.75.

    Args: `state (batch, agent)`; `lane` an index into the road's lanes.
    """
    only = single_lane(road, lane)
    there = only.project(state.position_m)
    before = torch.where(only.open_start, 0.0, -there.along_m)
    beyond = torch.where(only.open_end, 0.0, -there.remaining_m)
    away_m = torch.stack([there.across_m.abs(), before, beyond]).amax(0)
    on_lane = (away_m <= reach * there.width_m) & state.valid & (lane != NO_LANE)[:, None]
    return nearest_along(there.along_m, on_lane)


def nearest_along(along_m: Tensor, counts: Tensor) -> LaneNeighbours:
    """Nearest ahead of and behind the ego, along a lane, of those who count; both `(batch, agent)`, the ego first."""
    counts = torch.cat([torch.zeros_like(counts[:, :1]), counts[:, 1:]], 1)
    ahead_m = along_m - along_m[:, :1]
    leader_m, leader = torch.where(counts & (ahead_m >= 0), ahead_m, torch.inf).min(1)
    follower_m, follower = torch.where(counts & (ahead_m < 0), -ahead_m, torch.inf).min(1)
    return LaneNeighbours(
        leader=torch.where(leader_m.isinf(), -1, leader),
        leader_distance_m=leader_m,
        follower=torch.where(follower_m.isinf(), -1, follower),
        follower_distance_m=follower_m,
    )


def longest_lane(road: Road) -> Tensor:
    """Index of the longest lane of each scene, `(batch,)`: the axis along which progress is measured."""
    steps = (road.centre_m[:, :, 1:] - road.centre_m[:, :, :-1]).norm(dim=-1)
    return (steps.sum(-1) * (road.point_count > 0)).argmax(-1)


def single_lane(road: Road, lane: Tensor) -> Road:
    """The road with only `lane (batch,)` of each scene, `(batch, 1, point)`: cheap to project on."""
    index = lane.clamp_min(0)

    def pick(tensor: Tensor) -> Tensor:
        return tensor.gather(1, index.view(-1, *[1] * (tensor.dim() - 1)).expand(-1, 1, *tensor.shape[2:]))

    return road.map(pick)
