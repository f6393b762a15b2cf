"""What an ego may do over a few frames: accelerations at knots, along its lane and to its left."""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import lru_cache

import torch
from torch import Tensor

from drivecast.worldmodel.scene.entities import FRAME_S, Entities
from drivecast.worldmodel.scene.kinematics import knot_weights
from drivecast.worldmodel.scene.traffic import _TensorRecord

KNOTS = 5
STEEPEST = 0.35  # sideways over forward speed: a car moves sideways by driving on


@dataclass(frozen=True)
class EgoStart(_TensorRecord):
    """Where an ego starts and how fast, `(batch,)` each, along its lane and to its left."""

    along_m: Tensor
    across_m: Tensor
    along_mps: Tensor
    across_mps: Tensor


@lru_cache(maxsize=64)
def _between_knots(frames: int) -> Tensor:
    """Weights `(frame, knot)` of accelerations that are linear between knots."""
    return knot_weights(frames, KNOTS)


def _integrated(values: Tensor) -> Tensor:
    """Integral from the first frame on, by trapezoids, over dimension 1."""
    steps = (values[:, 1:] + values[:, :-1]) / 2 * FRAME_S
    return torch.cat([torch.zeros_like(values[:, :1]), steps.cumsum(1)], 1)


def driven(entities: Entities, start: EgoStart, knots: Tensor) -> Entities:
    """`entities` with an ego that starts at `start` and accelerates by `knots (batch, knot, 2)`, m/s². Differentiable.

    A car's path determines its controls (the kinematic bicycle is differentially flat, its rear axle the flat output:
    Fliess et al. 1995), so what is drivable is a matter of the path: it never goes backward, and sideways only by
    driving on.
    """
    frames = entities.along_m.shape[1]
    added = torch.einsum("fk,bkc->bfc", _between_knots(frames).to(knots), knots)
    forward = start.along_mps[:, None] + _integrated(added[..., 0])
    forward = forward.clamp_min(0.0)
    sideways = start.across_mps[:, None] + _integrated(added[..., 1])
    most = STEEPEST * forward + 1e-3
    sideways = most * torch.tanh(sideways / most)
    along = start.along_m[:, None] + _integrated(forward)
    across = start.across_m[:, None] + _integrated(sideways)
    speed = (forward.square() + sideways.square() + 1e-6).sqrt()
    gained = (speed[:, 1:] - speed[:, :-1]) / FRAME_S
    changed = {
        "along_m": along,
        "across_m": across,
        "speed_mps": speed,
        "acceleration_mps2": torch.cat([gained[:, :1], gained], 1),
        "yaw_rad": torch.atan2(sideways, forward + 0.1),
    }
    return replace(
        entities,
        **{name: torch.cat([own[:, :, None], getattr(entities, name)[:, :, 1:]], 2) for name, own in changed.items()},
    )


def fitted(entities: Entities) -> tuple[EgoStart, Tensor]:
    """The start and the knots `(batch, knot, 2)` whose drive is nearest to the ego's own: least squares in position."""
    frames = entities.along_m.shape[1]
    weights = _between_knots(frames)
    moved = _integrated(_integrated(weights.T)).T  # (frame, knot), m per m/s²
    time = torch.arange(frames) * FRAME_S
    basis = torch.cat([torch.ones(frames, 1), time[:, None], moved], 1).to(entities.along_m)
    # a little held back: knots that noise alone would move stay where they are
    held = torch.diag(torch.tensor([0.0, 0.0, *[0.02] * KNOTS])).to(basis)
    solve = torch.linalg.solve(basis.T @ basis + held, basis.T)
    found = [values[:, :, 0] @ solve.T for values in (entities.along_m, entities.across_m)]
    start = EgoStart(found[0][:, 0], found[1][:, 0], found[0][:, 1].clamp_min(0.0), found[1][:, 1])
    return start, torch.stack([each[:, 2:] for each in found], -1)
