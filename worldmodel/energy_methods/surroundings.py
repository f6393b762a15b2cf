"""What the energy of a vehicle's future is conditioned on: its past, its road and the others, past and future."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from drivecast.worldmodel.scene.kinematics import wrapped
from drivecast.worldmodel.scene.lane_neighbours import nearest_indices, pick_agents
from drivecast.worldmodel.scene.road import NO_LANE, Road
from drivecast.worldmodel.scene.traffic import TrafficState, _TensorRecord, along_and_left

FRAME_S = 0.2
HISTORY_S = 2.0
OTHERS = 5
MOST_LANES = 8
FAR_M = 20.0  # an edge of the road beyond it is as one there
GLANCES = (0.25, 0.5, 1.0)  # of the horizon: when others are looked at by the encoder of the past
OWN_FEATURES, OTHER_FEATURES = 2 * round(HISTORY_S / FRAME_S) + 6, 6 + 2 * len(GLANCES)


@dataclass(frozen=True)
class Surroundings(_TensorRecord):
    """Vehicle 0 of each scene and what is around it, `(batch,)`.

    All is in the frame of its lane: its present position is the origin, x points along the lane there, y to the left.
    """

    own: Tensor  # (batch, OWN_FEATURES): its past at 5 Hz against constant velocity, speed, place on the road
    other: Tensor  # (batch, OTHERS, OTHER_FEATURES): where each stands, its motion now and at three moments to come
    other_valid: Tensor  # (batch, OTHERS) bool
    other_path_m: Tensor  # (batch, frame, OTHERS, 2): where each will be
    size_m: Tensor  # (batch, OTHERS, 2): half the sum of both lengths, and of both widths
    velocity_mps: Tensor  # (batch, 2): its present one
    edge_m: Tensor  # (batch, 2): from its centre to the left and right edge of the road
    off_centre_m: Tensor  # (batch,): to the left of the centre of its lane
    lane_width_m: Tensor  # (batch,)
    origin_m: Tensor  # (batch, 2)
    heading_rad: Tensor  # (batch,) of the lane there

    def to_lane(self, position_m: Tensor) -> Tensor:
        """`position_m (batch, ..., 2)` of the world in the lane's frame."""
        shape = (len(position_m), *[1] * (position_m.dim() - 2))
        direction = torch.stack([self.heading_rad.cos(), self.heading_rad.sin()], -1).view(*shape, 2)
        return torch.stack(along_and_left(position_m - self.origin_m.view(*shape, 2), direction), -1)

    def to_world(self, position_m: Tensor) -> Tensor:
        """The inverse of `to_lane`."""
        shape = (len(position_m), *[1] * (position_m.dim() - 2))
        cos, sin = self.heading_rad.cos().view(shape), self.heading_rad.sin().view(shape)
        along, left = position_m.unbind(-1)
        turned = torch.stack([along * cos - left * sin, along * sin + left * cos], -1)
        return turned + self.origin_m.view(*shape, 2)


def frames_of(horizon_s: float) -> int:
    """Frames of a future at 5 Hz."""
    return round(horizon_s / FRAME_S)


def surroundings_of(history: TrafficState, future: TrafficState, road: Road, dt_s: float) -> Surroundings:
    """Of vehicle 0 after `history (batch, time, agent)`, if the others move as in `future (batch, time, agent)`.

    Both are `dt_s` apart; `HISTORY_S` of the past are needed.
    """
    every = round(FRAME_S / dt_s)
    agents = nearest_indices(history[:, -1], OTHERS)
    history, future = pick_agents(history, agents), pick_agents(future, agents)[:, every - 1 :: every]
    history, present = history[:, -1 - round(HISTORY_S / dt_s) :: every], history[:, -1]
    there = road.project(present.position_m[:, :1])
    blank = _blank(present, there.heading_rad[:, 0])
    turned = present.heading_rad - there.heading_rad
    velocity = present.speed_mps[..., None] * torch.stack([turned.cos(), turned.sin()], -1)  # (batch, agent, 2)
    own_velocity = velocity[:, 0]
    ago_s = -FRAME_S * torch.arange(history.valid.shape[1] - 1, 0, -1).to(velocity)
    past = blank.to_lane(history.position_m[:, :-1, 0]) - ago_s[:, None] * own_velocity[:, None]
    centre_m, width = there.across_m[:, 0], there.width_m[:, 0]
    edge = torch.stack([_edge_m(road, present, side) for side in ("left", "right")], -1)
    own = [
        past.flatten(1) / 2.0,
        (own_velocity[:, :1] / 20.0),
        own_velocity[:, 1:],
        wrapped(turned[:, :1]) / 0.05,
        (centre_m / width)[:, None],
        edge / 5.0,
    ]
    path, valid = blank.to_lane(future.position_m)[:, :, 1:], present.valid[:, 1:] & future.valid[:, :, 1:].all(1)
    place = blank.to_lane(present.position_m)[:, 1:]
    found = Surroundings(
        own=torch.cat(own, -1).clamp(-10.0, 10.0),
        other=_features(place, velocity, path, present) * valid[..., None],
        other_valid=valid,
        other_path_m=path,
        size_m=torch.stack([_half_sum(present.length_m), _half_sum(present.width_m)], -1),
        velocity_mps=own_velocity,
        edge_m=edge,
        off_centre_m=centre_m,
        lane_width_m=width,
        origin_m=blank.origin_m,
        heading_rad=blank.heading_rad,
    )
    return _padded(found)


def _features(place: Tensor, velocity: Tensor, path: Tensor, present: TrafficState) -> Tensor:
    """What the encoder of the past sees of each other, `(batch, other, OTHER_FEATURES)`."""
    relative = velocity[:, 1:] - velocity[:, :1]
    frames = path.shape[1]
    moves = []
    for share in GLANCES:
        frame = max(round(share * frames) - 1, 0)
        expected = place + velocity[:, 1:] * (frame + 1) * FRAME_S
        moves.append((path[:, frame] - expected) / torch.tensor([5.0, 2.0]))
    size = torch.stack([present.length_m[:, 1:] / 5.0 - 1.0, torch.tanh(place[..., 0] / 8.0)], -1)
    now = torch.cat([place / torch.tensor([40.0, 4.0]), relative / torch.tensor([5.0, 1.0]), size], -1)
    return torch.cat([now, *moves], -1).clamp(-10.0, 10.0)


def _half_sum(values: Tensor) -> Tensor:
    return (values[:, 1:] + values[:, :1]) / 2


def _blank(present: TrafficState, heading_rad: Tensor) -> Surroundings:
    """Only the frame."""
    nothing = torch.zeros(0)
    rest = dict.fromkeys(Surroundings.__dataclass_fields__, nothing)
    return Surroundings(**(rest | {"origin_m": present.position_m[:, 0], "heading_rad": heading_rad}))


def _edge_m(road: Road, present: TrafficState, side: str) -> Tensor:
    """From vehicle 0 to the road's edge on one side, m, `(batch,)`, at most `FAR_M`."""
    position = present.position_m[:, :1]
    there = road.project(position)
    sign = 1.0 if side == "left" else -1.0
    found, lane = there.width_m / 2 - sign * there.across_m, there.lane
    for _ in range(MOST_LANES):
        beside = road.neighbour(lane, side)
        exists = beside != NO_LANE
        lane = torch.where(exists, beside, lane)
        width = road.project(position, lane).width_m
        found = found + torch.where(exists, width, torch.zeros_like(width))
        if not bool(exists.any()):
            break
    return found[:, 0].clamp(-FAR_M, FAR_M)


def _padded(of: Surroundings) -> Surroundings:
    """With `OTHERS` others, those that are missing invalid."""
    more = OTHERS - of.other.shape[1]
    if more <= 0:
        return of

    def pad(values: Tensor, dim: int) -> Tensor:
        shape = list(values.shape)
        shape[dim] = more
        return torch.cat([values, values.new_zeros(shape)], dim)

    changed = {"other": pad(of.other, 1), "other_valid": pad(of.other_valid, 1), "size_m": pad(of.size_m, 1)}
    kept = {name: getattr(of, name) for name in Surroundings.__dataclass_fields__}
    return Surroundings(**(kept | changed | {"other_path_m": pad(of.other_path_m, 2)}))
