"""Whom a vehicle watches: seven directional neighbours in its lane's frame, found without gradient."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from drivecast.worldmodel.scene.road import RoadPosition
from drivecast.worldmodel.scene.traffic import TrafficState, along_and_left

SLOTS = ("leader", "second_leader", "follower", "left_ahead", "left_behind", "right_ahead", "right_behind")
AHEAD_M, BEHIND_M, BESIDE_M = 120.0, 80.0, 6.0  # how far a vehicle sees
CORRIDOR_MARGIN_M = 0.3  # beside the touching width, still "in my way"
FEATURES_PER_SLOT = 9


@dataclass(frozen=True)
class Neighbours:
    """Who fills each slot of each vehicle, and how it lies and moves relative to it, in the vehicle's lane frame."""

    index: Tensor  # (batch, agent, slot) long, into the agents
    present: Tensor  # (batch, agent, slot) bool
    ahead_m: Tensor  # (batch, agent, slot) from centre to centre, along the lane
    left_m: Tensor  # (batch, agent, slot) across the lane
    gap_m: Tensor  # (batch, agent, slot) bumper to bumper along the lane; negative when side by side
    closing_mps: Tensor  # (batch, agent, slot) how fast the gap shrinks
    drift_mps: Tensor  # (batch, agent, slot) lateral speed of the neighbour relative to the vehicle, left positive
    speed_mps: Tensor  # (batch, agent, slot)
    length_m: Tensor  # (batch, agent, slot)
    width_m: Tensor  # (batch, agent, slot)

    def features(self) -> Tensor:
        """Scaled features of each slot, zero where it is empty: `(batch, agent, slot, FEATURES_PER_SLOT)`."""
        gap = self.gap_m.clamp_min(0.0)
        columns = [
            self.ahead_m / 40,
            torch.exp(-gap / 12),
            self.closing_mps / 5,
            (self.closing_mps / gap.clamp_min(1.0)).clamp(-2.0, 2.0),
            self.left_m / 4,
            self.drift_mps,
            self.speed_mps / 15,
            (self.length_m - 5) / 5,
            torch.ones_like(gap),
        ]
        return torch.stack(columns, -1) * self.present[..., None]


def find_neighbours(scene: TrafficState, on_lane: RoadPosition, watchers: int | None = None) -> Neighbours:
    """The directional neighbours of the first `watchers` agents (default: all) of `scene (batch, agent)`.

    A neighbour is in the vehicle's corridor when their bodies would overlap sideways (plus a margin), else to its
    left or right; of each direction the nearest counts, ahead in the corridor the nearest two. The choice is
    discrete; the relative quantities are differentiable in both vehicles' states.
    """
    batch, agents = scene.speed_mps.shape
    count = agents if watchers is None else watchers
    tangent = torch.stack([on_lane.heading_rad.cos(), on_lane.heading_rad.sin()], -1)[:, :count]
    with torch.no_grad():
        index, present = _select(scene, tangent, count)
    flat = index.flatten(1)  # (batch, watcher·slot)

    def of_neighbour(values: Tensor) -> Tensor:
        return values.gather(1, flat).view(batch, count, len(SLOTS))

    velocity = scene.velocity_mps
    offset, relative = (
        torch.stack(
            [
                of_neighbour(vector[..., 0]) - vector[:, :count, None, 0],
                of_neighbour(vector[..., 1]) - vector[:, :count, None, 1],
            ],
            -1,
        )
        for vector in (scene.position_m, velocity)
    )
    along, left = along_and_left(offset, tangent[:, :, None])
    along_speed, left_speed = along_and_left(relative, tangent[:, :, None])
    length = of_neighbour(scene.length_m)
    side = torch.where(along.detach() >= 0, 1.0, -1.0)
    return Neighbours(
        index=index,
        present=present,
        ahead_m=along,
        left_m=left,
        gap_m=side * along - (length + scene.length_m[:, :count, None]) / 2,
        closing_mps=-side * along_speed,
        drift_mps=left_speed,
        speed_mps=of_neighbour(scene.speed_mps),
        length_m=length,
        width_m=of_neighbour(scene.width_m),
    )


def _select(scene: TrafficState, tangent: Tensor, count: int) -> tuple[Tensor, Tensor]:
    x, y = scene.position_m[..., 0], scene.position_m[..., 1]
    dx, dy = x[:, None, :] - x[:, :count, None], y[:, None, :] - y[:, :count, None]  # (batch, watcher, agent)
    along = dx * tangent[..., None, 0] + dy * tangent[..., None, 1]
    left = dy * tangent[..., None, 0] - dx * tangent[..., None, 1]
    itself = torch.eye(scene.speed_mps.shape[1], dtype=torch.bool, device=x.device)[:count]
    seen = scene.valid[:, None, :] & ~itself & (left.abs() < BESIDE_M) & (along < AHEAD_M) & (along > -BEHIND_M)
    touching = (scene.width_m[:, None, :] + scene.width_m[:, :count, None]) / 2 + CORRIDOR_MARGIN_M
    corridor = left.abs() < touching
    ahead = along >= 0
    distance = along.abs()

    def masked(where: Tensor) -> Tensor:
        return distance.masked_fill(~(seen & where), torch.inf)

    if scene.speed_mps.shape[1] > 1:
        leaders = masked(corridor & ahead).topk(2, dim=-1, largest=False)
    else:
        leaders = masked(corridor & ahead).expand(-1, -1, 2).topk(2, dim=-1, largest=False)
    sides = [
        masked(corridor & ~ahead),
        masked(~corridor & ahead & (left > 0)),
        masked(~corridor & ~ahead & (left > 0)),
        masked(~corridor & ahead & (left < 0)),
        masked(~corridor & ~ahead & (left < 0)),
    ]
    nearest = torch.stack(sides, 2).min(-1)  # (batch, watcher, direction)
    index = torch.cat([leaders.indices.clamp_max(scene.speed_mps.shape[1] - 1), nearest.indices], -1)
    present = torch.cat([leaders.values, nearest.values], -1).isfinite()
    return index, present
