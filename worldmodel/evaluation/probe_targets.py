"""What a linear probe is asked of a scene some seconds ahead."""

from __future__ import annotations

import torch
from torch import Tensor

from drivecast.worldmodel.recordings.window import Window
from drivecast.worldmodel.scene.contact import ego_time_to_collision_s
from drivecast.worldmodel.scene.lane_neighbours import agent_at, lane_neighbours
from drivecast.worldmodel.scene.road import Road
from drivecast.worldmodel.scene.traffic import TrafficState

QUANTITIES = ("speed", "lane_offset", "gap", "urgency", "lane_change")
BINARY = ("lane_change",)
FURTHEST_GAP_M = 60.0
SOONEST_S = 1.0  # of a time to collision
LANE_CHANGE_S = 3.0


def scene_quantities(scene: TrafficState, road: Road) -> dict[str, Tensor]:
    """Of the ego in `scene (batch, agent)`, `(batch,)` each: `speed`, m/s; `lane_offset` to the left of its lane's
    centre, m; `gap` to its leader, m, 60 where it is further or there is none; `urgency`, 1 / time to collision, at
    most 1, 1/s, zero where nothing is on course."""
    there = road.project(scene.position_m[:, :1])
    found = lane_neighbours(scene, road, there.lane[:, 0], reach=0.5)
    leader = agent_at(scene, found.leader)
    gap = found.leader_distance_m - (leader.length_m + scene.length_m[:, 0]) / 2
    gap = torch.where(found.leader >= 0, gap, FURTHEST_GAP_M).clamp(0.0, FURTHEST_GAP_M)
    soonest = ego_time_to_collision_s(scene, road).amin(-1).clamp_min(SOONEST_S)
    return {
        "speed": scene.speed_mps[:, 0],
        "lane_offset": there.across_m[:, 0],
        "gap": gap,
        "urgency": 1.0 / soonest,
    }


def probe_targets(window: Window, seconds: tuple[int, ...], dt_s: float) -> dict[str, Tensor]:
    """`scene_quantities` at each of `seconds` ahead, `(batch, second)`; and whether the ego is on another lane within
    3 s from then, `lane_change`. The window's future is 3 s longer than the last of `seconds`."""
    found: dict[str, list[Tensor]] = {name: [] for name in QUANTITIES}
    lane = window.road.project(window.future.position_m[:, :, 0]).lane
    span = round(LANE_CHANGE_S / dt_s)
    for second in seconds:
        step = round(second / dt_s) - 1
        for name, values in scene_quantities(window.future[:, step], window.road).items():
            found[name].append(values)
        changes = (lane[:, step + 1 : step + 1 + span] != lane[:, step : step + 1]).any(1)
        found["lane_change"].append(changes.float())
    return {name: torch.stack(values, 1) for name, values in found.items()}
