"""Egos that drive otherwise than they did: what the others must answer, though no recording shows how."""

from __future__ import annotations

from dataclasses import replace

import torch
from torch import Tensor

from drivecast.worldmodel.scene.traffic import TrafficState, with_ego


def with_other_speed(
    present: TrafficState, future: TrafficState, acceleration_mps2: Tensor, dt_s: float
) -> TrafficState:
    """`future` with each ego on its recorded path, but at a constant acceleration from its present speed.

    Beyond the end of what was recorded it goes straight on. A stop lasts.

    Args:
        present: `(batch, agent)`.
        future: What happened, `(batch, time, agent)`; only the ego's, agent 0's, is changed.
        acceleration_mps2: `(batch,)`.
        dt_s: Time step, s.
    """
    ego = future[:, :, 0]
    path = torch.cat([present.position_m[:, None, 0], ego.position_m], 1)  # (batch, 1 + time, 2)
    heading = torch.cat([present.heading_rad[:, None, 0], ego.heading_rad], 1)
    covered = torch.cat(
        [torch.zeros_like(path[:, :1, 0]), (path[:, 1:] - path[:, :-1]).norm(dim=-1).cumsum(1)], 1
    ).contiguous()
    steps = torch.arange(1, path.shape[1], device=path.device)
    speed = (present.speed_mps[:, :1] + acceleration_mps2[:, None] * steps * dt_s).clamp_min(0.0)
    before = torch.cat([present.speed_mps[:, :1], speed[:, :-1]], 1)
    along = ((before + speed) / 2 * dt_s).cumsum(1)  # (batch, time)
    piece = (torch.searchsorted(covered, along.contiguous(), right=True) - 1).clamp(0, path.shape[1] - 2)
    start, end = (path.gather(1, (piece + k)[..., None].expand(-1, -1, 2)) for k in (0, 1))
    length = (end - start).norm(dim=-1)
    turned = heading.gather(1, piece + 1)
    straight = torch.stack([turned.cos(), turned.sin()], -1)
    direction = torch.where((length > 1e-3)[..., None], (end - start) / length.clamp_min(1e-3)[..., None], straight)
    position = start + direction * (along - covered.gather(1, piece))[..., None]
    moved = replace(ego, position_m=position, heading_rad=turned, speed_mps=speed)
    flat = future.map(lambda tensor: tensor.flatten(0, 1))
    own = moved.map(lambda tensor: tensor.flatten(0, 1))
    changed = replace(
        flat,
        position_m=with_ego(flat.position_m, own.position_m),
        heading_rad=with_ego(flat.heading_rad, own.heading_rad),
        speed_mps=with_ego(flat.speed_mps, own.speed_mps),
    )
    return changed.map(lambda tensor: tensor.view(future.valid.shape[0], -1, *tensor.shape[1:]))
