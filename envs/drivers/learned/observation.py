"""highway-env's "Kinematics" observation, seen from our scenes on any road."""

from __future__ import annotations

import torch
from torch import Tensor

from drivecast.envs.batched.observation import BEHIND_M, LANE_WIDTH_M, PERCEPTION_M, RANGES
from drivecast.envs.drivers.lanes_beside import lanes_abreast, leftmost
from drivecast.worldmodel.scene.lane_neighbours import single_lane
from drivecast.worldmodel.scene.road import Road
from drivecast.worldmodel.scene.traffic import TrafficState

FEATURES = ("presence", "x", "y", "vx", "vy")


class HighwayObservation:
    """What highway-env 1.12.1 shows an agent by default (`KinematicObservation`, `Road.close_objects_to`).

    A row each for the ego and the `rows - 1` nearest others along the road, of those within 200 m and no more than 10 m
    behind: presence, x, y, vx, vy; the ego's own absolute, the others' less the ego's; x over 200 m, y over 4 m times
    the number of lanes abreast where the episode starts, speeds over 80 m/s, held within ±1; zeros where nobody is.

    highway-env's frame has x along the road and y to the right of the leftmost lane. Here these are the coordinates
    along and across the leftmost lane beside the ego: on highway-env's own roads its very numbers, on a recorded,
    curved road what it would see if that were straight.

    Args:
        rows: highway-env's `vehicles_count`, 2 or more.
    """

    def __init__(self, rows: int = 5) -> None:
        self.rows = rows

    def start(self, scene: TrafficState, road: Road) -> None:
        """Episodes begin in `scene (batch, agent)`."""
        lane = road.project(scene.position_m[:, :1]).lane[:, 0]
        self._y_range_m: Tensor = LANE_WIDTH_M * lanes_abreast(scene, road, lane).to(scene.speed_mps)

    def observe(self, scene: TrafficState, road: Road) -> Tensor:
        """Float `(batch, rows, 5)` of `scene (batch, agent)`."""
        own = road.project(scene.position_m[:, :1]).lane[:, 0]
        axis = single_lane(road, leftmost(road, own)).project(scene.position_m)
        turn = scene.heading_rad - axis.heading_rad
        columns = torch.stack(
            [
                torch.ones_like(axis.along_m),
                axis.along_m,
                -axis.across_m,
                scene.speed_mps * turn.cos(),
                -scene.speed_mps * turn.sin(),
            ],
            -1,
        )
        ahead_m = axis.along_m - axis.along_m[:, :1]
        within = (scene.position_m - scene.position_m[:, :1]).norm(dim=-1) < PERCEPTION_M
        seen = scene.valid & within & (ahead_m > -BEHIND_M)
        distance_m, order = ahead_m.abs().masked_fill(~seen, torch.inf)[:, 1:].sort(dim=1, stable=True)
        nearest = order[:, : self.rows - 1] + 1
        there = distance_m[:, : self.rows - 1].isfinite()
        ego = columns[:, :1]
        others = columns.gather(1, nearest[..., None].expand(-1, -1, len(FEATURES)))
        others = torch.cat([others[..., :1], others[..., 1:] - ego[..., 1:]], -1)
        rows = torch.cat([ego, others], 1) / self._scale(columns)
        rows = torch.cat([rows[:, :1].clamp(-1, 1), rows[:, 1:].clamp(-1, 1) * there[..., None]], 1)
        return torch.nn.functional.pad(rows, (0, 0, 0, self.rows - rows.shape[1]))

    def _scale(self, like: Tensor) -> Tensor:
        """`(batch, 1, 5)`: what is 1 in each column; highway-env's ranges are symmetrical."""
        one = torch.ones_like(self._y_range_m)
        scales = [one, RANGES["x"][1] * one, self._y_range_m, RANGES["vx"][1] * one, RANGES["vy"][1] * one]
        return torch.stack(scales, -1)[:, None].to(like)
