"""The lanes of a highway-env road network as tables."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING

import torch
from highway_env.road.lane import SineLane, StraightLane
from torch import Tensor

from drivecast.worldmodel.errors import InputError
from drivecast.worldmodel.rules.elementary import atan, cos, sin
from drivecast.worldmodel.rules.laws import wrap_to_pi

if TYPE_CHECKING:
    from highway_env.road.road import RoadNetwork

NO_LANE = -1
CAR_LENGTH_M = 5.0  # `AbstractLane.VEHICLE_LENGTH`
NEIGHBOUR_MARGIN_M = 1.0  # `Road.neighbour_vehicles` looks this far beyond a lane's edge
NO_LIMIT_MPS = torch.inf


@dataclass(frozen=True)
class Lanes:
    """Lanes that run along +x, straight or as a sine, in highway-env's order and frame (+y to the right).

    A point has the coordinates `s = x - start_x` along a lane and `r = y - start_y - A sin(ω s + φ)` across it
    (`StraightLane.local_coordinates`, `SineLane.local_coordinates`). All tensors are `(lane,)` unless said otherwise.

    Attributes:
        start_x_m, start_y_m: Where the lane begins, m.
        length_m: m.
        width_m: m, the same for all lanes.
        limit_mps: Speed limit, m/s; infinite where there is none.
        amplitude_m, pulsation_radpm, phase_rad: Of the sine; amplitude 0 on straight lanes.
        forbidden: Bool. Nobody may change to it.
        edge: Number of the stretch of road that the lane belongs to: same origin, same destination.
        number: Of the lane within its stretch, from the left.
        left, right: The lane beside it on the same stretch, or `NO_LANE`.
        following: The lane that goes on where this one ends; itself at the end of the network.
        joined: Bool `(lane, lane)`. `joined[l, k]`: who is on `k` counts as a neighbour on `l`, too.
        names: highway-env's lane indices.
    """

    start_x_m: Tensor
    start_y_m: Tensor
    length_m: Tensor
    width_m: float
    limit_mps: Tensor
    amplitude_m: Tensor
    pulsation_radpm: Tensor
    phase_rad: Tensor
    forbidden: Tensor
    edge: Tensor
    number: Tensor
    left: Tensor
    right: Tensor
    following: Tensor
    joined: Tensor
    names: tuple[tuple[str, str, int], ...]

    @property
    def count(self) -> int:
        """Number of lanes."""
        return len(self.names)

    @cached_property
    def parallel(self) -> bool:
        """All lanes are straight and side by side, of one length: they differ in `start_y_m` only."""
        same = (self.start_x_m == self.start_x_m[0]) & (self.length_m == self.length_m[0])
        endless = self.following == torch.arange(self.count, device=self.following.device)
        return not self.curved and bool((same & endless).all())

    @cached_property
    def curved(self) -> bool:
        """Some lane is a sine."""
        return bool((self.amplitude_m != 0).any())

    @cached_property
    def even_from_m(self) -> float | None:
        """Where the first of parallel lanes is that lie a lane's width apart; None for other roads."""
        even = self.parallel and bool((self.start_y_m.diff() == self.width_m).all())
        return float(self.start_y_m[0]) if even else None

    @cached_property
    def one_limit(self) -> bool:
        """All lanes have the same speed limit."""
        return bool((self.limit_mps == self.limit_mps[0]).all())

    @cached_property
    def searched(self) -> list[list[int]]:
        """`joined` as lists of lanes: they are few."""
        return [row.nonzero()[:, 0].tolist() for row in self.joined.cpu()]

    @staticmethod
    def of(network: RoadNetwork, connected: bool, dtype: torch.dtype, device: torch.device | str) -> Lanes:
        """Tables of `network`.

        Args:
            network: highway-env's road network.
            connected: Neighbours are searched on the lanes before and behind, too (`-v1` environments).
            dtype: Of the lengths and angles.
            device: Where the tables live.

        Raises:
            InputError: The network has lanes that do not run along +x.
        """
        lanes = network.lanes_dict()
        names = tuple(lanes)
        for name, lane in lanes.items():
            if type(lane) not in (StraightLane, SineLane) or tuple(lane.direction) != (1.0, 0.0):
                raise InputError(
                    f"lane {name}: expected a lane along +x, got {type(lane).__name__}; "
                    "run this environment with --simulator highway-env"
                )
        place = {name: number for number, name in enumerate(names)}

        def floats(values: list[float]) -> Tensor:
            return torch.tensor(values, dtype=dtype, device=device)

        def longs(values: list[int]) -> Tensor:
            return torch.tensor(values, dtype=torch.long, device=device)

        edges = list(dict.fromkeys(name[:2] for name in names))
        beside = {side: [place.get((*name[:2], name[2] + side), NO_LANE) for name in names] for side in (-1, 1)}
        return Lanes(
            start_x_m=floats([float(lane.start[0]) for lane in lanes.values()]),
            start_y_m=floats([float(lane.start[1]) for lane in lanes.values()]),
            length_m=floats([float(lane.length) for lane in lanes.values()]),
            width_m=float(next(iter(lanes.values())).width),
            limit_mps=floats(
                [NO_LIMIT_MPS if lane.speed_limit is None else float(lane.speed_limit) for lane in lanes.values()]
            ),
            amplitude_m=floats([getattr(lane, "amplitude", 0.0) for lane in lanes.values()]),
            pulsation_radpm=floats([getattr(lane, "pulsation", 0.0) for lane in lanes.values()]),
            phase_rad=floats([getattr(lane, "phase", 0.0) for lane in lanes.values()]),
            forbidden=torch.tensor([bool(lane.forbidden) for lane in lanes.values()], device=device),
            edge=longs([edges.index(name[:2]) for name in names]),
            number=longs([name[2] for name in names]),
            left=longs(beside[-1]),
            right=longs(beside[1]),
            following=longs([place[_following(network, name)] for name in names]),
            joined=_joined(network, names, connected).to(device),
            names=names,
        )

    def along(self, x_m: Tensor, lane: Tensor | int) -> Tensor:
        """Coordinate along `lane`, m."""
        return x_m - self.start_x_m[lane]

    def across(self, x_m: Tensor, y_m: Tensor, lane: Tensor | int) -> Tensor:
        """Coordinate across `lane`, m, positive to the right."""
        straight = y_m - self.start_y_m[lane]
        if not self.curved:
            return straight
        angle = self.pulsation_radpm[lane] * self.along(x_m, lane) + self.phase_rad[lane]
        return straight - self.amplitude_m[lane] * sin(angle)

    def heading(self, x_m: Tensor, lane: Tensor | int) -> Tensor | float:
        """Direction of `lane` at `x_m`, rad."""
        if not self.curved:
            return 0.0
        angle = self.pulsation_radpm[lane] * self.along(x_m, lane) + self.phase_rad[lane]
        return atan(self.amplitude_m[lane] * self.pulsation_radpm[lane] * cos(angle))

    def on_lane(self, x_m: Tensor, y_m: Tensor, lane: Tensor | int, margin_m: float = 0.0) -> Tensor:
        """Whether a point is on `lane`, one car length beyond its ends included (`AbstractLane.on_lane`)."""
        s = self.along(x_m, lane)
        inside = (s >= -CAR_LENGTH_M) & (s < self.length_m[lane] + CAR_LENGTH_M)
        return inside & (self.across(x_m, y_m, lane).abs() <= self.width_m / 2 + margin_m)

    def members(self, x_m: Tensor, y_m: Tensor) -> Tensor:
        """Bool `(place, lane, episode)`: who counts as a neighbour on each lane (`Road.neighbour_vehicles`).

        Args:
            x_m, y_m: `(place, episode)`.
        """
        if self.parallel:
            s = self.along(x_m, 0)
            inside = (s >= -CAR_LENGTH_M) & (s < self.length_m[0] + CAR_LENGTH_M)
            across = (y_m[:, None] - self.start_y_m[:, None]).abs()
            return (across <= self.width_m / 2 + NEIGHBOUR_MARGIN_M) & inside[:, None]
        on = [self.on_lane(x_m, y_m, lane, NEIGHBOUR_MARGIN_M) for lane in range(self.count)]
        return torch.stack([torch.stack([on[k] for k in row]).any(0) for row in self.searched], 1)

    def reachable(self, x_m: Tensor, y_m: Tensor, lane: Tensor) -> Tensor:
        """Whether one may change to `lane` from here (`AbstractLane.is_reachable_from`)."""
        s = self.along(x_m, lane)
        close = (self.across(x_m, y_m, lane).abs() <= 2 * self.width_m) & (s >= 0)
        return close & (s < self.length_m[lane] + CAR_LENGTH_M) & ~self.forbidden[lane]

    def nearest(self, x_m: Tensor, y_m: Tensor, heading_rad: Tensor) -> Tensor:
        """The lane nearest in place and heading (`RoadNetwork.get_closest_lane_index`); of equals, the first."""
        if self.even_from_m is not None:  # halfway between two lanes is the first one's
            place = torch.ceil((y_m - self.even_from_m) / self.width_m - 0.5)
            return place.clamp(0, self.count - 1).long()
        best, chosen = None, torch.zeros_like(x_m, dtype=torch.long)
        for lane in range(self.count):
            distance = self.across(x_m, y_m, lane).abs()
            if not self.parallel:  # else the rest is the same for each
                s = self.along(x_m, lane)
                distance = distance + (s - self.length_m[lane]).clamp_min(0) + (-s).clamp_min(0)
                distance = distance + wrap_to_pi(heading_rad - self.heading(x_m, lane)).abs()
            if best is None:
                best = distance
            else:
                chosen = chosen.masked_fill(distance < best, lane)
                best = torch.minimum(best, distance)
        return chosen

    def onwards(self, x_m: Tensor, target: Tensor) -> Tensor:
        """The lane to follow: `target`, or the next one where it ends within half a car (`follow_road`)."""
        if self.parallel:
            return target
        ended = self.along(x_m, target) > self.length_m[target] - CAR_LENGTH_M / 2
        return torch.where(ended, self.following[target], target)


def _following(network: RoadNetwork, name: tuple[str, str, int]) -> tuple[str, str, int]:
    """Where `RoadNetwork.next_lane` leads without a route: it depends on the end of the lane only."""
    lane = network.get_lane(name)
    following = network.next_lane(name, position=lane.position(lane.length, 0))
    return (following[0], following[1], int(following[2]))


def _joined(network: RoadNetwork, names: tuple[tuple[str, str, int], ...], connected: bool) -> Tensor:
    """Which lanes `Road.neighbour_vehicles` searches for each lane."""
    place = {name: number for number, name in enumerate(names)}
    joined = torch.eye(len(names), dtype=torch.bool)
    if not connected:
        return joined
    for (start, end, number), row in place.items():
        for onward, lanes in network.graph.get(end, {}).items():
            joined[row, place[(end, onward, number if number < len(lanes) else 0)]] = True
        for origin, to in network.graph.items():
            if start in to:
                joined[row, place[(origin, start, number if number < len(to[start]) else 0)]] = True
    return joined
