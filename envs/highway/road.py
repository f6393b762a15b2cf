"""highway-env's road network as through lanes in our frame: +y to the left, where highway-env has it to the right."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import torch

from drivecast.worldmodel.scene.road import NO_LANE, Road

if TYPE_CHECKING:
    from highway_env.road.road import RoadNetwork

LaneIndex = tuple[str, str, int]  # (origin node, destination node, number of the lane)

CURVE_STEP_M = 2.0  # a sine of highway-env's merge stays within 2 mm of such chords
JOIN_DISTANCE_M = 0.5  # a lane goes on in another that starts this near to its end
JOIN_ANGLE_RAD = 0.2


@dataclass(frozen=True)
class ThroughLane:
    """A lane from where it starts to where it ends, across the nodes of highway-env's network.

    Attributes:
        segments: highway-env's lanes that it is made of, in driving direction.
        centre_m: `(point, 2)`, +y to the left.
        width_m: `(point,)`.
        speed_limit_mps: The lowest of its segments (highway-env's drivers obey it).
        left: Number of the neighbour that one may change to, or `NO_LANE`.
        right: The same to the right.
        open_start: Traffic comes from before the first point.
        open_end: Traffic goes on beyond the last point.
    """

    segments: tuple[LaneIndex, ...]
    centre_m: np.ndarray
    width_m: np.ndarray
    speed_limit_mps: float
    left: int
    right: int
    open_start: bool
    open_end: bool


def through_lanes(network: RoadNetwork) -> list[ThroughLane]:
    """Chain the segments of `network` into through lanes, in the order in which the network lists their first segments.

    A segment goes on in the one that starts at its end, in its direction. Where several do, or several end, the first
    keeps the chain and the others are lanes of their own. A lane is open at an end that is an end of the network, and
    closed where the network goes on without it: a ramp that has run out.
    """
    segments: dict[LaneIndex, object] = network.lanes_dict()
    following = _following(segments)
    continued = set(following.values())
    chains = [_chain(index, following) for index in segments if index not in continued]
    seen = {index for chain in chains for index in chain}
    for index in segments:  # what is left are circles: cut each at its first segment
        if index not in seen:
            chains.append(_chain(index, following))
            seen.update(chains[-1])
    owner = {index: number for number, chain in enumerate(chains) for index in chain}
    starts, ends = {index[0] for index in segments}, {index[1] for index in segments}
    lanes = []
    for chain in chains:
        centre, width = _centre(chain, segments)
        limits = [segments[index].speed_limit for index in chain]  # type: ignore[attr-defined]
        lanes.append(
            ThroughLane(
                segments=chain,
                centre_m=centre,
                width_m=width,
                speed_limit_mps=float(min((limit for limit in limits if limit is not None), default=30.0)),
                left=_neighbour(chain, segments, owner, left=True),
                right=_neighbour(chain, segments, owner, left=False),
                open_start=chain[0][0] not in ends,
                open_end=chain[-1][1] not in starts,
            )
        )
    return lanes


def road_of(lanes: list[ThroughLane]) -> Road:
    """The lanes as a `Road` of one scene."""
    points = max(len(lane.centre_m) for lane in lanes)

    def padded(values: np.ndarray) -> np.ndarray:
        return np.concatenate([values, np.repeat(values[-1:], points - len(values), 0)])

    dtype = torch.get_default_dtype()
    road = Road(
        centre_m=torch.as_tensor(np.stack([padded(lane.centre_m) for lane in lanes]), dtype=dtype),
        width_m=torch.as_tensor(np.stack([padded(lane.width_m) for lane in lanes]), dtype=dtype),
        point_count=torch.tensor([len(lane.centre_m) for lane in lanes]),
        speed_limit_mps=torch.tensor([lane.speed_limit_mps for lane in lanes], dtype=dtype),
        left=torch.tensor([lane.left for lane in lanes]),
        right=torch.tensor([lane.right for lane in lanes]),
        open_start=torch.tensor([lane.open_start for lane in lanes]),
        open_end=torch.tensor([lane.open_end for lane in lanes]),
    )
    return road[None]


def _following(segments: dict) -> dict[LaneIndex, LaneIndex]:
    following: dict[LaneIndex, LaneIndex] = {}
    for index, lane in segments.items():
        end, heading = lane.position(lane.length, 0), lane.heading_at(lane.length)
        for other, candidate in segments.items():
            if other[0] != index[1] or other in following.values():
                continue
            turn = candidate.heading_at(0) - heading
            turn = abs(np.arctan2(np.sin(turn), np.cos(turn)))
            if np.linalg.norm(candidate.position(0, 0) - end) < JOIN_DISTANCE_M and turn < JOIN_ANGLE_RAD:
                following[index] = other
                break
    return following


def _chain(first: LaneIndex, following: dict[LaneIndex, LaneIndex]) -> tuple[LaneIndex, ...]:
    chain = [first]
    while (index := following.get(chain[-1])) is not None and index != first:
        chain.append(index)
    return tuple(chain)


def _centre(chain: tuple[LaneIndex, ...], segments: dict) -> tuple[np.ndarray, np.ndarray]:
    points: list[np.ndarray] = []
    widths: list[float] = []
    for index in chain:
        lane = segments[index]
        straight = type(lane).__name__ == "StraightLane"
        count = 2 if straight else max(2, int(np.ceil(lane.length / CURVE_STEP_M)) + 1)
        for along in np.linspace(0.0, lane.length, count):
            point = lane.position(along, 0) * np.array([1.0, -1.0])
            if points and np.linalg.norm(point - points[-1]) < JOIN_DISTANCE_M:
                continue  # the joint is already there, as the end of the segment before
            points.append(point)
            widths.append(float(lane.width_at(along)))
    keep = [0, *(i for i in range(1, len(points) - 1) if not _redundant(i, points, widths)), len(points) - 1]
    return np.array(points)[keep], np.array(widths)[keep]


def _redundant(i: int, points: list[np.ndarray], widths: list[float]) -> bool:
    before, after = points[i] - points[i - 1], points[i + 1] - points[i]
    turn = abs(before[0] * after[1] - before[1] * after[0]) / (np.linalg.norm(before) * np.linalg.norm(after))
    return bool(turn < 1e-9 and widths[i] == widths[i - 1] == widths[i + 1])


def _neighbour(chain: tuple[LaneIndex, ...], segments: dict, owner: dict[LaneIndex, int], left: bool) -> int:
    """The through lane beside `chain` on that side, where highway-env allows changing to it."""
    for index in chain:
        lane = segments[index]
        middle = lane.length / 2
        for number in (index[2] - 1, index[2] + 1):
            beside = (index[0], index[1], number)
            if beside not in segments or segments[beside].forbidden:
                continue
            # highway-env counts across to the right, so the neighbour's centre lies at a negative offset on the left
            other = segments[beside]
            across = lane.local_coordinates(other.position(min(middle, other.length), 0))[1]
            reach = 0.75 * (lane.width_at(middle) + other.width_at(middle))
            if (across < 0) == left and 0 < abs(across) < reach:
                return owner[beside]
    return NO_LANE
