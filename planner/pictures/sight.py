"""What a policy sees of the world: pictures about itself, now and a little earlier."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional

from drivecast.worldmodel.raster.view import Picture

LAGS = (0, 4, 8)  # steps before now at which the policy sees the others


def about_ego(
    others: Tensor, road: Tensor, along_m: Tensor, left_m: Tensor, speed_mps: Tensor, picture: Picture, dt_s: float
) -> Tensor:
    """Pictures in a view that begins at the ego now and moves as fast as it does now, `(batch, lag + 1, row, column)`.

    So the same traffic looks the same wherever a rollout's own view has gone meanwhile. What was beyond the view is
    empty, and is no road. Differentiable in the ego's place and speed.

    Args:
        others: Pictures of the others at `LAGS`, in a rollout's view, `(batch, lag, row, column)`.
        road: Of the road, now, `(batch, row, column)`.
        along_m: Where the ego is in that view, `(batch,)`.
        left_m: And how far to the left.
        speed_mps: How fast it moves through it.
        picture: Size of the pictures.
        dt_s: Time step, s.
    """
    ago_s = torch.tensor(LAGS, device=along_m.device, dtype=along_m.dtype) * dt_s
    shift_along = along_m[:, None] - speed_mps[:, None] * ago_s
    shift_left = left_m[:, None].expand_as(shift_along)
    moved = _shifted(others, shift_along, shift_left, picture)
    there = 1.0 - _shifted(1.0 - road[:, None], along_m[:, None], left_m[:, None], picture)
    return torch.cat([moved, there], 1)


def _shifted(pictures: Tensor, along_m: Tensor, left_m: Tensor, picture: Picture) -> Tensor:
    """`pictures (batch, channel, row, column)` as seen from `along_m, left_m (batch, channel)` further on; bilinear."""
    batch, channels, rows, columns = pictures.shape
    row = (picture.along_m(along_m) + along_m[..., None] + picture.behind_m) / picture.row_m  # in pixels' edges
    column = (picture.columns / 2) - (picture.left_m(left_m) + left_m[..., None]) / picture.column_m
    grid_row = (2.0 * row / rows - 1.0)[..., :, None].expand(-1, -1, -1, columns)
    grid_column = (2.0 * column / columns - 1.0)[..., None, :].expand(-1, -1, rows, -1)
    grid = torch.stack([grid_column, grid_row], -1).flatten(0, 1)
    flat = pictures.reshape(batch * channels, 1, rows, columns)
    return functional.grid_sample(flat, grid, align_corners=False).view_as(pictures)
