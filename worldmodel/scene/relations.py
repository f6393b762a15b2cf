"""How others stand to the ego: features of pairs of entities, for networks that look at pairs."""

from __future__ import annotations

import torch
from torch import Tensor

from drivecast.worldmodel.scene.entities import Entities

SLOWEST_MPS = 3.0  # below it a time gap is as at this speed
RELATION_FEATURES = 16


def ego_relations(entities: Entities) -> tuple[Tensor, Tensor]:
    """How others stand to the ego: `(batch, time, 1, entity, 16)`, of order one, and which of them count.

    Distances and differences in position and speed, the time gap of whoever comes behind, both vehicles' own motion.
    """
    ego = entities.map(lambda values: values[:, :, :1] if values.dim() == 3 else values)
    ahead, left = entities.along_m - ego.along_m, entities.across_m - ego.across_m
    gap = ahead.abs() - (entities.length_m + ego.length_m) / 2
    behind_mps = torch.where(ahead.detach() >= 0, ego.speed_mps, entities.speed_mps)
    time_gap_s = gap / behind_mps.clamp_min(SLOWEST_MPS)
    is_ahead = torch.tanh(ahead / 3.0)
    own_off, off = ego.off_centre_m, entities.off_centre_m
    features = [
        ahead / 20.0,
        torch.tanh(ahead / 8.0),
        is_ahead,
        is_ahead * torch.tanh(time_gap_s),
        is_ahead * (time_gap_s / 2.0).clamp(-1.0, 2.0),
        left / 4.0,
        torch.tanh(left / 1.5),
        (left / 4.0).square().clamp_max(4.0),
        (entities.speed_mps - ego.speed_mps) / 4.0,
        ego.speed_mps / 20.0,
        ego.acceleration_mps2 / 2.0,
        entities.acceleration_mps2 / 2.0,
        ego.yaw_rad / 0.05,
        own_off / 2.0,
        off / 2.0,
        entities.length_m / 5.0 - 1.0,
    ]
    pairs = torch.stack([values.expand_as(ahead) for values in features], -1)
    pairs = pairs.clamp(-5.0, 5.0)  # beyond it nothing is told apart
    others = torch.ones_like(entities.valid)
    others[:, :, 0] = False
    counts = entities.valid & ego.valid & others
    return pairs[:, :, None], counts[:, :, None]
