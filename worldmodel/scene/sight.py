"""What a vehicle sees: itself, its lane and its neighbours, as the numbers that networks are given."""

from __future__ import annotations

import torch
from torch import Tensor

from drivecast.worldmodel.scene.neighbours import FEATURES_PER_SLOT, SLOTS, Neighbours
from drivecast.worldmodel.scene.road import NO_LANE, Road, RoadPosition
from drivecast.worldmodel.scene.traffic import TrafficState

OWN_FEATURES = 14
SIGHT_FEATURES = OWN_FEATURES + len(SLOTS) * FEATURES_PER_SLOT


def sight(
    own: TrafficState,
    before: TrafficState,
    on_lane: RoadPosition,
    road: Road,
    neighbours: Neighbours,
    interval_s: float,
) -> Tensor:
    """Features of order one, `(batch, watcher, SIGHT_FEATURES)`; differentiable in all motion.

    Args:
        own: Those who look, `(batch, watcher)`.
        before: The same, `interval_s` earlier.
        on_lane: Where they are on the road.
        road: The road.
        neighbours: Of them.
        interval_s: Time between the two, s.
    """
    speed, error = own.speed_mps, (own.heading_rad - on_lane.heading_rad).sin()
    both = own.valid & before.valid
    acceleration = ((speed - before.speed_mps) / interval_s).clamp(-8.0, 8.0) * both
    yaw_rate = ((own.heading_rad - before.heading_rad).sin() / interval_s).clamp(-1.0, 1.0) * both
    left, right = (road.neighbour(on_lane.lane, side) != NO_LANE for side in ("left", "right"))
    closed = ~road.is_open_end(on_lane.lane)
    features = [
        speed / 15,
        torch.exp(-speed / 2),
        (road.speed_limit(on_lane.lane) - speed) / 10,
        acceleration / 3,
        yaw_rate * 10,
        on_lane.across_m / 2,
        on_lane.width_m - 4,
        error * 10,
        error * speed,
        left.to(speed),
        right.to(speed),
        closed * torch.exp(-on_lane.remaining_m.clamp_min(0.0) / 60),
        (own.length_m - 5) / 5,
        own.width_m - 2,
    ]
    return torch.cat([torch.stack(features, -1), neighbours.features().flatten(2)], -1)
