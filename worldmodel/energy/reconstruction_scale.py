"""How large an error of a reconstructed future is usual, by the time ahead."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from drivecast.worldmodel.energy.latent_rollout import posterior_latents
from drivecast.worldmodel.errors import InputError
from drivecast.worldmodel.forecaster.model import WorldModel
from drivecast.worldmodel.scene.road import Road
from drivecast.worldmodel.scene.traffic import TrafficState, along_and_left

ENERGY_SCALE = "energy_scale"  # name under which it is stored with a model
LANDMARK_S = 0.2  # between the moments that an energy is a sum over; with 0.5 s it hardly saw jumps of some metres
# Median errors times 1.48 of a model of US-101 under its posterior's mean: 0.03, 0.09, 0.16, 0.28, 0.29 m along and
# 0.02, 0.03, 0.05, 0.08, 0.09 m to the left at 0.2, 0.5, 1, 3 and 5 s, about
ALONG_AT_0_M, ALONG_PER_S_M = 0.05, 0.06
LEFT_AT_0_M, LEFT_PER_S_M = 0.02, 0.02
LEAST_M = 0.02  # of a scale
NORMAL_PER_MEDIAN = 1.4826  # standard deviation of a normal variable over the median of its size
FEWEST = 20  # vehicles that a scale is measured on


@dataclass(frozen=True)
class ReconstructionScale:
    """sigma(t) of position errors along and to the left of the true motion, in metres, `(landmark,)`.

    Landmark k is (k + 1) times 0.2 s ahead. Beyond the last one the scales go on growing as they did from the first.
    """

    along_m: Tensor
    left_m: Tensor

    @classmethod
    def standard(cls, horizon_s: float = 8.0) -> ReconstructionScale:
        """What a model of US-101 has: for models and recordings that nobody has measured."""
        time = LANDMARK_S * torch.arange(1, max(round(horizon_s / LANDMARK_S), 1) + 1)
        return cls(ALONG_AT_0_M + ALONG_PER_S_M * time, LEFT_AT_0_M + LEFT_PER_S_M * time)

    @classmethod
    @torch.no_grad()
    def measured(
        cls, model: WorldModel, windows: Iterable[tuple[TrafficState, Road, TrafficState]]
    ) -> ReconstructionScale:
        """From recorded windows `(history, road, future)`: the spread of the errors under the posterior's mean.

        The median of their size times 1.48, which few wild ones don't change; held from falling over time. Landmarks
        that fewer than 20 vehicles reach have no scale of their own.
        """
        errors: list[tuple[Tensor, Tensor, Tensor]] = []
        for history, road, future in windows:
            rollout, _ = posterior_latents(model, model.observe(history, road), road, future)
            moments = landmarks(future.valid.shape[1], model.config.dt_s)
            along, left = errors_m(rollout.position_m, future, moments)
            seen = future.valid[:, moments] & history.valid[:, -1:]
            errors.append((along, left, seen))
        scales: list[tuple[float, float]] = []
        for landmark in range(max((part[0].shape[1] for part in errors), default=0)):
            parts = [part for part in errors if part[0].shape[1] > landmark]
            seen = torch.cat([part[2][:, landmark].flatten() for part in parts])
            if int(seen.sum()) < FEWEST:
                break
            usual = [
                NORMAL_PER_MEDIAN
                * float(torch.cat([part[side][:, landmark].flatten() for part in parts])[seen].abs().median())
                for side in (0, 1)
            ]
            before = scales[-1] if scales else (LEAST_M, LEAST_M)
            scales.append((max(usual[0], before[0]), max(usual[1], before[1])))
        if not scales:
            raise ValueError(f"a scale needs {FEWEST} vehicles that are seen for {LANDMARK_S} s")
        along_m, left_m = torch.tensor(scales, device=errors[0][0].device).unbind(1)
        return cls(along_m, left_m)

    def as_json(self) -> dict[str, list[float]]:
        """To be stored with a model."""
        return {"along_m": self.along_m.tolist(), "left_m": self.left_m.tolist()}

    @classmethod
    def of_json(cls, stored: Any) -> ReconstructionScale:
        """What `as_json` gave; of a model that nothing was stored with, the standard one.

        Raises `InputError` where it is something else.
        """
        if stored is None:
            return cls.standard()
        try:
            along, left = (
                torch.tensor(stored[name], dtype=torch.get_default_dtype()) for name in ("along_m", "left_m")
            )
        except (KeyError, TypeError, ValueError, RuntimeError) as error:
            raise InputError(f"energy_scale: expected lists along_m and left_m, got {str(stored)[:60]!r}") from error
        fits = along.dim() == 1 and along.shape == left.shape and len(along) > 0
        if not fits or not bool((along > 0).all() and (left > 0).all() and (along + left).isfinite().all()):
            raise InputError(f"energy_scale: expected lists of positive numbers, got {str(stored)[:60]!r}")
        return cls(along, left)

    def at(self, count: int, like: Tensor) -> tuple[Tensor, Tensor]:
        """Scales along and to the left of the first `count` landmarks, `(count,)` each."""
        return _extended(self.along_m, count).to(like), _extended(self.left_m, count).to(like)


def landmarks(steps: int, dt_s: float) -> Tensor:
    """Steps of a future, counted from 0, at which it is compared: every 0.2 s; of a shorter one, its last."""
    every = max(round(LANDMARK_S / dt_s), 1)
    return torch.arange(every - 1, steps, every) if steps >= every else torch.tensor([steps - 1])


def errors_m(position_m: Tensor, future: TrafficState, moments: Tensor) -> tuple[Tensor, Tensor]:
    """Errors of `position_m (batch, time, agent, 2)` along and to the left of the true motion.

    `(batch, moment, agent)` each.
    """
    there = future[:, moments]
    return along_and_left(position_m[:, moments] - there.position_m, there.direction)


def _extended(scale: Tensor, count: int) -> Tensor:
    known = len(scale)
    if count <= known:
        return scale[:count]
    slope = (scale[-1] - scale[0]) / max(known - 1, 1)
    further = torch.arange(1, count - known + 1, device=scale.device)
    return torch.cat([scale, scale[-1] + slope * further])
