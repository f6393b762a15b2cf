"""Pictures of traffic from above: where they lie, and how vehicles and lanes are drawn; differentiable."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from drivecast.worldmodel.errors import InputError
from drivecast.worldmodel.scene.road import NO_LANE, Road
from drivecast.worldmodel.scene.traffic import TrafficState, _TensorRecord, along_and_left

SLICES = 4  # of a vehicle along its length, each drawn square to the view
MARKING, MARKING_M = 0.5, 0.3  # brightness and width of the line between two lanes
ROAD_EVERY_M = 8.0  # lanes are straight in between


@dataclass(frozen=True)
class Picture:
    """Size and resolution of a picture; its rows run along the road, from behind the ego to before it.

    Args:
        rows: Pixels along the road.
        columns: Pixels across it, the left side of the road first.
        row_m: Length of a pixel, m.
        column_m: Width of a pixel, m.
        behind_m: How far the picture reaches behind its origin, m.
    """

    rows: int = 96
    columns: int = 24
    row_m: float = 1.0
    column_m: float = 0.5
    behind_m: float = 36.0

    def __post_init__(self) -> None:
        for name in ("rows", "columns"):
            if getattr(self, name) < 8 or getattr(self, name) % 8:
                raise InputError(f"raster.model.picture.{name}: expected a multiple of 8, got {getattr(self, name)}")
        for name in ("row_m", "column_m"):
            if not getattr(self, name) > 0.0:
                raise InputError(f"raster.model.picture.{name}: expected more than 0, got {getattr(self, name)}")

    def along_m(self, like: Tensor) -> Tensor:
        """Centres of the rows before the origin, `(row,)`."""
        return (torch.arange(self.rows).to(like) + 0.5) * self.row_m - self.behind_m

    def left_m(self, like: Tensor) -> Tensor:
        """Centres of the columns to the left of the origin, `(column,)`."""
        return (self.columns / 2 - 0.5 - torch.arange(self.columns).to(like)) * self.column_m


@dataclass(frozen=True)
class View(_TensorRecord):
    """Where the pictures of a scene lie: on a frame that goes straight on at a constant speed, `(batch,)` each.

    It moves with the ego as long as that holds its speed and lane; an ego that brakes falls back in the picture. So
    cars that keep their distance stand still in it, and what the ego does acts through the ego alone.
    """

    origin_m: Tensor  # (batch, 2): of the ego at present
    heading_rad: Tensor  # of its lane there
    speed_mps: Tensor  # its own

    @classmethod
    def of(cls, scene: TrafficState, road: Road) -> View:
        """The view of the egos of `scene (batch, agent)`."""
        ego = scene[:, :1]
        return cls(ego.position_m[:, 0], road.project(ego.position_m).heading_rad[:, 0], ego.speed_mps[:, 0])

    @property
    def direction(self) -> Tensor:
        return torch.stack([self.heading_rad.cos(), self.heading_rad.sin()], -1)

    def origins(self, seconds: Tensor) -> Tensor:
        """Where the view's origin is at `seconds (time,)` after the present, `(batch, time, 2)`."""
        return self.origin_m[:, None] + (self.direction * self.speed_mps[:, None])[:, None] * seconds[:, None]

    def local(self, position_m: Tensor, seconds: Tensor) -> tuple[Tensor, Tensor]:
        """`position_m (batch, time, agent, 2)` along and to the left of the view, `(batch, time, agent)` each."""
        away = position_m - self.origins(seconds)[:, :, None]
        return along_and_left(away, self.direction[:, None, None])


def draw_vehicles(states: TrafficState, view: View, seconds: Tensor, picture: Picture) -> Tensor:
    """How much of each pixel is covered by vehicles of `states (batch, time, agent)`: `(batch, time, row, column)`.

    A vehicle is drawn as slices along its length, each square to the view: right for vehicles that are turned little,
    as on highways. Not valid ones are not drawn.
    """
    forward = (torch.arange(SLICES).to(states.length_m) + 0.5) / SLICES - 0.5
    offset = states.direction[..., None, :] * (states.length_m[..., None] * forward)[..., None]
    places = (states.position_m[..., None, :] + offset).flatten(2, 3)  # (batch, time, agent·slice, 2)
    along, left = view.local(places, seconds)
    lengths, widths = (size.repeat_interleave(SLICES, -1) for size in (states.length_m / SLICES, states.width_m))
    rows = _covered(along, lengths, picture.along_m(along), picture.row_m)
    columns = _covered(left, widths, picture.left_m(left), picture.column_m)
    shown = states.valid.repeat_interleave(SLICES, -1)
    return ((rows * shown[..., None]).transpose(-1, -2) @ columns).clamp_max(1.0)


def draw_road(road: Road, view: View, seconds: Tensor, picture: Picture) -> Tensor:
    """Where one should not drive, `(batch, time, row, column)`: 1 beside the road, 0.5 on lines between its lanes."""
    rows = picture.along_m(view.speed_mps) + (view.speed_mps[:, None] * seconds)[..., None]  # (batch, time, row)
    at = torch.arange(float(rows.min()), float(rows.max()) + 2 * ROAD_EVERY_M, ROAD_EVERY_M).to(rows)
    points = view.origin_m[:, None] + view.direction[:, None] * at[:, None]  # (batch, place, 2)
    place = (rows - at[0]) / ROAD_EVERY_M
    before = place.long().clamp(0, len(at) - 2)
    share = place - before

    def by_row(values: Tensor) -> Tensor:
        """From the places where lanes are looked up, `(batch, place)`, to `(batch, time, row)`."""
        one, next_ = (values.gather(1, index.flatten(1)).view_as(rows) for index in (before, before + 1))
        return torch.lerp(one, next_, share)

    columns = picture.left_m(rows)
    drivable = rows.new_zeros(*rows.shape, picture.columns)
    lines = torch.zeros_like(drivable)
    for lane in range(road.width_m.shape[1]):
        there = road.project(points, torch.full(points.shape[:2], lane, device=points.device))
        exists = (road.point_count[:, lane] > 0)[:, None]
        exists = exists & ((there.along_m >= 0.0) | road.open_start[:, lane, None])
        exists = exists & ((there.remaining_m >= 0.0) | road.open_end[:, lane, None])
        centre, width, shown = by_row(-there.across_m), by_row(there.width_m), by_row(exists.to(points))
        drivable += _covered(centre, width, columns, picture.column_m) * shown[..., None]
        shared = (road.left[:, lane] != NO_LANE)[:, None, None]
        line = _covered(centre + width / 2, torch.full_like(width, MARKING_M), columns, picture.column_m)
        lines += line * (shown * shared)[..., None]
    return (1.0 - drivable.clamp_max(1.0) + MARKING * lines).clamp(0.0, 1.0)


def _covered(centre_m: Tensor, size_m: Tensor, pixels_m: Tensor, pixel_m: float) -> Tensor:
    """Share of each pixel `(pixel,)` that lies within `size_m` about `centre_m (...)`: `(..., pixel)`."""
    inside = size_m[..., None] / 2 - (pixels_m - centre_m[..., None]).abs()
    return (inside / pixel_m + 0.5).clamp_min(0.0).minimum((size_m[..., None] / pixel_m).clamp_max(1.0))
