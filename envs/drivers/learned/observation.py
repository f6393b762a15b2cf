"""highway-env's "Kinematics" observation, seen from our scenes on any road."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from drivecast.envs.batched.observation import (
    BEHIND_M,
    LANE_WIDTH_M,
    PERCEPTION_M,
    RANGES,
    RELATIVE,
    KinematicsConfig,
)
from drivecast.worldmodel.rules.lanes_beside import lanes_abreast, leftmost
from drivecast.worldmodel.scene.lane_neighbours import single_lane
from drivecast.worldmodel.scene.road import Road
from drivecast.worldmodel.scene.traffic import TrafficState

SEEN = ("presence", "x", "y", "vx", "vy", "cos_h", "sin_h")  # the features that any road has


class HighwayObservation:
    """What highway-env 1.12.1 shows an agent (`KinematicObservation`, `Road.close_objects_to`).

    A row each for the ego and the nearest others along the road, of those within 200 m and, by default, no more than
    10 m behind; the ego's x, y, vx, vy are absolute, the others' less the ego's; by default x is over 200 m, y over 4 m
    times the number of lanes abreast where the episode starts, speeds over 80 m/s, all held within ±1; zeros where
    nobody is.

    highway-env's frame has x along the road and y to the right of the leftmost lane. Here these are the coordinates
    along and across the leftmost lane beside the ego: on highway-env's own roads its very numbers, on a recorded,
    curved road what it would see if that were straight.

    Args:
        config: What is seen; of its features those in `SEEN`, sorted, normalised and relative.
    """

    def __init__(self, config: KinematicsConfig | None = None) -> None:
        self.config = config or KinematicsConfig()
        self.rows = self.config.vehicles_count

    def start(self, scene: TrafficState, road: Road) -> None:
        """Episodes begin in `scene (batch, agent)`."""
        lane = road.project(scene.position_m[:, :1]).lane[:, 0]
        self._y_range_m: Tensor = LANE_WIDTH_M * lanes_abreast(scene, road, lane).to(scene.speed_mps)

    def observe(self, scene: TrafficState, road: Road) -> Tensor:
        """Float `(batch, rows, feature)` of `scene (batch, agent)`."""
        own = road.project(scene.position_m[:, :1]).lane[:, 0]
        axis = single_lane(road, leftmost(road, own)).project(scene.position_m)
        turn = scene.heading_rad - axis.heading_rad
        columns = {
            "presence": torch.ones_like(axis.along_m),
            "x": axis.along_m,
            "y": -axis.across_m,
            "vx": scene.speed_mps * turn.cos(),
            "vy": -scene.speed_mps * turn.sin(),
            "cos_h": turn.cos(),
            "sin_h": -turn.sin(),
        }
        order, there = self._nearest(scene, axis.along_m - axis.along_m[:, :1])
        rows = torch.stack([self._seen(name, columns[name], order, there) for name in self.config.features], -1)
        return torch.nn.functional.pad(rows, (0, 0, 0, self.rows - rows.shape[1]))

    def _nearest(self, scene: TrafficState, ahead_m: Tensor) -> tuple[Tensor, Tensor]:
        """Numbers `(batch, row)` of the nearest others, and whether they are seen."""
        within = (scene.position_m - scene.position_m[:, :1]).norm(dim=-1) < PERCEPTION_M
        seen = scene.valid & within
        if not self.config.see_behind:
            seen = seen & (ahead_m > -BEHIND_M)
        distance_m, order = ahead_m.abs().masked_fill(~seen, torch.inf)[:, 1:].sort(dim=1, stable=True)
        return order[:, : self.rows - 1] + 1, distance_m[:, : self.rows - 1].isfinite()

    def _seen(self, name: str, values: Tensor, order: Tensor, there: Tensor) -> Tensor:
        """The column `(batch, row)` of a feature of everybody, `(batch, agent)`."""
        ego, others = values[:, :1], values.gather(1, order)
        if name in RELATIVE:
            others = others - ego
        column = torch.cat([ego, others], 1)
        low, high = self._range(name)
        if low is not None:
            column = (-1 + (column - low) * 2 / (high - low)).clamp(-1, 1)
        return torch.cat([column[:, :1], column[:, 1:] * there], 1)

    def _range(self, name: str) -> tuple[Tensor | float | None, Any]:
        """What is -1 and 1 of a feature; None where it is shown as it is."""
        if self.config.features_range is not None:
            return self.config.features_range.get(name, (None, None))
        if name == "y":
            return -self._y_range_m[:, None], self._y_range_m[:, None]
        return RANGES.get(name, (None, None))
