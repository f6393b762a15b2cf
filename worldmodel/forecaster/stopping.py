"""The acceleration beyond which a vehicle could no longer stop behind its leader: a bound that drivers keep."""

from __future__ import annotations

import torch
from torch import Tensor

from drivecast.worldmodel.scene.neighbours import SLOTS, Neighbours
from drivecast.worldmodel.scene.traffic import TrafficState

BRAKING_MPS2 = 6.0  # with which the leader, and then the vehicle, may brake to a stop
GAP_M = 0.5  # that is left between the two when they stand
HARDEST_MPS2 = 8.0
LEADERS = [SLOTS.index("leader"), SLOTS.index("second_leader")]


def most_acceleration(scene: TrafficState, neighbours: Neighbours, interval_s: float) -> Tensor:
    """Most acceleration `(batch, agent)` of each of `scene (batch, agent)` for the next `interval_s`, in m/s².

    After it, the vehicle is no faster than v with v² = v_leader² + 2 b (gap - GAP_M): so fast that it stops behind the
    leader, who brakes by b now, if it brakes by as much. Leaders are the nearest two that it would run into if all went
    straight on along its lane. Never less than -`HARDEST_MPS2`; infinite without a leader.
    Krauss 1998, "Microscopic modeling of traffic flow", eq. 3.3, without a reaction time; Gipps 1981.
    """
    leaders = neighbours.present[..., LEADERS]
    apart_m = neighbours.left_m[..., LEADERS].abs() - (neighbours.width_m[..., LEADERS] + scene.width_m[..., None]) / 2
    leaders = leaders & (apart_m < 0.0)
    leader_mps = (scene.speed_mps[..., None] - neighbours.closing_mps[..., LEADERS]).clamp_min(0.0)
    gap_m = (neighbours.gap_m[..., LEADERS] - neighbours.closing_mps[..., LEADERS] * interval_s - GAP_M).clamp_min(0.0)
    safe_mps = (leader_mps.square() + 2 * BRAKING_MPS2 * gap_m + 1e-6).sqrt()
    most = (safe_mps - scene.speed_mps[..., None]) / max(interval_s, 0.2)
    return torch.where(leaders, most.clamp_min(-HARDEST_MPS2), torch.inf).amin(-1)
