"""The cost terms of driving, read from pictures: `(batch, time)`, as those of `drivecast.planner.costs.terms`.

A picture says where others are, not who they are or how fast: the room that is wanted ahead goes by the ego's speed
alone, as in Henaff, Canziani, LeCun 2019 (arXiv 1901.02705), appendix B. Nothing is detached.
"""

from __future__ import annotations

import torch
from torch import Tensor

from drivecast.planner.costs.terms import ProximityConfig
from drivecast.planner.pictures.trajectory import PictureTrajectory
from drivecast.worldmodel.raster.view import MARKING, MARKING_M, Picture

LANE_REACH_M = 1.75  # lines nearer than this to the ego's middle cost something


def proximity(trajectory: PictureTrajectory, config: ProximityConfig, picture: Picture) -> Tensor:
    """The most that any pixel costs: how much others cover it, times how much its place is in the way.

    In the way: a squared ramp over the room wanted, standstill + headway v, from the ego's bumper (behind it, times
    `behind`), times 1 - (d / beside)² in the distance d from the ego's side.
    """
    others = trajectory.clip.others
    ego = trajectory.states[:, :, 0]
    along, left = trajectory.ego_place()
    ahead = picture.along_m(along) - along[..., None]  # (batch, time, row)
    gap = (ahead.abs() - ego.length_m[..., None] / 2).clamp_min(0.0)
    wanted = config.standstill_m + config.headway_s * ego.speed_mps.clamp_min(0.0)
    weight = torch.where(ahead.detach() >= 0.0, 1.0, config.behind)
    rows = weight * (1.0 - gap / wanted[..., None]).clamp_min(0.0).square()
    aside = (picture.left_m(left) - left[..., None]).abs() - ego.width_m[..., None] / 2
    columns = (1.0 - (aside.clamp_min(0.0) / config.beside_m).square()).clamp_min(0.0)
    return (others * rows[..., None] * columns[..., None, :]).amax((-1, -2))


def lane(trajectory: PictureTrajectory, picture: Picture) -> Tensor:
    """Lines and edges of the road near the ego's middle: nothing in the middle of a lane, one on a line."""
    rows = _beside_ego(trajectory, picture)
    _, left = trajectory.ego_place()
    away = (picture.left_m(left) - left[..., None]).abs()
    near = (1.0 - away / LANE_REACH_M).clamp_min(0.0)  # (batch, time, column)
    seen = (trajectory.clip.road * rows[..., None]).sum(-2)
    return (seen * near).sum(-1) * picture.column_m / (MARKING * MARKING_M)


def off_road(trajectory: PictureTrajectory, picture: Picture) -> Tensor:
    """How much of the ego's width is beside the road, and how far its middle is beyond the picture's sides, m."""
    rows = _beside_ego(trajectory, picture)
    _, left = trajectory.ego_place()
    width = trajectory.states.width_m[:, :, 0]
    under = (width[..., None] / 2 - (picture.left_m(left) - left[..., None]).abs()) / picture.column_m + 0.5
    beyond = ((trajectory.clip.road - MARKING) / (1.0 - MARKING)).clamp_min(0.0)
    covered = ((beyond * rows[..., None]).sum(-2) * under.clamp(0.0, 1.0)).sum(-1) * picture.column_m
    return covered + (left.abs() - picture.columns * picture.column_m / 2).clamp_min(0.0)


def _beside_ego(trajectory: PictureTrajectory, picture: Picture) -> Tensor:
    """Shares of the rows along which the ego is, `(batch, time, row)`; they sum to one as long as it is in view."""
    along, _ = trajectory.ego_place()
    half = trajectory.states.length_m[:, :, 0] / 2
    ends = half[..., None] - (picture.along_m(along) - along[..., None]).abs()
    covered = (ends / picture.row_m + 0.5).clamp(0.0, 1.0)
    return covered / covered.sum(-1, keepdim=True).clamp_min(1e-6)
