"""Lanes as centre polylines, batched and padded; where a position lies on them."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from typing import NamedTuple

import torch
from torch import Tensor

from drivecast.worldmodel.scene.traffic import _TensorRecord, along_and_left

NO_LANE = -1


@dataclass(frozen=True)
class RoadPosition(_TensorRecord):
    """Positions in a lane's own coordinates, each `(batch, agent)`."""

    lane: Tensor  # long: index into the road's lanes
    along_m: Tensor  # from the lane's first point, along its centre
    across_m: Tensor  # from the centre, left positive
    heading_rad: Tensor  # of the lane there
    width_m: Tensor  # of the lane there
    remaining_m: Tensor  # to the lane's last point


class _Segments(NamedTuple):
    """The pieces of all lanes, `(batch, 1, lane·segment)` each but the last."""

    start_x: Tensor
    start_y: Tensor
    delta_x: Tensor
    delta_y: Tensor
    squared: Tensor
    low: Tensor  # where along the piece a projection may lie
    high: Tensor
    valid: Tensor
    covered: Tensor  # (batch, lane, point), m from the lane's first point


@dataclass(frozen=True)
class Road(_TensorRecord):
    """The lanes of each scene of a batch: `(batch, lane, point)`, padded.

    A lane is open at an end when traffic goes on beyond what was recorded: it is extended there in a straight line.
    A ramp that starts late or an auxiliary lane that runs out is closed at that end.
    """

    centre_m: Tensor  # (batch, lane, point, 2) float, in driving direction; padding repeats the last point
    width_m: Tensor  # (batch, lane, point) float
    point_count: Tensor  # (batch, lane) long: real points of the lane; 0 for a padded lane, otherwise >= 2
    speed_limit_mps: Tensor  # (batch, lane) float
    left: Tensor  # (batch, lane) long: index of the left neighbour, or NO_LANE
    right: Tensor  # (batch, lane) long
    open_start: Tensor  # (batch, lane) bool
    open_end: Tensor  # (batch, lane) bool

    def project(self, position_m: Tensor, lane: Tensor | None = None) -> RoadPosition:
        """Project `position_m (batch, agent, 2)` on the nearest lane, or on `lane (batch, agent)`.

        The choice of lane and segment is discrete; `along_m`, `across_m` are differentiable in the position.
        """
        with torch.no_grad():
            lane, segment = self._nearest(position_m.detach(), lane)
        return self._on_segment(position_m, lane, segment)

    def off_road_m(self, position_m: Tensor) -> Tensor:
        """How far the centre of a vehicle is outside every lane, `(batch, agent)`; zero on the road. Differentiable."""
        there = self.project(position_m)
        outside = there.across_m.abs() - there.width_m / 2
        beyond = torch.where(self.is_open_end(there.lane), 0.0, -there.remaining_m)
        before = torch.where(self._gather(self.open_start, there.lane), 0.0, -there.along_m)
        return torch.stack([outside, beyond, before]).amax(0).clamp_min(0.0)

    def neighbour(self, lane: Tensor, side: str) -> Tensor:
        """Index of the `"left"` or `"right"` neighbour of `lane (batch, agent)`, or NO_LANE."""
        return self._gather(self.left if side == "left" else self.right, lane)

    def speed_limit(self, lane: Tensor) -> Tensor:
        """Speed limit in m/s of `lane (batch, agent)`."""
        return self._gather(self.speed_limit_mps, lane)

    def is_open_end(self, lane: Tensor) -> Tensor:
        """Whether traffic goes on beyond the last point of `lane (batch, agent)`."""
        return self._gather(self.open_end, lane)

    @staticmethod
    def _gather(values: Tensor, lane: Tensor) -> Tensor:
        return values.gather(1, lane)

    @cached_property
    def _segments(self) -> _Segments:
        """What projections need of the lanes; the same for all of them, and they are many in a rollout."""
        start = self.centre_m[:, :, :-1]
        delta = self.centre_m[:, :, 1:] - start
        index = torch.arange(delta.shape[2], device=self.centre_m.device)
        valid = index < (self.point_count - 1)[..., None]  # (batch, lane, segment)
        length = delta.norm(dim=-1) * valid
        low = torch.where(self.open_start[..., None] & (index == 0), -torch.inf, 0.0)
        high = torch.where(self.open_end[..., None] & (index == self.point_count[..., None] - 2), torch.inf, 1.0)
        start_x, start_y = start.flatten(1, 2).unbind(-1)
        delta_x, delta_y = delta.flatten(1, 2).unbind(-1)
        return _Segments(
            start_x=start_x[:, None],
            start_y=start_y[:, None],
            delta_x=delta_x[:, None],
            delta_y=delta_y[:, None],
            squared=(delta * delta).sum(-1).clamp_min(1e-12).flatten(1)[:, None],
            low=low.flatten(1)[:, None],
            high=high.flatten(1)[:, None],
            valid=valid.flatten(1)[:, None],
            covered=torch.cat([torch.zeros_like(length[..., :1]), length.cumsum(-1)], -1),
        )

    def _nearest(self, position_m: Tensor, lane: Tensor | None) -> tuple[Tensor, Tensor]:
        _, lanes, points, _ = self.centre_m.shape
        segments, of = points - 1, self._segments
        # distance² to a segment = |offset|² - 2 t·(offset·delta) + t²·|delta|², with t held on the segment
        offset_x = position_m[..., 0, None] - of.start_x  # (batch, agent, lane·segment)
        offset_y = position_m[..., 1, None] - of.start_y
        fraction = (offset_x * of.delta_x + offset_y * of.delta_y) / of.squared
        fraction = fraction.clamp(of.low, of.high)
        gap_x = offset_x - fraction * of.delta_x
        gap_y = offset_y - fraction * of.delta_y
        distance = gap_x * gap_x + gap_y * gap_y
        valid = of.valid.expand_as(distance)
        if lane is not None:
            owner = torch.arange(lanes, device=position_m.device).repeat_interleave(segments)
            valid = valid & (owner == lane[..., None])
        best = distance.masked_fill(~valid, torch.inf).argmin(-1)  # (batch, agent)
        found = best // segments
        return found, best - found * segments

    def _on_segment(self, position_m: Tensor, lane: Tensor, segment: Tensor) -> RoadPosition:
        flat = lane * self.centre_m.shape[2] + segment  # (batch, agent), into lane·point
        centre = self.centre_m.flatten(1, 2)
        start = centre.gather(1, flat[..., None].expand(*flat.shape, 2))
        end = centre.gather(1, (flat + 1)[..., None].expand(*flat.shape, 2))
        delta = end - start
        length = delta.norm(dim=-1).clamp_min(1e-6)
        tangent = delta / length[..., None]
        offset = position_m - start
        on_segment, across = along_and_left(offset, tangent)
        covered = self._segments.covered
        along = covered.flatten(1).gather(1, flat) + on_segment
        total = covered[..., -1].gather(1, lane)
        fraction = (on_segment / length).clamp(0.0, 1.0).detach()
        widths = self.width_m.flatten(1)
        width = torch.lerp(widths.gather(1, flat), widths.gather(1, flat + 1), fraction)
        heading = torch.atan2(tangent[..., 1], tangent[..., 0])
        return RoadPosition(lane, along, across, heading, width, total - along)

    @staticmethod
    def straight(
        lanes: int,
        length_m: float = 10_000.0,
        lane_width_m: float = 4.0,
        speed_limit_mps: float = 30.0,
        batch: int = 1,
        start_m: float = 0.0,
    ) -> Road:
        """A straight highway along +x; lane 0 is the leftmost, at y = 0, and the others lie to its right (y < 0)."""
        y = -lane_width_m * torch.arange(lanes, dtype=torch.get_default_dtype())
        ends = torch.tensor([start_m, start_m + length_m])
        centre = torch.stack([ends.expand(lanes, 2), y[:, None].expand(lanes, 2)], -1)
        index = torch.arange(lanes)
        road = Road(
            centre_m=centre,
            width_m=torch.full((lanes, 2), lane_width_m),
            point_count=torch.full((lanes,), 2),
            speed_limit_mps=torch.full((lanes,), speed_limit_mps),
            left=index - 1,
            right=torch.where(index + 1 < lanes, index + 1, NO_LANE),
            open_start=torch.ones(lanes, dtype=torch.bool),
            open_end=torch.ones(lanes, dtype=torch.bool),
        )
        return road.map(lambda tensor: tensor[None].expand(batch, *tensor.shape).contiguous())

    @staticmethod
    def batch(roads: list[Road]) -> Road:
        """Put roads of one scene each (leading dimension 1) together, padding lanes and points."""
        lanes = max(road.centre_m.shape[1] for road in roads)
        points = max(road.centre_m.shape[2] for road in roads)
        return Road.cat([road._padded(lanes, points) for road in roads])

    def _padded(self, lanes: int, points: int) -> Road:
        more_lanes, more_points = lanes - self.centre_m.shape[1], points - self.centre_m.shape[2]
        if more_points:
            tail = (slice(None), slice(None), slice(-1, None))
            centre = torch.cat([self.centre_m, self.centre_m[tail].expand(-1, -1, more_points, -1)], 2)
            width = torch.cat([self.width_m, self.width_m[tail].expand(-1, -1, more_points)], 2)
        else:
            centre, width = self.centre_m, self.width_m

        def pad(tensor: Tensor, value: float | int | bool) -> Tensor:
            shape = (tensor.shape[0], more_lanes, *tensor.shape[2:])
            return torch.cat([tensor, torch.full(shape, value, dtype=tensor.dtype, device=tensor.device)], 1)

        return Road(
            centre_m=pad(centre, 0.0),
            width_m=pad(width, 1.0),
            point_count=pad(self.point_count, 0),
            speed_limit_mps=pad(self.speed_limit_mps, 0.0),
            left=pad(self.left, NO_LANE),
            right=pad(self.right, NO_LANE),
            open_start=pad(self.open_start, False),
            open_end=pad(self.open_end, False),
        )
