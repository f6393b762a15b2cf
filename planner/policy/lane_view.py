"""What a policy sees when it chooses a lane: five lanes abreast, and who drives next on each of them."""

from __future__ import annotations

import torch
from torch import Tensor

from drivecast.planner.manoeuvres.manoeuvre import wished_mps
from drivecast.worldmodel.scene.lane_neighbours import single_lane
from drivecast.worldmodel.scene.road import NO_LANE, Road
from drivecast.worldmodel.scene.traffic import Goal, TrafficState

REACH = 2  # lanes to either side
LANES = 2 * REACH + 1
AHEAD, BEHIND = 3, 2  # vehicles of each lane
SLOTS = AHEAD + BEHIND
SEEN_M = 120.0  # from bumper to bumper
CAR_FEATURES, OWN_FEATURES = 9, 7
LANE_FEATURES = 3
DRIFT, OFFSET = 5, 6  # of a car, which change their sign in a mirror
OWN_DRIFT, OWN_OFFSET = 4, 5
VIEW_SIZE = OWN_FEATURES + LANES * (LANE_FEATURES + SLOTS * CAR_FEATURES)


def lanes_abreast_of(road: Road, lane: Tensor) -> Tensor:
    """From the leftmost to the rightmost of `LANES` lanes about `lane (batch,)`: `(batch, LANES)`, NO_LANE: none."""
    sides = {}
    for side in ("left", "right"):
        lanes, at = [], lane
        for _ in range(REACH):
            beside = road.neighbour(at.clamp_min(0)[:, None], side)[:, 0]
            at = torch.where(at == NO_LANE, NO_LANE, beside)
            lanes.append(at)
        sides[side] = lanes
    return torch.stack([*sides["left"][::-1], lane, *sides["right"]], 1)


def lane_view(
    scene: TrafficState, before: TrafficState, road: Road, goal: Goal, here: Tensor, bound: Tensor, dt_s: float
) -> Tensor:
    """Features of what is on the lanes, `(batch, VIEW_SIZE)`.

    Args:
        scene: The present, `(batch, agent)`, the ego at agent 0.
        before: One step earlier.
        road: The road.
        goal: What is asked for.
        here: Long `(batch,)`. The lane that the ego is on; the others are counted from it.
        bound: Long `(batch,)`. The lane that it steers for.
        dt_s: Time between the two scenes, s.
    """
    lanes = lanes_abreast_of(road, here)
    there = single_lane(road, here).project(scene.position_m)
    width = there.width_m[:, :1]
    turn = scene.heading_rad - there.heading_rad
    speed, drift = scene.speed_mps * turn.cos(), scene.speed_mps * turn.sin()
    known = (scene.valid & before.valid).to(speed)
    acceleration = ((scene.speed_mps - before.speed_mps) / dt_s).clamp(-8.0, 8.0) * known
    ahead_m = there.along_m - there.along_m[:, :1]
    gap = ahead_m.abs() - (scene.length_m + scene.length_m[:, :1]) / 2
    lanes_left = (there.across_m / width).round()
    cars = torch.stack(
        [
            gap.clamp(-10.0, 80.0) / 40,
            torch.exp(-gap.clamp_min(0.0) / 12),
            (speed - speed[:, :1]) / 5,
            speed / 15,
            acceleration / 3,
            drift,
            2 * (there.across_m / width - lanes_left),
            (scene.length_m - 5) / 5,
            torch.ones_like(gap),
        ],
        -1,
    )
    wish = wished_mps(goal, road, here)
    own = torch.stack(
        [
            speed[:, 0] / 15,
            (wish - speed[:, 0]) / 10,
            wish / 30,
            acceleration[:, 0] / 3,
            drift[:, 0],
            there.across_m[:, 0] / 2,
            (scene.length_m[:, 0] - 5) / 5,
        ],
        1,
    )
    counts = scene.valid & (gap < SEEN_M)
    counts = torch.cat([torch.zeros_like(counts[:, :1]), counts[:, 1:]], 1)
    # (batch, lane, agent): one row of who counts for each lane and direction
    offset = torch.arange(REACH, -REACH - 1, -1, device=here.device)[:, None]
    on_lane = counts[:, None] & (lanes_left[:, None] == offset)
    distance, forward = ahead_m.abs()[:, None], (ahead_m >= 0)[:, None]
    shown = []
    for way, count in ((forward, AHEAD), (~forward, BEHIND)):
        far = torch.where(on_lane & way, distance, torch.inf)
        nearest = far.topk(min(count, far.shape[2]), 2, largest=False)
        picked = (
            cars[:, None]
            .expand(-1, LANES, -1, -1)
            .gather(2, nearest.indices[..., None].expand(-1, -1, -1, CAR_FEATURES))
        )
        picked = picked * nearest.values.isfinite()[..., None]
        shown.append(torch.nn.functional.pad(picked, (0, 0, 0, count - picked.shape[2])))
    slots = torch.cat(shown, 2).flatten(2)  # (batch, lane, slot and feature)
    exists = lanes != NO_LANE
    closed_m = _left_of_lane_m(scene, road, lanes)
    of_lane = torch.stack([exists, (lanes == bound[:, None]) & exists], -1).to(speed)
    of_lane = torch.cat([of_lane, torch.exp(-closed_m / 60)[..., None]], -1)
    return torch.cat([own, torch.cat([of_lane, slots], 2).flatten(1)], 1)


def _left_of_lane_m(scene: TrafficState, road: Road, lanes: Tensor) -> Tensor:
    """How far each of `lanes (batch, LANES)` goes on ahead of the ego, m; infinite where its end is open."""
    ego = scene.position_m[:, :1].expand(-1, LANES, -1)
    there = road.project(ego, lanes.clamp_min(0))
    open_end = road.is_open_end(lanes.clamp_min(0)) | (lanes == NO_LANE)
    return torch.where(open_end, torch.inf, there.remaining_m.clamp_min(0.0))


def mirrored_view(view: Tensor) -> Tensor:
    """The same, left and right exchanged."""
    own, of_lanes = view[:, :OWN_FEATURES].clone(), view[:, OWN_FEATURES:]
    own[:, [OWN_DRIFT, OWN_OFFSET]] *= -1
    of_lanes = of_lanes.view(len(view), LANES, -1).flip(1).clone()
    slots = of_lanes[..., LANE_FEATURES:].view(len(view), LANES, SLOTS, CAR_FEATURES)
    slots[..., [DRIFT, OFFSET]] *= -1
    return torch.cat([own, of_lanes.flatten(1)], 1)
