"""Bounds within which a vehicle can still stop behind its leader and keep off who is beside it.

Recorded drivers keep them: on US-101 the acceleration in 99.8 % of moments, the lateral speed in 99.9 %. A network that
has to answer what it has never seen, such as an ego that brakes hard, would not.
"""

from __future__ import annotations

import torch
from torch import Tensor

from drivecast.worldmodel.scene.neighbours import SLOTS, Neighbours
from drivecast.worldmodel.scene.road import RoadPosition
from drivecast.worldmodel.scene.traffic import TrafficState

BRAKING_MPS2 = 6.0  # with which the leader, and then the vehicle, may brake to a stop
GAP_M = 0.5  # that is left between the two when they stand
HARDEST_MPS2 = 8.0
AHEAD = [SLOTS.index(name) for name in ("leader", "second_leader", "left_ahead", "right_ahead")]
FORESEEN_S = 1.0  # who drifts here will be ahead
SIDEWAYS_MPS2 = 1.0  # with which a drift towards someone can be stopped
ROOM_M = 0.1  # that is left beside them
BESIDE_M, BESIDE_S = 1.0, 1.0  # beside is who is so near from bumper to bumper, or will be so soon
FLEES_MPS = 0.5  # no faster from someone who drifts here
HARDEST_TURN_MPS2 = 3.0
SHORTEST_S = 0.2  # in which a bound is reached
CREEPING_MPS = 2.0  # below, turning moves nobody sideways
FREE_MPS = 1e3  # no bound, and finite: gradients of infinity are NaN


def bounds(scene: TrafficState, on_lane: RoadPosition, neighbours: Neighbours, interval_s: float) -> Tensor:
    """What each of `scene (batch, agent)` may do for the next `interval_s`, `(batch, agent, 3)`.

    Most acceleration in m/s², least and most curvature in 1/m; infinite where nothing binds.
    """
    time_s = max(interval_s, SHORTEST_S)
    return torch.stack(
        [_most_acceleration(scene, neighbours, time_s), *_curvatures(scene, on_lane, neighbours, time_s)], -1
    )


def unbounded(scene: TrafficState) -> Tensor:
    """The same where nobody keeps to bounds."""
    free = torch.full_like(scene.speed_mps, torch.inf)
    return torch.stack([free, -free, free], -1)


def within(acceleration: Tensor, curvature: Tensor, bound: Tensor) -> tuple[Tensor, Tensor]:
    """Both `(batch, agent)` held within `bound (batch, agent, 3)`."""
    most, least_turn, most_turn = bound.unbind(-1)
    return torch.minimum(acceleration, most), curvature.maximum(least_turn).minimum(most_turn)


def _most_acceleration(scene: TrafficState, neighbours: Neighbours, time_s: float) -> Tensor:
    """So much that the vehicle will be no faster than v, with v² = v_leader² + 2 b (gap - GAP_M).

    From v it stops behind the leader, who brakes by b now, if it brakes by as much. Leaders are those ahead that it
    would run into if all went straight on along its lane, now or once they have drifted on for `FORESEEN_S`.
    Krauss 1998, "Microscopic modeling of traffic flow", eq. 3.3, without a reaction time; Gipps 1981.
    """
    apart_m, side = _apart_m(scene, neighbours), torch.sign(neighbours.left_m)
    then_m = apart_m - (-side * neighbours.drift_mps).clamp_min(0.0) * FORESEEN_S
    leads = neighbours.present & ((apart_m < 0.0) | (then_m < 0.0) & (neighbours.gap_m > 0.0))
    leads, closing = leads[..., AHEAD], neighbours.closing_mps[..., AHEAD]
    leader_mps = (scene.speed_mps[..., None] - closing).clamp_min(0.0)
    gap_m = (neighbours.gap_m[..., AHEAD] - closing * time_s - GAP_M).clamp_min(0.0)
    safe_mps = (leader_mps.square() + 2 * BRAKING_MPS2 * gap_m + 1e-6).sqrt()
    most = (safe_mps - scene.speed_mps[..., None]) / time_s
    return torch.where(leads, most.clamp_min(-HARDEST_MPS2), torch.inf).amin(-1)


def _curvatures(
    scene: TrafficState, on_lane: RoadPosition, neighbours: Neighbours, time_s: float
) -> tuple[Tensor, Tensor]:
    """Least and most: so that it nears nobody beside it faster than it can stop to."""
    apart_m = _apart_m(scene, neighbours)
    near = neighbours.gap_m - neighbours.closing_mps.clamp_min(0.0) * BESIDE_S < BESIDE_M
    beside = neighbours.present & near & (apart_m > -ROOM_M)
    own_mps = scene.speed_mps * (scene.heading_rad - on_lane.heading_rad).sin()
    theirs_mps = own_mps[..., None] + neighbours.drift_mps  # to the left
    towards_mps = (2 * SIDEWAYS_MPS2 * (apart_m - ROOM_M).clamp_min(0.0) + 1e-6).sqrt()
    on_left, on_right = beside & (neighbours.left_m > 0), beside & (neighbours.left_m <= 0)
    most_mps = torch.where(on_left, (theirs_mps + towards_mps).clamp_min(-FLEES_MPS), FREE_MPS).amin(-1)
    least_mps = torch.where(on_right, (theirs_mps - towards_mps).clamp_max(FLEES_MPS), -FREE_MPS).amax(-1)
    middle_mps = (most_mps + least_mps) / 2  # for who is squeezed from both sides
    most_mps, least_mps = most_mps.maximum(middle_mps), least_mps.minimum(middle_mps)
    speed_squared = scene.speed_mps.clamp_min(CREEPING_MPS).square()
    hardest = HARDEST_TURN_MPS2 / speed_squared
    least, most = ((mps - own_mps) / (speed_squared * time_s) for mps in (least_mps, most_mps))
    return (
        torch.where(on_right.any(-1), least.minimum(hardest), -torch.inf),
        torch.where(on_left.any(-1), most.maximum(-hardest), torch.inf),
    )


def _apart_m(scene: TrafficState, neighbours: Neighbours) -> Tensor:
    """From side to side across the lane, `(batch, agent, slot)`; negative where one is ahead of the other."""
    return neighbours.left_m.abs() - (neighbours.width_m + scene.width_m[..., None]) / 2
