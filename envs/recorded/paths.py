"""The curves that recorded vehicles drive along, by distance."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from drivecast.worldmodel.recordings.window import RecordedScene
from drivecast.worldmodel.scene.lane_neighbours import longest_lane, single_lane
from drivecast.worldmodel.scene.traffic import _TensorRecord

STEP_M = 1.0  # between two points of a path
GRID_M = 2.0  # between two places along the axis at which a path's offset is kept
STANDING_M = 0.5  # who moves less in all of its recording stands there
BEYOND_M = 100.0  # how far a path goes on where only the recording's end cut it


@dataclass(frozen=True)
class PathPoint(_TensorRecord):
    """Where vehicles are on their paths; along and across are measured from the recording's longest lane."""

    x_m: Tensor
    y_m: Tensor
    heading_rad: Tensor
    along_m: Tensor
    across_m: Tensor


@dataclass(frozen=True)
class RecordedPaths:
    """Paths of all vehicles of some recordings, numbered through.

    A vehicle that left the recorded range has its path end there. One that was still in sight when the recording ended
    goes on straight along its lane for `BEYOND_M`.
    """

    points: Tensor  # (vehicle, point, 5): the fields of `PathPoint`, `STEP_M` apart
    length_m: Tensor  # (vehicle,)
    offset_m: Tensor  # (vehicle, place): across, by place along the axis, `GRID_M` apart; constant beyond its ends
    origin_m: Tensor  # (vehicle,): the first place
    moves: Tensor  # (vehicle,) bool: it does not stand for as long as it is recorded
    driven_m: Tensor  # (row,): how far along its path the vehicle of each recorded row is

    @staticmethod
    def of_scenes(scenes: Sequence[RecordedScene]) -> RecordedPaths:
        """Rows are laid out `(recording, frame, vehicle)` after row 0, which stands for nobody."""
        drawn = [_paths_of(scene) for scene in scenes]
        points = max(path.shape[1] for path, *_ in drawn)
        places = max(offset.shape[1] for _, _, offset, *_ in drawn)
        return RecordedPaths(
            points=torch.cat([_held(path, points) for path, *_ in drawn]),
            length_m=torch.cat([length for _, length, *_ in drawn]),
            offset_m=torch.cat([_held(offset, places) for _, _, offset, *_ in drawn]),
            origin_m=torch.cat([origin for *_, origin, _ in drawn]),
            moves=torch.cat([driven[-1] > STANDING_M for *_, driven in drawn]),
            driven_m=torch.cat([torch.zeros(1), *(driven.flatten() for *_, driven in drawn)]),
        )

    def to(self, device: torch.device) -> RecordedPaths:
        return RecordedPaths(**{name: values.to(device) for name, values in self.__dict__.items()})

    def at(self, vehicle: Tensor, driven_m: Tensor) -> PathPoint:
        """Where `vehicle` is after `driven_m`, any shape; held at the ends."""
        count = self.points.shape[1]
        place = (driven_m / STEP_M).clamp(0.0, count - 1.001)
        before = place.long()
        flat, row = self.points.flatten(0, 1), vehicle * count + before
        here, then = flat[row], flat[row + 1]
        return PathPoint(*torch.lerp(here, then, (place - before)[..., None]).unbind(-1))

    def across_at(self, vehicle: Tensor, along_m: Tensor) -> Tensor:
        """Offset of a vehicle's path from the axis at a place along it, m."""
        places = self.offset_m.shape[1]
        place = ((along_m - self.origin_m[vehicle]) / GRID_M).round().clamp(0, places - 1).long()
        return self.offset_m.flatten()[vehicle * places + place]


def _held(values: Tensor, count: int) -> Tensor:
    """`values (vehicle, n, ...)` with the last one repeated up to `count`."""
    return torch.cat([values, values[:, -1:].expand(-1, count - values.shape[1], *values.shape[2:])], 1)


def _paths_of(scene: RecordedScene) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor]:
    """Points, lengths, offsets by place, first place, and the distance driven `(frame, vehicle)`, of one recording."""
    states = scene.states
    frames, agents = states.valid.shape
    position = states.position_m
    both = (states.valid[1:] & states.valid[:-1]).float()
    moved = (position[1:] - position[:-1]).norm(dim=-1) * both
    driven = torch.cat([torch.zeros(1, agents), moved.cumsum(0)])
    agent = torch.arange(agents)
    goes_on = scene.last_step == frames - 1
    length = driven[-1] + BEYOND_M * goes_on
    ends = position[scene.last_step, agent]
    onward = scene.road.project(ends[None]).heading_rad[0]

    count = int(length.max() / STEP_M) + 2
    distance = np.arange(count) * STEP_M
    drawn = np.zeros((agents, count, 3))
    for number in range(agents):
        part = slice(int(scene.first_step[number]), int(scene.last_step[number]) + 1)
        s = driven[part, number].numpy().astype(float)
        kept = np.concatenate([[True], np.diff(s) > 1e-3])
        xy, heading = position[part, number].numpy(), np.unwrap(states.heading_rad[part, number].numpy())
        for column, values in enumerate((xy[:, 0], xy[:, 1], heading)):
            drawn[number, :, column] = np.interp(distance, s[kept], values[kept])
        if goes_on[number]:
            beyond = np.clip(distance - s[-1], 0.0, BEYOND_M)
            turn = float(onward[number])
            drawn[number, :, 0] += beyond * np.cos(turn)
            drawn[number, :, 1] += beyond * np.sin(turn)
            drawn[number, beyond > 0, 2] += np.arctan2(np.sin(turn - heading[-1]), np.cos(turn - heading[-1]))
    path = torch.from_numpy(drawn).float()
    axis = single_lane(scene.road, longest_lane(scene.road))
    there = axis.project(path[..., :2].flatten(0, 1)[None])
    along, across = there.along_m.view(agents, count), there.across_m.view(agents, count)

    origin = float(along.min())
    places = origin + np.arange(int((float(along.max()) - origin) / GRID_M) + 2) * GRID_M
    offset = np.stack(
        [
            np.interp(places, np.maximum.accumulate(a), c)
            for a, c in zip(along.numpy().astype(float), across.numpy(), strict=True)
        ]
    )
    points = torch.cat([path, along[..., None], across[..., None]], -1)
    return points, length, torch.from_numpy(offset).float(), torch.full((agents,), origin), driven
