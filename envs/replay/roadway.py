"""What a road looks like from above: surfaces, lane markings and the ends of lanes, as lines in metres."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from drivecast.worldmodel.scene.road import Road

SPACING_M = 2.0  # of the points at which a marking can change between solid and dashed
MARGIN_M = 350.0  # of road drawn beyond where anyone drives
TOLERANCE_M = 0.02  # to which lines are thinned out afterwards
_BEYOND_M = 0.7  # a neighbour lane begins at most this far outside a lane's edge
_INSIDE_M = 0.5  # an edge this deep inside another lane is not painted


@dataclass(frozen=True)
class Roadway:
    """Lines of `(point, 2)` in metres, in the road's coordinates.

    Attributes:
        surfaces: Closed outlines of the lanes' asphalt.
        solid: Edges with no lane beyond them, and the fronts of closed ends.
        dashed: Edges between lanes of one direction.
        closed: Closed outlines of the last metres of lanes that end.
    """

    surfaces: list[np.ndarray]
    solid: list[np.ndarray]
    dashed: list[np.ndarray]
    closed: list[np.ndarray]

    @staticmethod
    def of(road: Road, visited_m: np.ndarray) -> Roadway:
        """The part of `road` (batch 1) within `MARGIN_M` of the positions `visited_m (position, 2)`."""
        roadway = Roadway([], [], [], [])
        lanes = [_lane(road, index) for index in range(road.centre_m.shape[1]) if int(road.point_count[0, index]) > 1]
        for index, lane in enumerate(lanes):
            roadway._paint(lane, lanes[:index] + lanes[index + 1 :], visited_m)
        return roadway

    def _paint(self, lane: Road, others: list[Road], visited_m: np.ndarray) -> None:
        centre, normal, half_m = _resampled(lane, visited_m)
        left, right = centre + normal * half_m[:, None], centre - normal * half_m[:, None]
        self.surfaces.append(np.concatenate([_thinned(left), _thinned(right)[::-1]]))
        heading = np.arctan2(-normal[:, 0], normal[:, 1])
        for edge, outward in ((left, normal), (right, -normal)):
            hidden, _ = _covered(edge, heading, others, _INSIDE_M)
            beyond, alike = _covered(edge + outward * _BEYOND_M, heading, others, 0.0)
            self.solid.extend(_runs(edge, ~hidden & (~beyond | ~alike)))
            if edge is right:  # the lane to the right has the same line as its left edge
                self.dashed.extend(_runs(edge, ~hidden & beyond & alike))
        for end, is_open in ((0, lane.open_start), (-1, lane.open_end)):
            direction = np.array([normal[end, 1], -normal[end, 0]]) * (-1 if end == 0 else 1)
            if not bool(is_open[0, 0]) and not _covered(centre[[end]] + direction, heading[[end]], others, 0.0)[0][0]:
                self._close(left, right, end)

    def _close(self, left: np.ndarray, right: np.ndarray, end: int) -> None:
        points = max(2, int(14 / SPACING_M))
        part = slice(0, points) if end == 0 else slice(-points, None)
        self.closed.append(np.concatenate([left[part], right[part][::-1]]))
        self.solid.append(np.stack([left[end], right[end]]))


def road_middle_m(road: Road, position_m: np.ndarray, heading_rad: np.ndarray) -> np.ndarray:
    """How far to the left of each position `(time, 2)` the middle of all lanes alongside it lies, `(time,)`."""
    left, right = np.full(len(position_m), -np.inf), np.full(len(position_m), np.inf)
    for index in range(road.centre_m.shape[1]):
        if int(road.point_count[0, index]) < 2:
            continue
        lane = _lane(road, index)
        there = lane.project(_tensor(position_m))
        across, half = there.across_m[0].numpy(), there.width_m[0].numpy() / 2
        turned = np.cos(there.heading_rad[0].numpy() - heading_rad) < 0.7
        beside = (lane.open_start[0, 0] | (there.along_m > 0)) & (lane.open_end[0, 0] | (there.remaining_m > 0))
        beside = beside[0].numpy() & ~turned & (np.abs(across) < 30)
        left = np.maximum(left, np.where(beside, half - across, -np.inf))
        right = np.minimum(right, np.where(beside, -half - across, np.inf))
    return np.where(np.isfinite(left) & np.isfinite(right), (left + right) / 2, 0.0)


def _lane(road: Road, index: int) -> Road:
    """One lane as a road of its own, without its padding, in float64."""
    points = int(road.point_count[0, index])
    one = road.map(lambda tensor: tensor[:, [index]].detach().cpu())
    return Road(
        centre_m=one.centre_m[:, :, :points].double(),
        width_m=one.width_m[:, :, :points].double(),
        point_count=one.point_count,
        speed_limit_mps=one.speed_limit_mps,
        left=torch.full_like(one.left, -1),
        right=torch.full_like(one.right, -1),
        open_start=one.open_start,
        open_end=one.open_end,
    )


def _resampled(lane: Road, visited_m: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Centre, left normal and half width at even spacing, over the part near the visited positions."""
    points = lane.centre_m[0, 0].numpy()
    keep = np.concatenate([[True], np.linalg.norm(np.diff(points, axis=0), axis=1) > 1e-3])
    points, widths = points[keep], lane.width_m[0, 0].numpy()[keep]
    along = np.concatenate([[0.0], np.linalg.norm(np.diff(points, axis=0), axis=1).cumsum()])
    there = lane.project(_tensor(visited_m))
    start = float(there.along_m.min()) - MARGIN_M
    stop = float(there.along_m.max()) + MARGIN_M
    if not bool(lane.open_start[0, 0]) or start > 0:
        start = float(np.clip(start, 0.0, max(along[-1] - SPACING_M, 0.0)))
    if not bool(lane.open_end[0, 0]) or stop < along[-1]:
        stop = float(np.clip(stop, start + 1e-3, max(along[-1], start + 1e-3)))
    at = np.linspace(start, stop, max(3, int((stop - start) / SPACING_M) + 1))
    tangent = np.diff(points, axis=0) / np.diff(along)[:, None]
    segment = np.clip(np.searchsorted(along, at, side="right") - 1, 0, len(tangent) - 1)
    centre = points[segment] + tangent[segment] * (at - along[segment])[:, None]
    course = np.gradient(centre, axis=0)
    course /= np.linalg.norm(course, axis=1, keepdims=True)
    return centre, np.stack([-course[:, 1], course[:, 0]], -1), np.interp(at, along, widths) / 2


def _covered(
    points_m: np.ndarray, heading_rad: np.ndarray, others: list[Road], depth_m: float
) -> tuple[np.ndarray, np.ndarray]:
    """Which points lie at least `depth_m` inside another lane, and whether one such lane leads the same way."""
    covered, alike = np.zeros(len(points_m), bool), np.zeros(len(points_m), bool)
    for other in others:
        there = other.project(_tensor(points_m))
        inside = (there.width_m / 2 - there.across_m.abs() >= depth_m)[0]
        inside &= (other.open_start[0] | (there.along_m >= 0))[0]
        inside &= (other.open_end[0] | (there.remaining_m >= 0))[0]
        covered |= inside.numpy()
        alike |= inside.numpy() & (np.cos(there.heading_rad[0].numpy() - heading_rad) > 0)
    return covered, alike


def _tensor(points_m: np.ndarray) -> Tensor:
    return torch.from_numpy(np.ascontiguousarray(points_m, dtype=np.float64))[None]


def _runs(line: np.ndarray, kept: np.ndarray) -> list[np.ndarray]:
    """The stretches of a line where `kept` holds, thinned out."""
    edges = np.flatnonzero(np.diff(np.concatenate([[0], kept.astype(np.int8), [0]])))
    return [_thinned(line[a:b]) for a, b in zip(edges[::2], edges[1::2], strict=True) if b - a > 1]


def _thinned(line: np.ndarray, tolerance_m: float = TOLERANCE_M) -> np.ndarray:
    """Fewest points that stay within the tolerance: Douglas and Peucker 1973."""
    keep = np.zeros(len(line), bool)
    keep[[0, -1]] = True
    spans = [(0, len(line) - 1)]
    while spans:
        first, last = spans.pop()
        if last - first < 2:
            continue
        chord = line[last] - line[first]
        offset = line[first + 1 : last] - line[first]
        away = np.abs(chord[0] * offset[:, 1] - chord[1] * offset[:, 0]) / max(np.hypot(*chord), 1e-9)
        worst = int(away.argmax())
        if away[worst] > tolerance_m:
            middle = first + 1 + worst
            keep[middle] = True
            spans += [(first, middle), (middle, last)]
    return line[keep]
