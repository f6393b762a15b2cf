"""When vehicles touch, when they would, and whose fault it was: oriented boxes by separating axes, batched."""

from __future__ import annotations

import math
from enum import IntEnum

import torch
from torch import Tensor

from drivecast.worldmodel.scene.lane_neighbours import pick_agents
from drivecast.worldmodel.scene.road import Road
from drivecast.worldmodel.scene.traffic import TrafficState, along_and_left

STANDING_MPS = 0.05  # below it a vehicle counts as standing (nuPlan `STOPPED_SPEED_THRESHOLD`)
AHEAD_RAD = math.radians(30.0)  # nuPlan `is_agent_ahead`: bearing of the other's centre within this of the heading
BEHIND_RAD = math.radians(150.0)  # nuPlan `is_agent_behind`


class ContactKind(IntEnum):
    """Where the ego was touched, or how; nuPlan's `CollisionType` with its two standing cases."""

    NONE = 0
    FRONT = 1  # the ego's front bumper is in the other's box
    SIDE = 2  # any other contact between moving vehicles
    REAR = 3  # the other is behind
    STANDING_OTHER = 4  # the ego moved into a vehicle that stands
    STANDING_EGO = 5  # the ego stood


def _axes_and_reach(state: TrafficState, others: TrafficState) -> tuple[Tensor, Tensor]:
    """The four separating axes of each pair, `(..., 4, 2)`, and how far both boxes reach along them, `(..., 4)`."""
    own, other = state.direction, others.direction
    own, other = torch.broadcast_tensors(own, other)
    axes = torch.stack([own, _left_of(own), other, _left_of(other)], -2)

    def reach(direction: Tensor, length_m: Tensor, width_m: Tensor) -> Tensor:
        along = (axes * direction[..., None, :]).sum(-1).abs() * (length_m / 2)[..., None]
        across = (axes * _left_of(direction)[..., None, :]).sum(-1).abs() * (width_m / 2)[..., None]
        return along + across

    return axes, reach(own, state.length_m, state.width_m) + reach(other, others.length_m, others.width_m)


def _left_of(direction: Tensor) -> Tensor:
    return torch.stack([-direction[..., 1], direction[..., 0]], -1)


def separation_m(state: TrafficState, others: TrafficState) -> Tensor:
    """Largest gap between the boxes over the four separating axes, for any shapes that broadcast.

    Positive: the boxes are at least that far apart. Negative: they overlap, and moving one by this much parts them.
    Source: Gottschalk, Lin, Manocha 1996, "OBBTree", section 5 (separating axis theorem, in the plane).
    """
    axes, reach = _axes_and_reach(state, others)
    offset = others.position_m - state.position_m
    return ((axes * offset[..., None, :]).sum(-1).abs() - reach).amax(-1)


def parallel_overlap_m(state: TrafficState) -> tuple[Tensor, Tensor, Tensor]:
    """How far the boxes of each pair reach into each other along and across, both positive: they touch.

    Boxes are taken as parallel: cars that touch on a road nearly are, and it is smooth where `separation_m` is not.

    Returns:
        Along and across the first one's heading, m, and which pairs there are, bool; each `(..., agent, agent)`.
    """
    offset = state.position_m[..., :, None, :] - state.position_m[..., None, :, :]
    forward, left = along_and_left(offset, state.direction[..., :, None, :])
    length = (state.length_m[..., :, None] + state.length_m[..., None, :]) / 2
    width = (state.width_m[..., :, None] + state.width_m[..., None, :]) / 2
    pairs = state.valid[..., :, None] & state.valid[..., None, :]
    pairs = pairs & ~torch.eye(pairs.shape[-1], dtype=torch.bool, device=pairs.device)
    return length - forward.abs(), width - left.abs(), pairs


def ego_separation_m(state: TrafficState) -> Tensor:
    """Separation of the ego (agent 0) from each agent of `state (..., agent)`; infinite from itself and the absent."""
    gap = separation_m(_ego(state), state)
    gap = gap.masked_fill(~(state.valid & state.valid[..., :1]), torch.inf)
    return torch.cat([torch.full_like(gap[..., :1], torch.inf), gap[..., 1:]], -1)


def ego_contacts(state: TrafficState, tolerance_m: float = 0.0) -> Tensor:
    """Agents whose box overlaps the ego's by more than `tolerance_m`: bool `(..., agent)`."""
    return ego_separation_m(state) < -tolerance_m


def ego_time_to_collision_s(state: TrafficState, road: Road | None = None) -> Tensor:
    """Time until the ego's box meets each agent's if all keep velocity and heading: `(batch, agent)`, inf for never.

    On each separating axis the boxes' shadows overlap during one interval of time; they meet when all four do:
    the latest entry, if no shadow has left before. Exact, where nuPlan steps through time. Zero in contact.

    As in nuPlan's `time_to_collision_within_bound`, only vehicles ahead count (bearing within 30 degrees); while the
    ego straddles lanes (only known with `road`), all that are not behind it; and none while the ego stands.
    """
    ego = _ego(state)
    axes, reach = _axes_and_reach(ego, state)
    offset = (axes * (state.position_m - ego.position_m)[..., None, :]).sum(-1)
    closing = (axes * (state.velocity_mps - ego.velocity_mps)[..., None, :]).sum(-1)
    still = closing.abs() < 1e-6
    rate = torch.where(still, torch.ones_like(closing), closing)
    first, second = (-reach - offset) / rate, (reach - offset) / rate
    apart = offset.abs() > reach
    enter = torch.where(still, torch.where(apart, torch.inf, -torch.inf), torch.minimum(first, second))
    leave = torch.where(still, torch.where(apart, -torch.inf, torch.inf), torch.maximum(first, second))
    enter, leave = enter.amax(-1), leave.amin(-1)
    meets = (enter <= leave) & (leave >= 0)

    bearing = _bearing_rad(state)
    relevant = bearing < AHEAD_RAD
    if road is not None:
        relevant = relevant | (straddles_lanes(state, road)[..., None] & (bearing < BEHIND_RAD))
    relevant = relevant & state.valid & state.valid[..., :1] & (ego.speed_mps > STANDING_MPS)
    relevant = torch.cat([torch.zeros_like(relevant[..., :1]), relevant[..., 1:]], -1)
    return torch.where(meets & relevant, enter.clamp_min(0.0), torch.inf)


def straddles_lanes(state: TrafficState, road: Road, beyond_m: float = 0.0) -> Tensor:
    """Whether the ego's box reaches more than `beyond_m` over its lane, bool `(batch,)`; `state (batch, agent)`."""
    ego = _ego(state)
    there = road.project(ego.position_m)
    turn = ego.heading_rad - there.heading_rad
    reach = turn.sin().abs() * ego.length_m / 2 + turn.cos().abs() * ego.width_m / 2
    return (there.across_m.abs() + reach > there.width_m / 2 + beyond_m)[..., 0]


def contact_kind(state: TrafficState, hit: Tensor) -> Tensor:
    """How the ego touched agent `hit (batch,)` (-1: none): `ContactKind` as long `(batch,)`.

    The order of nuPlan's `classify_collision`: the ego stands, the other stands, the other is behind (bearing over 150
    degrees), the ego's front bumper is in the other's box, otherwise the side.
    """
    index = hit.clamp_min(0)[..., None]
    ego = _ego(state)
    other = pick_agents(state, index)
    bumper = TrafficState(
        position_m=ego.position_m + ego.direction * (ego.length_m / 2)[..., None],
        heading_rad=ego.heading_rad,
        speed_mps=ego.speed_mps,
        length_m=torch.zeros_like(ego.length_m),
        width_m=ego.width_m,
        valid=ego.valid,
    )
    front = separation_m(bumper, other)[..., 0] <= 0
    behind = _bearing_rad(state).gather(1, index)[..., 0] > BEHIND_RAD
    kind = torch.where(front, int(ContactKind.FRONT), int(ContactKind.SIDE))
    kind = torch.where(behind, int(ContactKind.REAR), kind)
    kind = torch.where(other.speed_mps[..., 0].abs() <= STANDING_MPS, int(ContactKind.STANDING_OTHER), kind)
    kind = torch.where(ego.speed_mps[..., 0].abs() <= STANDING_MPS, int(ContactKind.STANDING_EGO), kind)
    return torch.where(hit >= 0, kind, int(ContactKind.NONE))


def at_fault(kind: Tensor, keeps_lane: Tensor) -> Tensor:
    """Whether a contact of `kind (batch,)` is the ego's fault, given that it kept its lane: bool `(batch,)`.

    Its fault: running into something (front, or a vehicle that stands), and any contact at the side or from behind
    while it was not keeping its lane (cutting in). Not its fault: being run into while it stands or keeps its lane.
    Source: nuPlan's `no_ego_at_fault_collisions`, there without the lane condition for contacts from behind.
    """
    ran_into = (kind == ContactKind.FRONT) | (kind == ContactKind.STANDING_OTHER)
    touched = (kind == ContactKind.SIDE) | (kind == ContactKind.REAR)
    return ran_into | (touched & ~keeps_lane)


def nearest_contact(state: TrafficState) -> Tensor:
    """Agent whose box is nearest to (or deepest in) the ego's, long `(batch,)`; -1 where there is none."""
    gap = ego_separation_m(state)
    nearest = gap.argmin(-1)
    return torch.where(gap.amin(-1).isinf(), -1, nearest)


def _ego(state: TrafficState) -> TrafficState:
    """The ego alone, `(..., 1)`."""
    agent = state.heading_rad.dim() - 1
    return state.map(lambda tensor: tensor.narrow(agent, 0, 1))


def _bearing_rad(state: TrafficState) -> Tensor:
    """Unsigned angle at the ego between its heading and each agent's centre, `(..., agent)`."""
    ego = _ego(state)
    ahead, left = along_and_left(state.position_m - ego.position_m, ego.direction)
    return torch.atan2(left.abs(), ahead)
