"""How traffic flows, as distributions: recorded and imagined traffic are compared by them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, fields

import numpy as np
import torch

from drivecast.worldmodel.evaluation.lane_changes import WELL_INSIDE_M
from drivecast.worldmodel.scene.contact import separation_m
from drivecast.worldmodel.scene.road import NO_LANE, Road
from drivecast.worldmodel.scene.traffic import TrafficState

EVERY_S = 0.5  # moments that are looked at; accelerations are means over such a time
LEAST_MPS = 1.0  # a vehicle below it has no headway in time
TOUCH_M = 0.05  # overlap that counts (NGSIM gives sizes in steps of 0.15 m)


@dataclass(frozen=True)
class TrafficStatistics:
    """Of all vehicles at all moments that are looked at: one number each, in no order.

    Attributes:
        speed_mps: Speed.
        headway_s: Time headway, front bumper to front bumper over speed, above 1 m/s.
        gap_m: To the leader of the same lane, bumper to bumper.
        acceleration_mps2: Change of speed in 0.5 s.
        touches: 1 where a vehicle overlaps another by more than 0.05 m, 0 elsewhere.
        lane_changes_per_min: 120 where a vehicle has come to another lane (0.3 m inside its markings) since 0.5 s ago,
            0 elsewhere; the mean is the number of lane changes in a vehicle's minute.
    """

    speed_mps: np.ndarray
    headway_s: np.ndarray
    gap_m: np.ndarray
    acceleration_mps2: np.ndarray
    touches: np.ndarray
    lane_changes_per_min: np.ndarray

    @classmethod
    def cat(cls, parts: Sequence[TrafficStatistics]) -> TrafficStatistics:
        return cls(*(np.concatenate([getattr(part, f.name) for part in parts]) for f in fields(cls)))


def followers(moment: np.ndarray, lane: np.ndarray, along_m: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Rows of followers and of their leaders: next to each other on the same lane at the same moment."""
    order = np.lexsort((along_m, lane, moment))
    rear, front = order[:-1], order[1:]
    pair = (moment[rear] == moment[front]) & (lane[rear] == lane[front])
    return rear[pair], front[pair]


def traffic_statistics(states: TrafficState, road: Road, dt_s: float, skip: Sequence[int] = ()) -> TrafficStatistics:
    """Statistics of `states (time, agent)` on the `road` of one scene.

    Agents in `skip` lead others, touch them and are touched, but have no numbers of their own.
    """
    states = states[:: max(1, round(EVERY_S / dt_s))]
    own = states.valid.clone()
    own[:, list(skip)] = False
    on_lane = road.project(states.position_m.flatten(0, 1)[None])[0]
    lane, along, across = (values.view(own.shape) for values in (on_lane.lane, on_lane.along_m, on_lane.across_m))
    inside = (across.abs() < on_lane.width_m.view(own.shape) / 2 - WELL_INSIDE_M) & states.valid

    moment, agent = states.valid.nonzero(as_tuple=True)
    seen, counts = states[moment, agent], own[moment, agent].numpy()
    rear, front = followers(moment.numpy(), lane[moment, agent].numpy(), along[moment, agent].numpy())
    rear, front = rear[counts[rear]], front[counts[rear]]
    speed, length = seen.speed_mps.numpy(), seen.length_m.numpy()
    place_m = along[moment, agent].numpy()
    gap = place_m[front] - place_m[rear] - (length[front] + length[rear]) / 2
    fast = speed[rear] > LEAST_MPS
    headway = (gap + length[front])[fast] / speed[rear][fast]

    both = own[1:] & own[:-1]
    acceleration = ((states.speed_mps[1:] - states.speed_mps[:-1]) / EVERY_S)[both]
    return TrafficStatistics(
        speed_mps=speed[counts],
        headway_s=headway,
        gap_m=gap,
        acceleration_mps2=acceleration.numpy(),
        touches=_touches(states)[own].numpy().astype(float),
        lane_changes_per_min=_changes(lane, inside, states.valid)[own].numpy() * (60 / EVERY_S),
    )


def _touches(states: TrafficState) -> torch.Tensor:
    """Who overlaps somebody, bool `(time, agent)`."""
    found = []
    for moment in range(len(states.valid)):
        scene = states[moment]
        gap = separation_m(scene.map(lambda tensor: tensor[:, None]), scene.map(lambda tensor: tensor[None]))
        apart = ~(scene.valid[:, None] & scene.valid) | torch.eye(len(scene.valid), dtype=torch.bool)
        found.append((gap.masked_fill(apart, torch.inf) < -TOUCH_M).any(1))
    return torch.stack(found)


def _changes(lane: torch.Tensor, inside: torch.Tensor, valid: torch.Tensor) -> torch.Tensor:
    """Who has come well inside of a lane other than the last one it was well inside of, bool `(time, agent)`."""
    last = torch.full_like(lane[0], NO_LANE)
    found = []
    for now, settled, there in zip(lane, inside, valid, strict=True):
        found.append(settled & (last != NO_LANE) & (now != last))
        last = torch.where(settled, now, torch.where(there, last, NO_LANE))
    return torch.stack(found)
